// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"net/netip"
	"time"
)

// AssignIPv6Addresses gives an ENI IPv6 addresses or /80 prefixes. There is no reassignment: an address must be
// unassigned from its holder first.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignIpv6Addresses.html
func (c *Cloud) AssignIPv6Addresses(now time.Time, in AssignIPv6AddressesInput) (out Assigned, failure error) {
	failure = c.change(now, func(tx *change) error {
		e, err := tx.eni(in.NetworkInterfaceID)
		if err != nil {
			return err
		}
		if err = onlyOne("IPv6 addresses", "IPv6 address count",
			len(in.Addresses), in.Count, len(in.Prefixes), in.PrefixCount); err != nil {
			return err
		}
		out.NetworkInterfaceID = e.ID
		s, err := tx.subnet(e.SubnetID)
		if err != nil {
			return err
		}
		if len(in.Prefixes)+in.PrefixCount > 0 {
			out.Prefixes, err = tx.assignPrefixes(e, s, false, in.Prefixes, in.PrefixCount)
			return err
		}
		if err = tx.checkIPv6Limit(e, in.Count+len(unique(in.Addresses))); err != nil {
			return err
		}
		if in.Count > 0 {
			out.Addresses, err = tx.pickIPv6(s, in.Count)
		} else {
			out.Addresses, err = unique(in.Addresses), tx.checkNamedIPv6(s, in.Addresses)
		}
		if err != nil {
			return err
		}
		e.IPv6 = append(e.IPv6, out.Addresses...)
		return tx.putENI(e)
	})
	if failure != nil {
		return Assigned{}, failure
	}
	return out, nil
}

// checkNamedIPv6 refuses addresses that cannot be assigned.
func (tx *change) checkNamedIPv6(s Subnet, addrs []netip.Addr) error {
	var taken []netip.Addr
	for _, a := range addrs {
		switch {
		case !s.IPv6.IsValid():
			return errNoIPv6(s.ID)
		case !s.IPv6.Contains(a):
			return errOutsideSubnet()
		case reservedByAWS(s.IPv6, a):
			return errReservedOnAssign(a)
		case tx.space(s.ID).holder(a) != "":
			taken = append(taken, a)
		}
	}
	if len(taken) > 0 {
		// unverified: neither code nor wording was found in any public source, nor what EC2 says to the holder itself.
		return errMoveNotAllowed(taken)
	}
	return nil
}

// checkIPv6Limit refuses more IPv6 addresses and prefixes than the instance type allows; they do not count as IPv4.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/AvailableIpPerENI.html
func (tx *change) checkIPv6Limit(e ENI, more int) error {
	if len(e.IPv6)+len(e.IPv6Prefixes)+more > tx.typeOf(e).IPv6PerInterface() {
		return errIPv6Limit()
	}
	return nil
}

// UnassignIPv6Addresses takes IPv6 addresses and /80 prefixes away from an ENI, all or none, and returns what was taken.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_UnassignIpv6Addresses.html
func (c *Cloud) UnassignIPv6Addresses(now time.Time, in UnassignInput) (Assigned, error) {
	err := c.change(now, func(tx *change) error {
		e, err := tx.eni(in.NetworkInterfaceID)
		if err != nil {
			return err
		}
		if len(in.Addresses)+len(in.Prefixes) == 0 {
			return errMissing("ipv6Addresses")
		}
		var ok1, ok2 bool
		e.IPv6, ok1 = without(e.IPv6, in.Addresses)
		e.IPv6Prefixes, ok2 = without(e.IPv6Prefixes, in.Prefixes)
		if !ok1 || !ok2 {
			return errNotAssigned(e.ID) // unverified: the wording is that of IPv4
		}
		return tx.putENI(e)
	})
	if err != nil {
		return Assigned{}, err
	}
	return Assigned{in.NetworkInterfaceID, unique(in.Addresses), unique(in.Prefixes)}, nil
}

// assignPrefixes delegates prefixes to e, of the named ones or of EC2's choice.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-prefix-eni.html
func (tx *change) assignPrefixes(e ENI, s Subnet, v4 bool, named []netip.Prefix, count int) ([]netip.Prefix, error) {
	named = unique(named)
	limit := tx.checkIPv6Limit
	if v4 {
		limit = tx.checkIPv4Limit
	}
	if err := limit(e, len(named)+count); err != nil {
		return nil, err
	}
	if tx.typeOf(e).Hypervisor == Xen {
		// Nitro only; unverified: code and wording.
		return nil, Errorf("UnsupportedOperation", "The instance type %s does not support prefix delegation.", tx.typeOf(e).Name)
	}
	got, err := named, tx.checkNamedPrefixes(s, v4, named)
	if count > 0 {
		got, err = tx.pickPrefixes(s, v4, count)
	}
	if err != nil {
		return nil, err
	}
	if v4 {
		e.Prefixes = append(e.Prefixes, got...)
	} else {
		e.IPv6Prefixes = append(e.IPv6Prefixes, got...)
	}
	return got, tx.putENI(e)
}

// checkNamedPrefixes refuses prefixes of the wrong size, place or state. unverified: the wordings.
func (tx *change) checkNamedPrefixes(s Subnet, v4 bool, named []netip.Prefix) error {
	bits := prefixBits6
	if v4 {
		bits = prefixBits4
	}
	var taken []netip.Prefix
	for _, p := range named {
		switch {
		case p.Addr().Is4() != v4 || p.Bits() != bits || p != p.Masked():
			return InvalidValue("invalid value for parameter prefix: %s", p)
		case !within(s.cidr(v4), p):
			return errOutsideSubnet()
		case touchesReserved(s.cidr(v4), p):
			return InvalidValue("Prefix %s is in subnet's reserved range.", p)
		case !tx.space(s.ID).free(p):
			taken = append(taken, p)
		}
	}
	if len(taken) > 0 {
		return errMoveNotAllowed(taken)
	}
	return nil
}
