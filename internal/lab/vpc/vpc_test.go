// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc_test

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

func TestConcurrentClaimsOfOneAddressHaveOneWinner(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 8, "m5.2xlarge")
	var won atomic.Int32
	var group sync.WaitGroup
	for i := range w.enis {
		group.Go(func() {
			if _, err := w.assign(i, false, "10.10.1.70"); err == nil {
				won.Add(1)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d claims succeeded", won.Load())
	}
}

func TestAWaiterIsToldOfEachChangeAndOfNoRefusal(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 2, "m5.2xlarge")
	told := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	changed := w.Changed()
	_, err := w.assign(0, false, "10.10.1.70")
	fatal(t, err)
	if !told(changed) {
		t.Error("a change was not announced")
	}
	changed = w.Changed()
	if _, err := w.assign(1, false, "10.10.1.70"); err == nil || told(changed) {
		t.Errorf("a refused call (%v) was announced", err)
	}
}

func TestASeedFixesIDsAndChoices(t *testing.T) {
	a, b := newWorld(t, vpc.Config{Seed: 7}, 3, "m5.2xlarge"), newWorld(t, vpc.Config{Seed: 7}, 3, "m5.2xlarge")
	if diff := cmp.Diff(a.enis, b.enis, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("two labs of one seed differ:\n%s", diff)
	}
	if c := newWorld(t, vpc.Config{Seed: 8}, 3, "m5.2xlarge"); c.enis[0].ID == a.enis[0].ID {
		t.Error("two seeds give the same IDs")
	}
}

func TestSetupKeepsTheRules(t *testing.T) {
	w := newWorld(t, vpc.Config{}, 0, "")
	address := func(s string) vpc.AddressRequest { return vpc.AddressRequest{Primary: addr(s)} }
	for _, c := range []struct {
		name, code string
		call       func() error
	}{
		{"VPC too large", "InvalidVpc.Range", func() error {
			_, err := w.AddVPC(t0, vpc.VPCSetup{IPv4: prefix("10.0.0.0/8")})
			return err
		}},
		{"subnet outside the VPC", "InvalidSubnet.Range", func() error {
			_, err := w.AddSubnet(t0, vpc.SubnetSetup{VPCID: w.vpc.ID, AZ: "us-west-2a", IPv4: prefix("10.11.0.0/24")})
			return err
		}},
		{"subnets overlap", "InvalidSubnet.Conflict", func() error {
			_, err := w.AddSubnet(t0, vpc.SubnetSetup{VPCID: w.vpc.ID, AZ: "us-west-2a", IPv4: prefix("10.10.1.128/25")})
			return err
		}},
		{"unknown type", "InvalidParameterValue", func() error {
			_, err := w.AddInstance(t0, vpc.InstanceSetup{Type: "m5.tiny", ENIs: []vpc.ENISetup{{SubnetID: w.primary.ID}}})
			return err
		}},
		{"too many ENIs", "AttachmentLimitExceeded", func() error {
			_, err := w.AddInstance(t0, vpc.InstanceSetup{Type: "t3.medium", ENIs: make4(w.primary.ID)})
			return err
		}},
		{"one address twice", "InvalidIPAddress.InUse", func() error {
			_, err := w.AddInstance(t0, vpc.InstanceSetup{Type: "t3.medium", ENIs: []vpc.ENISetup{
				{SubnetID: w.multus.ID, AddressRequest: address("10.10.1.20")},
				{SubnetID: w.multus.ID, AddressRequest: address("10.10.1.20")},
			}})
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e *vpc.APIError
			if err := c.call(); !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if v := w.View(t0); len(v.VPCs()) != 1 || len(v.Subnets()) != 2 || len(v.AllENIs()) != 0 || len(v.Routes()) != 0 {
				t.Error("a refused setup left something behind")
			}
		})
	}
	// What the refused launches held for a moment is free.
	_, err := w.AddInstance(t0, vpc.InstanceSetup{Type: "t3.medium", ENIs: []vpc.ENISetup{
		{SubnetID: w.multus.ID, AddressRequest: address("10.10.1.20")},
	}})
	fatal(t, err)
}

func make4(subnetID string) []vpc.ENISetup {
	one := vpc.ENISetup{SubnetID: subnetID}
	return []vpc.ENISetup{one, one, one, one}
}

func TestZoneIDs(t *testing.T) {
	for az, want := range map[string]string{
		"us-west-2a": "usw2-az1", "ap-northeast-1c": "apne1-az3", "eu-central-1b": "euc1-az2", "": "",
	} {
		if got := vpc.ZoneID(az); got != want {
			t.Errorf("%s is %s, want %s", az, got, want)
		}
	}
}
