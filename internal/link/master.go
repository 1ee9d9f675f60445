// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// ModeError says that a link carries children in another mode than l2: mode and flags belong to the master, and a
// further child would switch those of its siblings.
// https://github.com/torvalds/linux/blob/v6.1/drivers/net/ipvlan/ipvlan_main.c (ipvlan_link_new, ipvlan_set_port_mode)
type ModeError struct{ Master, Sibling, Mode string }

func (e *ModeError) Error() string {
	return fmt.Sprintf("link %s carries ipvlan child %s in mode %s, and a child in mode l2 would switch it; remove %s or use another ENI",
		e.Master, e.Sibling, e.Mode, e.Sibling)
}

// ByName finds a link of the caller's namespace that can be a master: one that stands on no other link.
func ByName(name string) (attachment.Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return attachment.Link{}, fmt.Errorf("find link %s: %w", name, err)
	}
	if !canBeENI(l) {
		return attachment.Link{}, fmt.Errorf("link %s is of kind %s and no ENI's own", name, l.Type())
	}
	return describe(l), nil
}

func describe(l netlink.Link) attachment.Link {
	a := l.Attrs()
	return attachment.Link{
		Name: a.Name, Index: a.Index, MTU: a.MTU, MAC: eni.ParseMAC(a.HardwareAddr.String()), Up: a.Flags&net.FlagUp != 0,
	}
}

// findMaster looks the link up by index and compares the MAC: names change hands, indices do not. An ENI that was detached
// and came back has the same MAC at another index.
func findMaster(want attachment.Link) (netlink.Link, error) {
	l, err := netlink.LinkByIndex(want.Index)
	if err != nil || describe(l).MAC != want.MAC {
		if again, found, listErr := masterByMAC(want.MAC); listErr != nil {
			return nil, fmt.Errorf("%w: %w", ErrMaster, listErr)
		} else if found {
			l, err = netlink.LinkByIndex(again.Index)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: find link %s (index %d): %w", ErrMaster, want.Name, want.Index, err)
	}
	got := describe(l)
	switch {
	case got.MAC != want.MAC:
		return nil, fmt.Errorf("%w: link %s (index %d) has MAC %s, not the ENI's %s", ErrMaster, got.Name, got.Index, got.MAC, want.MAC)
	case !got.Up:
		return nil, fmt.Errorf("%w: link %s (index %d) is down", ErrMaster, got.Name, got.Index)
	}
	return l, nil
}

// masterByMAC finds the one link of the caller's namespace that can be the ENI's.
func masterByMAC(mac eni.MAC) (l attachment.Link, found bool, err error) {
	hosts, err := Hosts()
	if err != nil {
		return l, false, err
	}
	for _, h := range hosts {
		switch {
		case h.MAC != mac:
		case found:
			return l, false, fmt.Errorf("links %s and %s both have the ENI's MAC %s", l.Name, h.Name, mac)
		default:
			l, found = h, true
		}
	}
	return l, found, nil
}

// checkSiblings refuses a master with a child in another mode among the links of the pod.
func checkSiblings(links []netlink.Link, master netlink.Link) error {
	m := describe(master)
	for _, l := range links {
		iv, ours := l.(*netlink.IPVlan)
		if ours && l.Attrs().ParentIndex == m.Index && describe(l).MAC == m.MAC && !isL2(iv) {
			return &ModeError{Master: m.Name, Sibling: l.Attrs().Name, Mode: modeOf(iv)}
		}
	}
	return nil
}

func isL2(l *netlink.IPVlan) bool {
	return l.Mode == netlink.IPVLAN_MODE_L2 && l.Flag == netlink.IPVLAN_FLAG_BRIDGE
}

func modeOf(l *netlink.IPVlan) string {
	names := map[netlink.IPVlanMode]string{
		netlink.IPVLAN_MODE_L2: "l2", netlink.IPVLAN_MODE_L3: "l3", netlink.IPVLAN_MODE_L3S: "l3s",
	}
	flags := map[netlink.IPVlanFlag]string{netlink.IPVLAN_FLAG_PRIVATE: " private", netlink.IPVLAN_FLAG_VEPA: " vepa"}
	return names[l.Mode] + flags[l.Flag]
}
