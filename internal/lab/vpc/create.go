// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// CreateNetworkInterface makes an ENI. Until a Describe lag has passed, no call can name it.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateNetworkInterface.html
func (c *Cloud) CreateNetworkInterface(now time.Time, in CreateNetworkInterfaceInput) (out ENI, failure error) {
	failure = c.change(now, func(tx *change) error {
		again, ok, err := repeated[ENI](tx, "CreateNetworkInterface", in.ClientToken, in)
		if ok || err != nil {
			out = again
			return err
		}
		s, err := tx.subnet(in.SubnetID)
		if err != nil {
			return err
		}
		out, err = tx.createENI(s, InterfaceSpec{
			Description: in.Description, InterfaceType: in.InterfaceType, Groups: in.Groups, Tags: in.Tags,
			AddressRequest: in.AddressRequest,
		}, largestType(), false)
		if err != nil {
			return err
		}
		remember(tx, "CreateNetworkInterface", in.ClientToken, in, out)
		return nil
	})
	if failure != nil {
		return ENI{}, failure
	}
	return out, nil
}

// createENI makes an ENI in s with what spec asks for, within the limits of t. A launch words its refusals differently.
func (tx *change) createENI(s Subnet, spec InterfaceSpec, t InstanceType, launch bool) (ENI, error) {
	kind := orDefault(spec.InterfaceType, "interface")
	if !slices.Contains([]string{"interface", "efa", "efa-only"}, kind) {
		return ENI{}, InvalidValue("Invalid value '%s' for InterfaceType.", spec.InterfaceType)
	}
	if err := checkRequest(spec.AddressRequest); err != nil {
		return ENI{}, err
	}
	if err := tx.checkGroups(s, spec.Groups); err != nil {
		return ENI{}, err
	}
	if err := tx.checkNamedOnCreate(s, spec.AddressRequest, launch); err != nil {
		return ENI{}, err
	}
	e := ENI{
		ID: tx.newID("eni"), MAC: tx.newMAC(), VPCID: s.VPCID, SubnetID: s.ID, AZ: s.AZ, OwnerID: s.OwnerID,
		Description: spec.Description, InterfaceType: kind, CreatedAt: tx.stamp(),
		Groups: slices.Clone(spec.Groups), SourceDestCheck: true, Tags: maps.Clone(spec.Tags),
		Primary: spec.Primary, Secondary: unique(spec.Secondary), IPv6: unique(spec.IPv6),
	}
	if len(e.Groups) == 0 {
		e.Groups = []string{defaultGroup(s.VPCID)}
	}
	return tx.fillENI(e, s, spec.AddressRequest, t)
}

// fillENI completes a new ENI with what EC2 chooses, checks it against the limits and puts it.
func (tx *change) fillENI(e ENI, s Subnet, r AddressRequest, t InstanceType) (ENI, error) {
	v4 := len(e.Secondary) + r.SecondaryCount + len(unique(r.Prefixes)) + r.PrefixCount
	if s.IPv4.IsValid() {
		v4++
	}
	if v4 > t.IPv4PerInterface {
		return ENI{}, errAddressLimit()
	}
	if len(e.IPv6)+r.IPv6Count+len(unique(r.IPv6Prefixes))+r.IPv6PrefixCount > t.IPv6PerInterface() {
		return ENI{}, errIPv6Limit()
	}
	// What was named is claimed before EC2 chooses, so that it does not choose the same.
	if err := tx.putENI(e); err != nil {
		return ENI{}, err
	}
	want := r.SecondaryCount
	if s.IPv4.IsValid() && !e.Primary.IsValid() {
		want++
	}
	if want > 0 {
		chosen, err := tx.pickIPv4(s, want)
		if err != nil {
			return ENI{}, err
		}
		if !e.Primary.IsValid() {
			e.Primary, chosen = chosen[0], chosen[1:]
		}
		e.Secondary = append(e.Secondary, chosen...)
	}
	if r.IPv6Count > 0 {
		chosen, err := tx.pickIPv6(s, r.IPv6Count)
		if err != nil {
			return ENI{}, err
		}
		e.IPv6 = append(e.IPv6, chosen...)
	}
	if err := tx.putENI(e); err != nil {
		return ENI{}, err
	}
	for _, v4 := range []bool{true, false} {
		named, count := r.IPv6Prefixes, r.IPv6PrefixCount
		if v4 {
			named, count = r.Prefixes, r.PrefixCount
		}
		if len(named)+count == 0 {
			continue
		}
		e, _ = tx.newestENI(e.ID)
		if _, err := tx.assignPrefixes(e, s, v4, named, count); err != nil {
			return ENI{}, err
		}
	}
	e, _ = tx.newestENI(e.ID)
	return e, nil
}

// checkRequest refuses combinations. The wording for IPv6 was seen: https://github.com/ansible/ansible/pull/40334.
// unverified: the others.
func checkRequest(r AddressRequest) error {
	for _, n := range []int{r.SecondaryCount, r.PrefixCount, r.IPv6Count, r.IPv6PrefixCount} {
		if n < 0 {
			return InvalidValue("Invalid value '%d' for a count. Must be positive", n)
		}
	}
	for _, pair := range []struct {
		a, b   bool
		an, bn string
	}{
		{len(r.IPv6) > 0, r.IPv6Count > 0, "IPv6 addresses", "IPv6 address count"},
		{len(r.Secondary) > 0, r.SecondaryCount > 0, "secondary private IP addresses", "secondary private IP address count"},
		{len(r.Prefixes) > 0, r.PrefixCount > 0, "IPv4 prefixes", "IPv4 prefix count"},
		{len(r.IPv6Prefixes) > 0, r.IPv6PrefixCount > 0, "IPv6 prefixes", "IPv6 prefix count"},
	} {
		if pair.a && pair.b {
			return errCombination("%s and %s may not be specified on the same request", pair.an, pair.bn)
		}
	}
	return nil
}

// checkNamedOnCreate refuses named addresses that the new ENI cannot have.
func (tx *change) checkNamedOnCreate(s Subnet, r AddressRequest, launch bool) error {
	named := slices.Concat(r.Secondary, r.IPv6)
	if r.Primary.IsValid() {
		if !r.Primary.Is4() {
			return InvalidValue("invalid value for parameter address: %s", r.Primary)
		}
		named = append([]netip.Addr{r.Primary}, named...)
	}
	for _, a := range named {
		cidr := s.cidr(a.Is4())
		switch {
		case !cidr.IsValid() && !a.Is4():
			return errNoIPv6(s.ID)
		case launch && (!cidr.IsValid() || !cidr.Contains(a)):
			return errLaunchOutsideSubnet(a)
		case !cidr.IsValid() || !cidr.Contains(a):
			return errOutsideSubnet()
		case reservedByAWS(cidr, a):
			return errReservedOnCreate(a)
		case launch && tx.space(s.ID).holder(a) != "":
			return errLaunchInUse(a)
		case tx.space(s.ID).holder(a) != "":
			return errCreateInUse()
		}
	}
	if !launch && !r.Primary.IsValid() && len(r.Secondary) > 0 && s.IPv4.IsValid() {
		// unverified: what EC2 does with a list that designates no primary address. Nobody shall rely on a guess.
		return errCombination("Private IP addresses are specified and none of them as the primary one")
	}
	if r.Primary.IsValid() && slices.Contains(r.Secondary, r.Primary) {
		return InvalidValue("The address %s is specified more than once", r.Primary) // unverified: the wording
	}
	return nil
}

// defaultGroup is the ID of a VPC's default security group.
func defaultGroup(vpcID string) string { return "sg-" + vpcID[len("vpc-"):] }

// DeleteNetworkInterface deletes a detached ENI and frees its addresses.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteNetworkInterface.html
func (c *Cloud) DeleteNetworkInterface(now time.Time, id string) error {
	return c.change(now, func(tx *change) error {
		e, err := tx.eni(id)
		if err != nil {
			return err
		}
		if e.Attachment != nil {
			// https://github.com/gruntwork-io/cloud-nuke/issues/431
			return InvalidValue("Network interface '%s' is currently in use.", id)
		}
		return tx.removeENI(e)
	})
}

// ModifyNetworkInterfaceAttribute sets exactly one attribute.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyNetworkInterfaceAttribute.html
func (c *Cloud) ModifyNetworkInterfaceAttribute(now time.Time, in ModifyNetworkInterfaceAttributeInput) error {
	return c.change(now, func(tx *change) error {
		e, err := tx.eni(in.NetworkInterfaceID)
		if err != nil {
			return err
		}
		given := 0
		if in.Description != nil {
			given++
			e.Description = *in.Description
		}
		if in.SourceDestCheck != nil {
			given++
			e.SourceDestCheck = *in.SourceDestCheck
		}
		if len(in.Groups) > 0 {
			given++
			if err := tx.checkGroups(Subnet{ID: e.SubnetID, VPCID: e.VPCID}, in.Groups); err != nil {
				return err
			}
			e.Groups = slices.Clone(in.Groups)
		}
		if in.AttachmentID != "" || in.DeleteOnTermination != nil {
			given++
			if e.Attachment == nil || e.Attachment.ID != in.AttachmentID {
				return errAttachmentNotFound(in.AttachmentID)
			}
			if in.DeleteOnTermination == nil {
				return errMissing("attachment.deleteOnTermination")
			}
			e.Attachment.DeleteOnTermination = *in.DeleteOnTermination
		}
		switch {
		case given == 0:
			return errMissing("attribute")
		case given > 1:
			// "You can specify only one attribute at a time." unverified: code and wording of the refusal.
			return errCombination("Fields for multiple attribute types specified")
		}
		return tx.putENI(e)
	})
}
