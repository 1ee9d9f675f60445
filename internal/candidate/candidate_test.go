// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package candidate

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

var subnet = netip.MustParsePrefix("10.10.0.0/16")

func prefixes(s ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(s))
	for i, p := range s {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

func all(o Order) []netip.Addr {
	var addrs []netip.Addr
	for i := range o.Windows() {
		addrs = append(addrs, o.Window(i).Addrs()...)
	}
	return addrs
}

func TestEveryAssignableAddressComesOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bits := rapid.IntRange(20, 32).Draw(rt, "bits")
		base := netip.AddrFrom4([4]byte{10, 10, byte(rapid.IntRange(0, 255).Draw(rt, "c")), byte(rapid.IntRange(0, 255).Draw(rt, "d"))})
		r := netip.PrefixFrom(base, bits).Masked()
		id := eni.ID(rapid.StringMatching(`eni-[0-9a-f]{17}`).Draw(rt, "eni"))
		got := all(NewOrder(id, subnet, []netip.Prefix{r}))
		slices.SortFunc(got, netip.Addr.Compare)
		var want []netip.Addr
		for a := r.Addr(); r.Contains(a); a = a.Next() {
			if !eni.ReservedByVPC(subnet, a) {
				want = append(want, a)
			}
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("%s: got %d addresses, want %d", r, len(got), len(want))
		}
	})
}

func TestOrderIsPrivateAndStable(t *testing.T) {
	r := prefixes("10.10.1.0/24")
	a, again, b := all(NewOrder("eni-a", subnet, r)), all(NewOrder("eni-a", subnet, r)), all(NewOrder("eni-b", subnet, r))
	if !slices.Equal(a, again) {
		t.Error("one ENI has two orders")
	}
	if slices.Equal(a, b) {
		t.Error("two ENIs share an order")
	}
	// Adding a reservation keeps the relative order of what was there.
	more := all(NewOrder("eni-a", subnet, prefixes("10.10.1.0/24", "10.10.7.0/24")))
	kept := slices.DeleteFunc(more, func(x netip.Addr) bool { return !r[0].Contains(x) })
	if !slices.Equal(kept, a) {
		t.Error("adding a reservation moved the others' blocks")
	}
}

func TestWindowFitsOneDescribeFilter(t *testing.T) {
	o := NewOrder("eni-a", subnet, prefixes("10.10.4.0/22"))
	for i := range o.Windows() {
		if n := len(o.Window(i).Addrs()); n > 200 || n == 0 {
			t.Errorf("window %d has %d addresses", i, n)
		}
	}
}

func TestPickPrefersWhollyFreeBlocks(t *testing.T) {
	w := NewOrder("eni-a", subnet, prefixes("10.10.1.0/27")).Window(0)
	touched := w.Addrs()[3] // in the first block of the order
	got := w.Pick(16, func(a netip.Addr) bool { return a == touched })
	for _, a := range got {
		if netip.PrefixFrom(a, BlockBits).Contains(touched) {
			t.Errorf("picked %s from the block of %s, which is in use, though a free block is there", a, touched)
		}
	}
	if rest := w.Pick(100, func(a netip.Addr) bool { return a == touched }); len(rest) != 31 || slices.Contains(rest, touched) {
		t.Errorf("picked %d addresses of 31", len(rest))
	}
	if n := len(w.Pick(-1, func(netip.Addr) bool { return false })); n != 0 {
		t.Errorf("picked %d addresses for a negative need", n)
	}
}

func TestNoReservationNoWindow(t *testing.T) {
	o := NewOrder("eni-a", subnet, prefixes("fd00::/80"))
	if o.Windows() != 0 || len(o.Window(0).Pick(3, func(netip.Addr) bool { return false })) != 0 {
		t.Error("an empty order yields addresses")
	}
}
