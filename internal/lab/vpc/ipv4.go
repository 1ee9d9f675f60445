// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"net/netip"
	"slices"
	"time"
)

// AssignPrivateIPAddresses gives an ENI secondary IPv4 addresses or /28 prefixes: named ones, or as many as asked for.
// Naming addresses without AllowReassignment is decided by the newest state of the whole VPC, so it is a compare-and-set.
// With AllowReassignment they leave their old ENI in the same moment; each reader sees both halves one lag later.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignPrivateIpAddresses.html
func (c *Cloud) AssignPrivateIPAddresses(now time.Time, in AssignPrivateIPAddressesInput) (out Assigned, failure error) {
	failure = c.change(now, func(tx *change) error {
		e, err := tx.eni(in.NetworkInterfaceID)
		if err != nil {
			return err
		}
		if err = onlyOne("private IP addresses", "secondary private IP address count",
			len(in.Addresses), in.Count, len(in.Prefixes), in.PrefixCount); err != nil {
			return err
		}
		out.NetworkInterfaceID = e.ID
		s, err := tx.subnet(e.SubnetID)
		if err != nil {
			return err
		}
		if len(in.Prefixes)+in.PrefixCount > 0 {
			out.Prefixes, err = tx.assignPrefixes(e, s, true, in.Prefixes, in.PrefixCount)
			return err
		}
		if in.Count > 0 {
			if err = tx.checkIPv4Limit(e, in.Count); err != nil {
				return err
			}
			if out.Addresses, err = tx.pickIPv4(s, in.Count); err != nil {
				return err
			}
			e.Secondary = append(e.Secondary, out.Addresses...)
			return tx.putENI(e)
		}
		out.Addresses, err = tx.assignNamed(e, s, in.Addresses, in.AllowReassignment)
		return err
	})
	if failure != nil {
		return Assigned{}, failure
	}
	return out, nil
}

// assignNamed moves named addresses to e. It returns those of the request that e has afterwards.
func (tx *change) assignNamed(e ENI, s Subnet, addrs []netip.Addr, reassign bool) ([]netip.Addr, error) {
	for _, a := range addrs {
		if err := checkNamedIPv4(s, a); err != nil {
			return nil, err
		}
	}
	good, taken, err := tx.judge(e, s, unique(addrs), reassign)
	if err != nil {
		return nil, err
	}
	if len(taken) > 0 && tx.cfg.MixedBatch == MixedBatchAtomic {
		return nil, errMoveNotAllowed(taken)
	}
	fresh := slices.DeleteFunc(slices.Clone(good), func(a netip.Addr) bool { return slices.Contains(e.IPv4(), a) })
	if err := tx.checkIPv4Limit(e, len(fresh)); err != nil {
		return nil, err
	}
	for _, a := range fresh {
		if err := tx.takeAway(s, a); err != nil {
			return nil, err
		}
	}
	e.Secondary = append(e.Secondary, fresh...)
	if err := tx.putENI(e); err != nil {
		return nil, err
	}
	if len(taken) > 0 {
		tx.keep = true
		return nil, errMoveNotAllowed(taken)
	}
	return good, nil
}

// judge parts the addresses into those that e may have and those that it may not take.
func (tx *change) judge(e ENI, s Subnet, addrs []netip.Addr, reassign bool) (good, taken []netip.Addr, err error) {
	space := tx.space(s.ID)
	for _, a := range addrs {
		switch holder := space.holder(a); {
		case holder == "":
			good = append(good, a)
		case space.addrs[a] == e.ID && (reassign || tx.cfg.AssignOwned == AssignOwnedOK):
			good = append(good, a)
		case space.addrs[a] == e.ID, !reassign:
			taken = append(taken, a)
		case space.addrs[a] == "":
			// unverified: an address inside another ENI's delegated prefix cannot be moved out of it.
			taken = append(taken, a)
		default:
			if owner, _ := tx.newestENI(holder); owner.Primary == a {
				// The API reference speaks of secondary addresses only. unverified: code and wording.
				return nil, nil, InvalidValue("[%s] is the primary address of interface %s and cannot be reassigned.", a, holder)
			}
			good = append(good, a)
		}
	}
	return good, taken, nil
}

// takeAway removes a secondary address from whichever ENI has it.
func (tx *change) takeAway(s Subnet, a netip.Addr) error {
	holder := tx.space(s.ID).addrs[a]
	if holder == "" {
		return nil
	}
	old, _ := tx.newestENI(holder)
	old.Secondary = slices.DeleteFunc(old.Secondary, func(x netip.Addr) bool { return x == a })
	return tx.putENI(old)
}

// checkNamedIPv4 holds for AssignPrivateIpAddresses; a reservation does not stop who names the address.
func checkNamedIPv4(s Subnet, a netip.Addr) error {
	switch {
	case !a.Is4() || !s.IPv4.Contains(a):
		return errOutsideSubnet()
	case reservedByAWS(s.IPv4, a):
		return errReservedOnAssign(a)
	}
	return nil
}

// UnassignPrivateIPAddresses takes secondary addresses and /28 prefixes away from an ENI, all or none.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_UnassignPrivateIpAddresses.html
func (c *Cloud) UnassignPrivateIPAddresses(now time.Time, in UnassignInput) error {
	return c.change(now, func(tx *change) error {
		e, err := tx.eni(in.NetworkInterfaceID)
		if err != nil {
			return err
		}
		if len(in.Addresses)+len(in.Prefixes) == 0 {
			return errMissing("privateIpAddress")
		}
		if e.Primary.IsValid() && slices.Contains(in.Addresses, e.Primary) {
			// unverified: the wording.
			return InvalidValue("The primary IP address of an interface cannot be unassigned")
		}
		var ok1, ok2 bool
		e.Secondary, ok1 = without(e.Secondary, in.Addresses)
		e.Prefixes, ok2 = without(e.Prefixes, in.Prefixes)
		if !ok1 || !ok2 {
			return errNotAssigned(e.ID)
		}
		return tx.putENI(e)
	})
}

// checkIPv4Limit refuses more addresses and prefixes than the instance type allows on one ENI, the primary included.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/AvailableIpPerENI.html
func (tx *change) checkIPv4Limit(e ENI, more int) error {
	if len(e.IPv4())+len(e.Prefixes)+more > tx.typeOf(e).IPv4PerInterface {
		return errAddressLimit()
	}
	return nil
}

// typeOf is the type of the instance that the ENI is attached to.
func (tx *change) typeOf(e ENI) InstanceType {
	if e.Attachment != nil {
		if i, ok := tx.instances.newest(e.Attachment.InstanceID); ok {
			if t, ok := LookupInstanceType(i.Type); ok {
				return t
			}
		}
	}
	return largestType()
}

// without removes each of gone from list and reports whether all were there.
func without[T comparable](list, gone []T) ([]T, bool) {
	out := slices.DeleteFunc(slices.Clone(list), func(x T) bool { return slices.Contains(gone, x) })
	return out, len(list)-len(out) == len(unique(gone))
}

// unique drops repetitions and keeps the order.
func unique[T comparable](list []T) []T {
	var out []T
	for _, x := range list {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// onlyOne refuses a request that asks in more than one way, or in none.
// The wording with addresses and count was seen from RunInstances: https://github.com/ansible/ansible/pull/40334.
// unverified: the wording of the other pairs.
func onlyOne(addresses, count string, nAddresses, nCount, nPrefixes, nPrefixCount int) error {
	if nCount < 0 || nPrefixCount < 0 {
		return InvalidValue("Invalid value '%d' for %s. Must be positive", min(nCount, nPrefixCount), count)
	}
	var given []string
	for i, n := range []int{nAddresses, nCount, nPrefixes, nPrefixCount} {
		if n > 0 {
			given = append(given, []string{addresses, count, "prefixes", "prefix count"}[i])
		}
	}
	switch len(given) {
	case 0:
		return errMissing(map[bool]string{true: "ipv6Addresses", false: "privateIpAddress"}[addresses == "IPv6 addresses"])
	case 1:
		return nil
	}
	return errCombination("%s and %s may not be specified on the same request", given[0], given[1])
}
