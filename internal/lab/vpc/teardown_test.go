// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestOnlyWhatIsEmptyIsRemoved(t *testing.T) {
	t.Parallel()
	now := time.Unix(1, 0)
	c := New(Config{})
	v, err := c.AddVPC(now, VPCSetup{IPv4: netip.MustParsePrefix("10.10.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.AddSubnet(now, SubnetSetup{VPCID: v.ID, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.1.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.CreateSubnetCIDRReservation(now, CreateSubnetCIDRReservationInput{
		SubnetID: s.ID, CIDR: netip.MustParsePrefix("10.10.1.64/26"), Type: ReservationExplicit,
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.CreateNetworkInterface(now, CreateNetworkInterfaceInput{SubnetID: s.ID})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(step string, err error) {
		t.Helper()
		if failure, ok := errors.AsType[*APIError](err); !ok || failure.Code != "DependencyViolation" {
			t.Errorf("%s: got %v, want DependencyViolation", step, err)
		}
	}
	refused("VPC with a subnet", c.RemoveVPC(now, v.ID))
	refused("subnet with an ENI", c.RemoveSubnet(now, s.ID))
	if err := c.DeleteNetworkInterface(now, e.ID); err != nil {
		t.Fatal(err)
	}
	refused("subnet with a reservation", c.RemoveSubnet(now, s.ID))
	if _, err := c.DeleteSubnetCIDRReservation(now, r.ID); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.RemoveSubnet(now, s.ID), c.RemoveVPC(now, v.ID)); err != nil {
		t.Fatal(err)
	}
	if view := c.View(now); len(view.VPCs())+len(view.Subnets()) != 0 {
		t.Errorf("left: %v %v", view.VPCs(), view.Subnets())
	}
	if err := c.RemoveSubnet(now, s.ID); err == nil {
		t.Error("a subnet was removed twice")
	}
	if err := c.RemoveVPC(now, v.ID); err == nil {
		t.Error("a VPC was removed twice")
	}
}

func TestAnIPv6BlockComesAndGoes(t *testing.T) {
	t.Parallel()
	now := time.Unix(1, 0)
	c := New(Config{})
	var blocks []netip.Prefix
	for range 2 {
		v, err := c.AddVPC(now, VPCSetup{IPv4: netip.MustParsePrefix("10.10.0.0/16")})
		if err != nil {
			t.Fatal(err)
		}
		block, err := c.AssociateIPv6(now, v.ID)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, block)
		if _, err = c.AssociateIPv6(now, v.ID); err == nil {
			t.Error("the lab's VPC has two blocks")
		}
		s, err := c.AddSubnet(now, SubnetSetup{
			VPCID: v.ID, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.1.0/24"), IPv6: netip.PrefixFrom(block.Addr(), 64),
		})
		if err != nil {
			t.Fatal(err)
		}
		if failure, ok := errors.AsType[*APIError](c.DisassociateIPv6(now, v.ID)); !ok || failure.Code != "DependencyViolation" {
			t.Errorf("the block of a subnet is gone: %v", failure)
		}
		if err = errors.Join(c.RemoveSubnet(now, s.ID), c.DisassociateIPv6(now, v.ID)); err != nil {
			t.Error(err)
		}
		if v, _ = c.View(now).VPC(v.ID); v.IPv6.IsValid() {
			t.Errorf("left: %s", v.IPv6)
		}
		if _, err = c.AssociateIPv6(now, v.ID); err != nil {
			t.Error(err)
		}
	}
	if blocks[0].Overlaps(blocks[1]) || blocks[0].Bits() != 56 {
		t.Errorf("blocks %v", blocks)
	}
	if failure, ok := errors.AsType[*APIError](c.DisassociateIPv6(now, "vpc-1")); !ok || failure.Code != "InvalidVpcID.NotFound" {
		t.Errorf("of no VPC: %v", failure)
	}
}
