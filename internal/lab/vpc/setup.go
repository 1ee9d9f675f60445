// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// VPCSetup describes a VPC of a scenario.
type VPCSetup struct {
	Name string
	IPv4 netip.Prefix
	IPv6 netip.Prefix // optional
	Tags map[string]string
}

// SubnetSetup describes a subnet of a scenario.
type SubnetSetup struct {
	Name  string
	VPCID string
	AZ    string
	IPv4  netip.Prefix // one of IPv4 and IPv6 may be left out
	IPv6  netip.Prefix
	Tags  map[string]string
}

// InstanceSetup describes an instance of a scenario.
type InstanceSetup struct {
	Name string
	Type string
	Tags map[string]string
	ENIs []ENISetup // the first is the primary one
}

// ENISetup describes an ENI of a scenario's instance.
type ENISetup struct {
	SubnetID    string
	Description string
	Tags        map[string]string
	NetworkCard int
	DeviceIndex *int // default: the next free index of the card; a further card starts at 1
	// DeleteOnTermination defaults to true.
	DeleteOnTermination *bool
	AddressRequest
}

// AddVPC makes a VPC without going through the API.
func (c *Cloud) AddVPC(now time.Time, in VPCSetup) (out VPC, err error) {
	err = c.change(now, func(tx *change) error {
		// https://docs.aws.amazon.com/vpc/latest/userguide/vpc-cidr-blocks.html
		if !inside(in.IPv4, in.IPv4) || !in.IPv4.Addr().Is4() || in.IPv4.Bits() < 16 || in.IPv4.Bits() > 28 {
			return Errorf("InvalidVpc.Range", "The CIDR '%s' is invalid.", in.IPv4)
		}
		if in.IPv6.IsValid() && (!inside(in.IPv6, in.IPv6) || in.IPv6.Addr().Is4() || in.IPv6.Bits() < 44 || in.IPv6.Bits() > 60) {
			return Errorf("InvalidVpc.Range", "The CIDR '%s' is invalid.", in.IPv6)
		}
		out = VPC{ID: tx.newID("vpc"), IPv4: in.IPv4, IPv6: in.IPv6, OwnerID: tx.cfg.AccountID, Tags: named(in.Name, in.Tags)}
		group := defaultGroupOf(out)
		tx.commit = append(tx.commit, func() { tx.vpcs.put(tx.now, out.ID, out); tx.groups.put(tx.now, group.ID, group) })
		return CheckTags(out.Tags)
	})
	return out, err
}

// AssociateIPv6 gives the VPC a /56 of Amazon's pool of addresses, for which the lab has those of documentation.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssociateVpcCidrBlock.html (AmazonProvidedIpv6CidrBlock)
func (c *Cloud) AssociateIPv6(now time.Time, vpcID string) (block netip.Prefix, err error) {
	err = c.change(now, func(tx *change) error {
		v, ok := tx.vpcs.newest(vpcID)
		if !ok {
			return errVPCNotFound(vpcID)
		}
		if v.IPv6.IsValid() { // EC2 allows five
			return Errorf("CidrLimitExceeded", "The lab's VPC has one IPv6 CIDR block, '%s'.", v.IPv6)
		}
		for n := 0; ; n++ {
			block = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xff, byte(n >> 8), byte(n)}), 56)
			if !slices.ContainsFunc(tx.vpcs.all(), func(o VPC) bool { return o.IPv6.Overlaps(block) }) {
				break
			}
		}
		v.IPv6 = block
		tx.commit = append(tx.commit, func() { tx.vpcs.put(tx.now, v.ID, v) })
		return nil
	})
	return block, err
}

// AddSubnet makes a subnet without going through the API. It must lie in its VPC and overlap no other subnet.
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
func (c *Cloud) AddSubnet(now time.Time, in SubnetSetup) (out Subnet, err error) {
	err = c.change(now, func(tx *change) error {
		v, ok := tx.vpcs.newest(in.VPCID)
		if !ok {
			return errVPCNotFound(in.VPCID)
		}
		if in.AZ == "" {
			return errMissing("availabilityZone")
		}
		if !in.IPv4.IsValid() && !in.IPv6.IsValid() {
			return errMissing("cidrBlock")
		}
		if in.IPv4.IsValid() && (!inside(v.IPv4, in.IPv4) || in.IPv4.Bits() > 28) {
			return Errorf("InvalidSubnet.Range", "The CIDR '%s' is invalid.", in.IPv4)
		}
		if in.IPv6.IsValid() && (!inside(v.IPv6, in.IPv6) || in.IPv6.Bits()%4 != 0 || in.IPv6.Bits() > 64) {
			return Errorf("InvalidSubnet.Range", "The CIDR '%s' is invalid.", in.IPv6)
		}
		for _, s := range tx.subnets.all() {
			for _, pair := range [][2]netip.Prefix{{s.IPv4, in.IPv4}, {s.IPv6, in.IPv6}} {
				if s.VPCID == in.VPCID && pair[0].Overlaps(pair[1]) {
					return Errorf("InvalidSubnet.Conflict", "The CIDR '%s' conflicts with another subnet", pair[1])
				}
			}
		}
		out = Subnet{
			ID: tx.newID("subnet"), VPCID: v.ID, AZ: in.AZ, IPv4: in.IPv4, IPv6: in.IPv6,
			OwnerID: tx.cfg.AccountID, Tags: named(in.Name, in.Tags),
		}
		tx.commit = append(tx.commit, func() { tx.subnets.put(tx.now, out.ID, out) })
		return CheckTags(out.Tags)
	})
	return out, err
}

// AddInstance makes a running instance with its ENIs without going through the API, under the rules of RunInstances.
func (c *Cloud) AddInstance(now time.Time, in InstanceSetup) (out Instance, err error) {
	err = c.change(now, func(tx *change) error {
		t, ok := LookupInstanceType(in.Type)
		if !ok {
			return InvalidValue("Invalid value '%s' for InstanceType.", in.Type)
		}
		if len(in.ENIs) == 0 {
			return errMissing("networkInterface")
		}
		next := map[int]int{}
		var specs []InterfaceSpec
		for _, e := range in.ENIs {
			if _, used := next[e.NetworkCard]; !used && e.NetworkCard > 0 {
				next[e.NetworkCard] = 1
			}
			index := next[e.NetworkCard]
			if e.DeviceIndex != nil {
				index = *e.DeviceIndex
			}
			next[e.NetworkCard] = max(next[e.NetworkCard], index+1)
			specs = append(specs, InterfaceSpec{
				NetworkCardIndex: e.NetworkCard, DeviceIndex: index, SubnetID: e.SubnetID, Description: e.Description,
				DeleteOnTermination: e.DeleteOnTermination, Tags: e.Tags, AddressRequest: e.AddressRequest,
			})
		}
		i := Instance{
			ID: tx.newID("i"), ReservationID: tx.newID("r"), Type: t.Name, ImageID: "ami-0000000000000001a", State: StateRunning,
			LaunchTime: tx.stamp(), OwnerID: tx.cfg.AccountID, Tags: named(in.Name, in.Tags),
		}
		out, _, err = tx.launch(i, t, specs)
		return err
	})
	if err != nil {
		return Instance{}, err
	}
	return out, nil
}

func named(name string, tags map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, tags)
	if name != "" {
		out["Name"] = name
	}
	return out
}
