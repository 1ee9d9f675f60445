// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

func parse(texts ...string) (as []netip.Addr) {
	for _, s := range texts {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

// veth makes a link that has its peer in the same namespace, with a MAC as an ENI's.
func veth(name string, cidrs ...string) func() error {
	return func() error {
		la := netlink.NewLinkAttrs()
		la.Name, la.HardwareAddr = name, []byte{0x0a, 0, 0, 0, 0, 1}
		l := &netlink.Veth{LinkAttrs: la, PeerName: name + "-peer"}
		if err := netlink.LinkAdd(l); err != nil {
			return err
		}
		return addAddrs(l, cidrs)
	}
}

// TestInterfaceThatIsNoChildIsNone: a MAC that is an ENI's makes no ipvlan child of it.
func TestInterfaceThatIsNoChildIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod")
	makeNetns(t, path, veth("net1", "10.10.1.80/24", "2001:db8::80/64"), veth("net2", "10.10.1.81/32"), loopback("10.9.9.9/32"))
	got, err := ReadInterface(path, "net1")
	if err != nil {
		t.Fatal(err)
	}
	want := Interface{Kind: "veth", Addrs: parse("10.10.1.80", "2001:db8::80"), All: parse("10.10.1.80", "10.10.1.81", "2001:db8::80")}
	sorted := cmpopts.SortSlices(netip.Addr.Less)
	if diff := cmp.Diff(want, got, sorted, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("interface (-want +got):\n%s", diff)
	}
	if got, err = ReadInterface(path, "net9"); err == nil {
		t.Errorf("read %+v of a link that is not there", got)
	}
}

func TestCarriersAreFoundWhereverTheyAre(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	makeNetns(t, one, veth("net1", "10.10.1.80/24", "10.10.1.81/24"))
	makeNetns(t, two, veth("x", "10.10.1.80/32"))
	got, err := Carriers(parse("10.10.1.80", "10.10.1.81", "10.10.1.82"), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	want := map[netip.Addr][]attachment.Netns{
		netip.MustParseAddr("10.10.1.80"): {identified(t, one), identified(t, two)},
		netip.MustParseAddr("10.10.1.81"): {identified(t, one)},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("carriers (-want +got):\n%s", diff)
	}
}
