// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

var t0 = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// world is the VPC of the tests: one subnet with an explicit reservation, and workers with two ENIs each.
type world struct {
	*vpc.Cloud
	vpc     vpc.VPC
	primary vpc.Subnet
	multus  vpc.Subnet
	workers []vpc.Instance
	enis    []vpc.ENI // the second ENI of each worker
}

func newWorld(t *testing.T, cfg vpc.Config, workers int, kind string) *world {
	t.Helper()
	w := &world{Cloud: vpc.New(cfg)}
	var err error
	zero := time.Time{}
	w.vpc, err = w.AddVPC(zero, vpc.VPCSetup{Name: "lab", IPv4: prefix("10.10.0.0/16"), IPv6: prefix("2001:db8:10::/56")})
	fatal(t, err)
	w.primary, err = w.AddSubnet(zero, vpc.SubnetSetup{Name: "primary", VPCID: w.vpc.ID, AZ: "us-west-2a", IPv4: prefix("10.10.12.0/24")})
	fatal(t, err)
	w.multus, err = w.AddSubnet(zero, vpc.SubnetSetup{
		Name: "multus-1", VPCID: w.vpc.ID, AZ: "us-west-2a", IPv4: prefix("10.10.1.0/24"), IPv6: prefix("2001:db8:10:1::/64"),
	})
	fatal(t, err)
	_, err = w.CreateSubnetCIDRReservation(zero, vpc.CreateSubnetCIDRReservationInput{
		SubnetID: w.multus.ID, CIDR: prefix("10.10.1.64/26"), Type: vpc.ReservationExplicit,
	})
	fatal(t, err)
	for range workers {
		i, err := w.AddInstance(zero, vpc.InstanceSetup{
			Name: "worker", Type: kind, ENIs: []vpc.ENISetup{{SubnetID: w.primary.ID}, {SubnetID: w.multus.ID}},
		})
		fatal(t, err)
		w.workers = append(w.workers, i)
		w.enis = append(w.enis, w.View(zero).ENIs(i.ID)[1])
	}
	return w
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachReaderSeesAMoveOneLagLater(t *testing.T) {
	lags := vpc.Propagation{Route: time.Second, IMDS: 3 * time.Second, Describe: 2 * time.Second}
	w := newWorld(t, vpc.Config{Propagation: lags}, 2, "m5.2xlarge")
	a := addr("10.10.1.70")
	for i, e := range w.enis {
		_, err := w.AssignPrivateIPAddresses(t0.Add(time.Duration(i)*time.Minute), vpc.AssignPrivateIPAddressesInput{
			NetworkInterfaceID: e.ID, Addresses: []netip.Addr{a}, AllowReassignment: true,
		})
		fatal(t, err)
	}
	moved := t0.Add(time.Minute)
	for _, lag := range []time.Duration{lags.Route, lags.IMDS, lags.Describe} {
		before, after := w.View(moved.Add(-time.Nanosecond)), w.View(moved.Add(lag).Add(-lag))
		if got := before.Routes()[a]; got != w.enis[0].ID {
			t.Errorf("before the move the address is on %s", got)
		}
		if got := after.Routes()[a]; got != w.enis[1].ID {
			t.Errorf("after the move the address is on %s", got)
		}
	}
	if at, ok := w.NextChange(moved); !ok || !at.Equal(moved.Add(lags.Route)) {
		t.Errorf("NextChange = %v, %v", at, ok)
	}
	if _, ok := w.NextChange(moved.Add(lags.Route)); ok {
		t.Error("NextChange promises another change")
	}
}
