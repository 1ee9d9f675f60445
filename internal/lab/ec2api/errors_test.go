// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// TestEveryRefusalIsOneValueAwayFromSuccess makes each error of EC2 through the real SDK, and then the same call with one
// value changed, which succeeds.
func TestEveryRefusalIsOneValueAwayFromSuccess(t *testing.T) {
	type try func(ctx context.Context, l *lab) error
	assign := func(eni int, addresses ...string) try {
		return func(ctx context.Context, l *lab) error {
			_, err := l.client.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
				NetworkInterfaceId: &l.enis[eni].ID, PrivateIpAddresses: addresses,
			})
			return err
		}
	}
	unassign := func(addresses func(*lab) string) try {
		return func(ctx context.Context, l *lab) error {
			_, err := l.client.UnassignPrivateIpAddresses(ctx, &ec2.UnassignPrivateIpAddressesInput{
				NetworkInterfaceId: &l.enis[0].ID, PrivateIpAddresses: []string{addresses(l)},
			})
			return err
		}
	}
	create := func(address string) try {
		return func(ctx context.Context, l *lab) error {
			_, err := l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{
				SubnetId: &l.multus.ID, PrivateIpAddress: &address,
			})
			return err
		}
	}
	run := func(in ec2.RunInstancesInput) try {
		return func(ctx context.Context, l *lab) error {
			in.ImageId, in.MinCount, in.MaxCount = aws.String("ami-1"), aws.Int32(1), aws.Int32(1)
			if in.SubnetId == nil {
				in.SubnetId = &l.multus.ID
			}
			_, err := l.client.RunInstances(ctx, &in)
			return err
		}
	}
	attach := func(subnet func(*lab) vpc.Subnet, index int32) try {
		return func(ctx context.Context, l *lab) error {
			e, err := l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: aws.String(subnet(l).ID)})
			if err != nil {
				return err
			}
			_, err = l.client.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{
				NetworkInterfaceId: e.NetworkInterface.NetworkInterfaceId, InstanceId: &l.workers[0].ID, DeviceIndex: &index,
			})
			return err
		}
	}
	multus := func(l *lab) vpc.Subnet { return l.multus }
	count := func(n int32) try {
		return func(ctx context.Context, l *lab) error {
			_, err := l.client.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
				NetworkInterfaceId: &l.enis[0].ID, SecondaryPrivateIpAddressCount: &n,
			})
			return err
		}
	}
	small := func(n int32) try {
		return func(ctx context.Context, l *lab) error {
			_, err := l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{
				SubnetId: &l.small.ID, SecondaryPrivateIpAddressCount: &n,
			})
			return err
		}
	}
	prefixes := func(subnet func(*lab) vpc.Subnet) try {
		return func(ctx context.Context, l *lab) error {
			_, err := l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{
				SubnetId: aws.String(subnet(l).ID), Ipv4PrefixCount: aws.Int32(1),
			})
			return err
		}
	}
	describe := func(name string, values int) try {
		return func(ctx context.Context, l *lab) error {
			f := types.Filter{Name: &name}
			for i := range values {
				f.Values = append(f.Values, fmt.Sprint(i))
			}
			_, err := l.client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{f}})
			return err
		}
	}
	ipv6 := func(in ec2.AssignIpv6AddressesInput) try {
		return func(ctx context.Context, l *lab) error {
			in.NetworkInterfaceId = &l.enis[0].ID
			_, err := l.client.AssignIpv6Addresses(ctx, &in)
			return err
		}
	}
	reserve := func(cidr string) try {
		return func(ctx context.Context, l *lab) error {
			_, err := l.client.CreateSubnetCidrReservation(ctx, &ec2.CreateSubnetCidrReservationInput{
				SubnetId: &l.multus.ID, Cidr: &cidr, ReservationType: types.SubnetCidrReservationTypeExplicit,
			})
			return err
		}
	}
	cases := []struct {
		name, code, message string // the message may have %s for the ID of the worker's second ENI
		before              try
		bad, good           try
	}{
		{
			"address in use", "InvalidParameterValue", "[10.10.1.70] assigned, but move is not allowed.",
			assign(0, "10.10.1.70"), assign(1, "10.10.1.70"), assign(1, "10.10.1.71"),
		},
		{
			"address outside the subnet", "InvalidParameterValue", "Address does not fall within the subnet's address range",
			nil, assign(0, "10.10.2.70"), assign(0, "10.10.1.70"),
		},
		{
			"reserved address", "InvalidParameterValue", "Address 10.10.1.3 is in subnet's reserved range.",
			nil, assign(0, "10.10.1.3"), assign(0, "10.10.1.70"),
		},
		{
			"reserved address for a new ENI", "InvalidParameterValue", "Address 10.10.1.3 is in subnet's reserved address range",
			nil, create("10.10.1.3"), create("10.10.1.70"),
		},
		{
			"reserved address for a new instance", "InvalidParameterValue", "Address 10.10.1.3 is in subnet's reserved address range",
			nil,
			run(ec2.RunInstancesInput{InstanceType: "m5.large", PrivateIpAddress: aws.String("10.10.1.3")}),
			run(ec2.RunInstancesInput{InstanceType: "m5.large", PrivateIpAddress: aws.String("10.10.1.70")}),
		},
		{
			"malformed address", "InvalidParameterValue", "invalid value for parameter address: 10.10.1",
			nil, assign(0, "10.10.1"), assign(0, "10.10.1.70"),
		},
		{
			"too many addresses", "PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.",
			nil, count(15), count(14),
		},
		{
			"subnet full", "InsufficientFreeAddressesInSubnet",
			"The specified subnet does not have enough free addresses to satisfy the request.",
			nil, small(11), small(10),
		},
		{
			"no contiguous prefix", "InsufficientCidrBlocks",
			"The specified subnet does not have enough free cidr blocks to satisfy the request.",
			nil, prefixes(func(l *lab) vpc.Subnet { return l.small }), prefixes(multus),
		},
		{
			"new ENI with a used address", "InvalidIPAddress.InUse", "The specified address is already in use.",
			create("10.10.1.70"), create("10.10.1.70"), create("10.10.1.71"),
		},
		{
			"unassign what is not there", "InvalidParameterValue", "Some of the specified addresses are not assigned to interface %s",
			assign(0, "10.10.1.70"),
			unassign(func(*lab) string { return "10.10.1.71" }), unassign(func(*lab) string { return "10.10.1.70" }),
		},
		{
			"unassign the primary", "InvalidParameterValue", "The primary IP address of an interface cannot be unassigned",
			assign(0, "10.10.1.70"),
			unassign(func(l *lab) string { return l.enis[0].Primary.String() }), unassign(func(*lab) string { return "10.10.1.70" }),
		},
		{
			"device index taken", "InvalidParameterValue", "", nil, attach(multus, 1), attach(multus, 2),
		},
		{
			"ENI attached already", "InvalidNetworkInterface.InUse", "Interface: [%s] in use.",
			nil,
			func(ctx context.Context, l *lab) error {
				_, err := l.client.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{
					NetworkInterfaceId: &l.enis[0].ID, InstanceId: &l.workers[1].ID, DeviceIndex: aws.Int32(2),
				})
				return err
			},
			attach(multus, 2),
		},
		{
			"ENI limit of the instance", "AttachmentLimitExceeded", "Interface count 5 exceeds the limit for m5.2xlarge",
			func(ctx context.Context, l *lab) error {
				return errors.Join(attach(multus, 2)(ctx, l), attach(multus, 3)(ctx, l))
			},
			attach(multus, 4),
			func(ctx context.Context, l *lab) error {
				l.workers[0] = l.workers[1]
				return attach(multus, 3)(ctx, l)
			},
		},
		{
			"address outside the subnet of a launch", "InvalidParameterValue",
			"Address 10.10.2.70 does not fall within the subnet's address range",
			nil,
			run(ec2.RunInstancesInput{InstanceType: "m5.large", PrivateIpAddress: aws.String("10.10.2.70")}),
			run(ec2.RunInstancesInput{InstanceType: "m5.large", PrivateIpAddress: aws.String("10.10.1.70")}),
		},
		{
			"subnet beside interfaces", "InvalidParameterCombination",
			"Network interfaces and an instance-level subnet ID may not be specified on the same request",
			nil,
			run(ec2.RunInstancesInput{InstanceType: "m5.large", NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{
				{DeviceIndex: aws.Int32(0)},
			}}),
			run(ec2.RunInstancesInput{InstanceType: "m5.large"}),
		},
		{
			"other zone", "InvalidParameterCombination", "",
			nil, attach(func(l *lab) vpc.Subnet { return l.otherZone }, 2), attach(multus, 2),
		},
		{
			"IPv6 addresses and count", "InvalidParameterCombination",
			"IPv6 addresses and IPv6 address count may not be specified on the same request",
			nil,
			ipv6(ec2.AssignIpv6AddressesInput{Ipv6Addresses: []string{"2001:db8:10:1::70"}, Ipv6AddressCount: aws.Int32(1)}),
			ipv6(ec2.AssignIpv6AddressesInput{Ipv6Addresses: []string{"2001:db8:10:1::70"}}),
		},
		{
			"too many IPv6 addresses", "PrivateIpAddressLimitExceeded", "",
			nil,
			ipv6(ec2.AssignIpv6AddressesInput{Ipv6AddressCount: aws.Int32(16)}),
			ipv6(ec2.AssignIpv6AddressesInput{Ipv6AddressCount: aws.Int32(15)}),
		},
		{
			"overlapping reservation", "InvalidParameterValue",
			"Reservation CIDR 10.10.1.64/28 has overlap with existing reserved CIDR block",
			nil, reserve("10.10.1.64/28"), reserve("10.10.1.128/28"),
		},
		{
			"unknown filter", "InvalidParameterValue", "The filter 'colour' is invalid",
			nil, describe("colour", 1), describe("subnet-id", 1),
		},
		{
			"too many filter values", "FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200",
			nil, describe("addresses.private-ip-address", 201), describe("addresses.private-ip-address", 200),
		},
		{
			"unknown instance type", "InvalidParameterValue", "Invalid value 'm5.tiny' for InstanceType.",
			nil, run(ec2.RunInstancesInput{InstanceType: "m5.tiny"}), run(ec2.RunInstancesInput{InstanceType: "m5.large"}),
		},
		{
			"zone of the launch", "InvalidParameterValue", "",
			nil,
			run(ec2.RunInstancesInput{InstanceType: "m5.large", Placement: &types.Placement{AvailabilityZone: aws.String("us-west-2b")}}),
			run(ec2.RunInstancesInput{InstanceType: "m5.large", Placement: &types.Placement{AvailabilityZone: aws.String("us-west-2a")}}),
		},
		{
			"parameter that is not implemented", "UnknownParameter", "The parameter EbsOptimized is not recognized",
			nil,
			run(ec2.RunInstancesInput{InstanceType: "m5.large", EbsOptimized: aws.Bool(true)}),
			run(ec2.RunInstancesInput{InstanceType: "m5.large"}),
		},
		{
			"action that is not implemented", "InvalidAction", "The action DescribeSpotPriceHistory is not valid for this web service.",
			nil,
			func(ctx context.Context, l *lab) error {
				_, err := l.client.DescribeSpotPriceHistory(ctx, &ec2.DescribeSpotPriceHistoryInput{})
				return err
			},
			func(ctx context.Context, l *lab) error {
				_, err := l.client.DescribeTags(ctx, &ec2.DescribeTagsInput{})
				return err
			},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, vpc.Config{})
			if c.before != nil {
				if err := c.before(t.Context(), l); err != nil {
					t.Fatal(err)
				}
			}
			message := c.message
			if strings.Contains(message, "%s") {
				message = fmt.Sprintf(message, l.enis[0].ID)
			}
			wantError(t, c.bad(t.Context(), l), c.code, message)
			if err := c.good(t.Context(), l); err != nil {
				t.Fatalf("the call next to it: %v", err)
			}
		})
	}
}

func TestObjectsThatDoNotExistAreNotFound(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	one := func(id string) []string { return []string{id} }
	for _, c := range []struct {
		code, message string
		call          func() error
	}{
		{"InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-0' does not exist", func() error {
			_, err := l.client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: one("eni-0")})
			return err
		}},
		{"InvalidNetworkInterfaceID.NotFound", "The networkInterface ID 'eni-0' does not exist", func() error {
			_, err := l.client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String("eni-0")})
			return err
		}},
		{"InvalidInstanceID.NotFound", "The instance ID 'i-0' does not exist", func() error {
			_, err := l.client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: one("i-0")})
			return err
		}},
		{"InvalidInstanceID.NotFound", "The instance ID 'i-0' does not exist", func() error {
			_, err := l.client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: one("i-0")})
			return err
		}},
		{"InvalidSubnetID.NotFound", "The subnet ID 'subnet-0' does not exist", func() error {
			_, err := l.client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: one("subnet-0")})
			return err
		}},
		{"InvalidSubnetID.NotFound", "The subnet ID 'subnet-0' does not exist", func() error {
			_, err := l.client.GetSubnetCidrReservations(ctx, &ec2.GetSubnetCidrReservationsInput{SubnetId: aws.String("subnet-0")})
			return err
		}},
		{"InvalidVpcID.NotFound", "The vpc ID 'vpc-0' does not exist", func() error {
			_, err := l.client.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: one("vpc-0")})
			return err
		}},
		{"InvalidAttachmentID.NotFound", "", func() error {
			_, err := l.client.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: aws.String("eni-attach-0")})
			return err
		}},
		{"InvalidSubnetCidrReservationID.NotFound", "", func() error {
			_, err := l.client.DeleteSubnetCidrReservation(ctx, &ec2.DeleteSubnetCidrReservationInput{
				SubnetCidrReservationId: aws.String("scr-0"),
			})
			return err
		}},
		{"InvalidInstanceType", "The following supplied instance types do not exist: [m5.tiny]", func() error {
			_, err := l.client.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"m5.tiny"}})
			return err
		}},
	} {
		wantError(t, c.call(), c.code, c.message)
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	l := newLab(t, vpc.Config{})
	before := len(l.View(l.now).AllENIs())
	_, err := l.client.CreateNetworkInterface(t.Context(), &ec2.CreateNetworkInterfaceInput{
		SubnetId: &l.multus.ID, DryRun: aws.Bool(true),
	})
	wantError(t, err, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
	if got := len(l.View(l.now).AllENIs()); got != before {
		t.Errorf("%d ENIs after a dry run, %d before", got, before)
	}
}

func TestDescribeShowsAChangeAfterItsLag(t *testing.T) {
	l := newLab(t, vpc.Config{Propagation: vpc.Propagation{Describe: 2 * time.Second}})
	ctx := t.Context()
	e := must(l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &l.multus.ID}))(t)
	in := &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*e.NetworkInterface.NetworkInterfaceId}}
	_, err := l.client.DescribeNetworkInterfaces(ctx, in)
	wantError(t, err, "InvalidNetworkInterfaceID.NotFound", "")
	l.now = l.now.Add(2 * time.Second)
	must(l.client.DescribeNetworkInterfaces(ctx, in))(t)
}
