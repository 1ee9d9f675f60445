// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"net/netip"
	"time"
)

// RemoveSubnet deletes a subnet that nothing is in, without going through the API.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSubnet.html
func (c *Cloud) RemoveSubnet(now time.Time, id string) error {
	return c.change(now, func(tx *change) error {
		if _, ok := tx.subnets.newest(id); !ok {
			return errSubnetNotFound(id)
		}
		for e := range tx.each() {
			if e.SubnetID == id {
				return errDependency("subnet", id)
			}
		}
		for _, r := range tx.reservations.all() {
			if r.SubnetID == id {
				return errDependency("subnet", id) // unverified: EC2 may delete the reservations with the subnet
			}
		}
		tx.commit = append(tx.commit, func() {
			tx.subnets.remove(tx.now, id)
			delete(tx.spaces, id)
		})
		return nil
	})
}

// RemoveVPC deletes a VPC without subnets and security groups, its default group with it, without going through the API.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteVpc.html
func (c *Cloud) RemoveVPC(now time.Time, id string) error {
	return c.change(now, func(tx *change) error {
		if _, ok := tx.vpcs.newest(id); !ok {
			return errVPCNotFound(id)
		}
		for _, s := range tx.subnets.all() {
			if s.VPCID == id {
				return errDependency("vpc", id)
			}
		}
		for _, g := range tx.groups.all() {
			if g.VPCID == id && g.ID != defaultGroup(id) {
				return errDependency("vpc", id)
			}
		}
		tx.commit = append(tx.commit, func() {
			tx.vpcs.remove(tx.now, id)
			tx.groups.remove(tx.now, defaultGroup(id))
		})
		return nil
	})
}

// DisassociateIPv6 takes the VPC's IPv6 block away, which no subnet may have a part of.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DisassociateVpcCidrBlock.html
func (c *Cloud) DisassociateIPv6(now time.Time, vpcID string) error {
	return c.change(now, func(tx *change) error {
		v, ok := tx.vpcs.newest(vpcID)
		if !ok {
			return errVPCNotFound(vpcID)
		}
		for _, s := range tx.subnets.all() {
			if s.VPCID == vpcID && s.IPv6.IsValid() {
				return errDependency("vpc", vpcID)
			}
		}
		v.IPv6 = netip.Prefix{}
		tx.commit = append(tx.commit, func() { tx.vpcs.put(tx.now, v.ID, v) })
		return nil
	})
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (DependencyViolation)
func errDependency(kind, id string) *APIError {
	return Errorf("DependencyViolation", "The %s '%s' has dependencies and cannot be deleted.", kind, id)
}
