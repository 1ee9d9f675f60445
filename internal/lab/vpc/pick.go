// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"net/netip"
	"slices"
)

// The automatic choice of addresses. EC2 does not say how it chooses, only what it avoids: addresses in use, the five
// of each subnet, and reservations of both types.
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-cidr-reservation.html

// pickIPv4 chooses n free addresses, all or none.
func (tx *change) pickIPv4(s Subnet, n int) ([]netip.Addr, error) {
	if !s.IPv4.IsValid() {
		return nil, errSubnetFull()
	}
	avoid := tx.reservedIn(s.ID, "")
	size := uint64(1) << (32 - s.IPv4.Bits())
	start := tx.rng.Uint64N(size)
	var out []netip.Addr
	for i := uint64(0); i < size && len(out) < n; i++ {
		a := advance(s.IPv4.Masked().Addr(), (start+i)%size)
		if !reservedByAWS(s.IPv4, a) && tx.space(s.ID).holder(a) == "" && !containsAddr(avoid, a) {
			out = append(out, a)
		}
	}
	if len(out) < n {
		return nil, errSubnetFull()
	}
	return out, nil
}

// pickIPv6 chooses n free addresses. A /64 is never full in practice, so random host parts are tried.
func (tx *change) pickIPv6(s Subnet, n int) ([]netip.Addr, error) {
	if !s.IPv6.IsValid() {
		return nil, errNoIPv6(s.ID)
	}
	avoid := tx.reservedIn(s.ID, "")
	var out []netip.Addr
	for tries := 0; len(out) < n; tries++ {
		if tries > 1000*(n+1) {
			return nil, errSubnetFull()
		}
		a := advance(s.IPv6.Masked().Addr(), tx.rng.Uint64())
		if s.IPv6.Contains(a) && !reservedByAWS(s.IPv6, a) && tx.space(s.ID).holder(a) == "" &&
			!containsAddr(avoid, a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// pickPrefixes chooses n free prefixes for delegation: out of the subnet's prefix reservations first, then out of what
// no reservation covers. https://github.com/aws/amazon-vpc-cni-k8s/issues/2749
// unverified: that EC2 goes on outside when the prefix reservations are full.
func (tx *change) pickPrefixes(s Subnet, v4 bool, n int) ([]netip.Prefix, error) {
	cidr, bits := s.cidr(v4), prefixBits6
	if v4 {
		bits = prefixBits4
	}
	if !cidr.IsValid() {
		return nil, errNoIPv6(s.ID)
	}
	var out []netip.Prefix
	for _, r := range tx.reservedIn(s.ID, ReservationPrefix) {
		if within(cidr, r) {
			out = tx.freeBlocks(s, r, bits, nil, n, out)
		}
	}
	out = tx.freeBlocks(s, cidr, bits, tx.reservedIn(s.ID, ""), n, out)
	if len(out) < n {
		return nil, errNoFreePrefix()
	}
	return out, nil
}

// freeBlocks appends to out free blocks of the given size in r until there are n. It looks at no more than 65,536.
func (tx *change) freeBlocks(s Subnet, r netip.Prefix, bits int, avoid []netip.Prefix, n int, out []netip.Prefix) []netip.Prefix {
	step := r.Masked().Addr()
	for range 1 << min(16, max(0, bits-r.Bits())) {
		if len(out) >= n || bits < r.Bits() {
			return out
		}
		p := netip.PrefixFrom(step, bits)
		overlaps := slices.ContainsFunc(avoid, p.Overlaps)
		if !overlaps && !touchesReserved(s.cidr(step.Is4()), p) && tx.space(s.ID).free(p) && !slices.Contains(out, p) {
			out = append(out, p)
		}
		step = lastOf(p).Next()
	}
	return out
}

// touchesReserved reports whether p has one of the five addresses of the subnet.
func touchesReserved(subnet, p netip.Prefix) bool {
	return p.Contains(subnet.Masked().Addr()) || p.Contains(lastOf(subnet))
}

// reservedIn returns the subnet's reservations of one type, or of both, sorted by address.
func (tx *change) reservedIn(subnetID, kind string) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range tx.reservations.all() {
		if r.SubnetID == subnetID && (kind == "" || r.Type == kind) {
			out = append(out, r.CIDR)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func containsAddr(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// unverified: the wording for a subnet without an IPv6 range.
func errNoIPv6(subnetID string) *APIError {
	return InvalidValue("The subnet %s does not have an IPv6 CIDR block associated with it.", subnetID)
}
