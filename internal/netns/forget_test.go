// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

func TestForgetDeletesTheNeighboursAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	entry := func(ip string, state int) netlink.Neigh {
		return netlink.Neigh{State: state, IP: net.ParseIP(ip), HardwareAddr: mac}
	}
	makeNetns(t, path, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net1"}, PeerName: "peer"}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		l, err := netlink.LinkByName("net1")
		if err != nil {
			return err
		}
		for _, n := range []netlink.Neigh{
			entry("10.10.1.70", netlink.NUD_REACHABLE), entry("10.10.1.71", netlink.NUD_REACHABLE),
			entry("10.10.1.72", netlink.NUD_PERMANENT), entry("fd00::70", netlink.NUD_REACHABLE),
		} {
			n.LinkIndex = l.Attrs().Index
			if err := netlink.NeighSet(&n); err != nil {
				return fmt.Errorf("add %s: %w", n.IP, err)
			}
		}
		return netlink.LinkSetUp(l)
	})
	asked := []netip.Addr{netip.MustParseAddr("10.10.1.70"), netip.MustParseAddr("10.10.1.72"), netip.MustParseAddr("fd00::70"), netip.MustParseAddr("10.10.1.99")}
	if err := Forget(path, asked); err != nil {
		t.Fatal(err)
	}
	var left []string
	if err := inside(path, func(attachment.Netns, int) error {
		all, err := netlink.NeighList(0, unix.AF_UNSPEC)
		for _, n := range all {
			if n.HardwareAddr.String() == mac.String() {
				left = append(left, n.IP.String())
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(left)
	if diff := cmp.Diff([]string{"10.10.1.71", "10.10.1.72"}, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}
