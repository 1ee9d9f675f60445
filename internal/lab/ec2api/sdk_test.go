// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/multus-vpc/multus-vpc/internal/lab/ec2api"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

var t0 = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

// lab is a VPC with two workers behind the API, and the real SDK's client to it.
type lab struct {
	*vpc.Cloud
	client  *ec2.Client
	handler http.Handler
	now     time.Time

	vpc              vpc.VPC
	primary, multus  vpc.Subnet
	workers          []vpc.Instance
	enis             []vpc.ENI // the second ENI of each worker
	reservation      vpc.Reservation
	otherZone, small vpc.Subnet
}

// transport mounts a handler without a network.
type transport struct{ http.Handler }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	t.ServeHTTP(w, r)
	return w.Result(), nil
}

func newLab(t *testing.T, cfg vpc.Config) *lab {
	t.Helper()
	l := &lab{Cloud: vpc.New(cfg), now: t0}
	zero := time.Time{}
	l.vpc = must(l.AddVPC(zero, vpc.VPCSetup{
		Name: "lab", IPv4: netip.MustParsePrefix("10.10.0.0/16"), IPv6: netip.MustParsePrefix("2001:db8:10::/56"),
	}))(t)
	l.primary = must(l.AddSubnet(zero, vpc.SubnetSetup{
		Name: "primary", VPCID: l.vpc.ID, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.12.0/24"),
	}))(t)
	l.multus = must(l.AddSubnet(zero, vpc.SubnetSetup{
		Name: "multus-1", VPCID: l.vpc.ID, AZ: "us-west-2a", Tags: map[string]string{"multus": "1"},
		IPv4: netip.MustParsePrefix("10.10.1.0/24"), IPv6: netip.MustParsePrefix("2001:db8:10:1::/64"),
	}))(t)
	l.otherZone = must(l.AddSubnet(zero, vpc.SubnetSetup{
		Name: "multus-1b", VPCID: l.vpc.ID, AZ: "us-west-2b", IPv4: netip.MustParsePrefix("10.10.2.0/24"),
	}))(t)
	l.small = must(l.AddSubnet(zero, vpc.SubnetSetup{
		Name: "small", VPCID: l.vpc.ID, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.3.0/28"),
	}))(t)
	l.reservation = must(l.CreateSubnetCIDRReservation(zero, vpc.CreateSubnetCIDRReservationInput{
		SubnetID: l.multus.ID, CIDR: netip.MustParsePrefix("10.10.1.64/26"), Type: vpc.ReservationExplicit,
		Tags: map[string]string{"multus-vpc.io/role": "pool"},
	}))(t)
	for _, name := range []string{"worker-1", "worker-2"} {
		i := must(l.AddInstance(zero, vpc.InstanceSetup{Name: name, Type: "m5.2xlarge", ENIs: []vpc.ENISetup{
			{SubnetID: l.primary.ID},
			{SubnetID: l.multus.ID, Tags: map[string]string{"node.k8s.amazonaws.com/no_manage": "true"}},
		}}))(t)
		l.workers = append(l.workers, i)
		l.enis = append(l.enis, l.View(zero).ENIs(i.ID)[1])
	}
	l.handler = ec2api.Handler(l.Cloud, func() time.Time { return l.now })
	l.client = ec2.New(ec2.Options{
		Region: "us-west-2", HTTPClient: &http.Client{Transport: transport{l.handler}},
		BaseEndpoint: aws.String("http://ec2.lab"), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIALAB1", "secret", ""),
	})
	return l
}

// must fails the test on an error: must(f())(t).
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantError fails the test unless err is EC2's error with that code, and with that message if it is not empty.
func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want %s", err, code)
	}
	if e.ErrorCode() != code || (message != "" && e.ErrorMessage() != message) {
		t.Fatalf("got  %s: %s\nwant %s: %s", e.ErrorCode(), e.ErrorMessage(), code, message)
	}
}

func tagsOf(list []types.Tag) map[string]string {
	out := map[string]string{}
	for _, t := range list {
		out[*t.Key] = *t.Value
	}
	return out
}

func TestAddressesAreAssignedMovedAndUnassigned(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	a := "10.10.1.70"
	out := must(l.client.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: &l.enis[0].ID, PrivateIpAddresses: []string{a, "10.10.1.71"},
	}))(t)
	if len(out.AssignedPrivateIpAddresses) != 2 || *out.AssignedPrivateIpAddresses[0].PrivateIpAddress != a {
		t.Errorf("assigned %+v", out.AssignedPrivateIpAddresses)
	}
	_, err := l.client.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: &l.enis[1].ID, PrivateIpAddresses: []string{"10.10.1.72", a, "10.10.1.71"},
	})
	wantError(t, err, "InvalidParameterValue", "[10.10.1.70, 10.10.1.71] assigned, but move is not allowed.")
	must(l.client.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: &l.enis[1].ID, PrivateIpAddresses: []string{a}, AllowReassignment: aws.Bool(true),
	}))(t)
	found := must(l.client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{
		{Name: aws.String("addresses.private-ip-address"), Values: []string{a}},
	}}))(t)
	if len(found.NetworkInterfaces) != 1 || *found.NetworkInterfaces[0].NetworkInterfaceId != l.enis[1].ID {
		t.Fatalf("%s is on %+v", a, found.NetworkInterfaces)
	}
	n := found.NetworkInterfaces[0]
	if *n.Attachment.InstanceId != l.workers[1].ID || *n.Attachment.DeviceIndex != 1 || *n.MacAddress != l.enis[1].MAC {
		t.Errorf("the ENI is shown as %+v", n)
	}
	if tagsOf(n.TagSet)["node.k8s.amazonaws.com/no_manage"] != "true" {
		t.Errorf("tags %v", tagsOf(n.TagSet))
	}
	must(l.client.UnassignPrivateIpAddresses(ctx, &ec2.UnassignPrivateIpAddressesInput{
		NetworkInterfaceId: &l.enis[1].ID, PrivateIpAddresses: []string{a},
	}))(t)
	if owner, held := l.View(l.now).Routes()[netip.MustParseAddr(a)]; held {
		t.Errorf("%s is still routed to %s", a, owner)
	}
}
