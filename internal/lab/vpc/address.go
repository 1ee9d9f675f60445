// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import "net/netip"

// Sizes of delegated prefixes.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-prefix-eni.html
const (
	prefixBits4 = 28
	prefixBits6 = 80
)

// delegatedAround returns the delegated prefix that would contain a.
func delegatedAround(a netip.Addr) netip.Prefix {
	bits := prefixBits6
	if a.Is4() {
		bits = prefixBits4
	}
	p, _ := a.Prefix(bits) // cannot fail: both sizes fit their family
	return p
}

// lastOf returns the highest address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// reservedByAWS reports whether AWS keeps a for itself: the first four addresses and the last of a subnet, of each
// family. https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
func reservedByAWS(subnet netip.Prefix, a netip.Addr) bool {
	first := subnet.Masked().Addr()
	for range 4 {
		if a == first {
			return true
		}
		first = first.Next()
	}
	return a == lastOf(subnet)
}

// cidr returns the subnet's range of a's family.
func (s Subnet) cidr(v4 bool) netip.Prefix {
	if v4 {
		return s.IPv4
	}
	return s.IPv6
}

// advance returns the address n after a.
func advance(a netip.Addr, n uint64) netip.Addr {
	b := a.AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += uint64(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

// within reports whether inner lies wholly in outer.
func within(outer, inner netip.Prefix) bool {
	return outer.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}
