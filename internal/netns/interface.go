// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Interface is one link of a namespace, and what it carries.
type Interface struct {
	// Kind is IFLA_INFO_KIND: "ipvlan", "veth" …, "device" for what has none.
	Kind string
	// Child is the zero value unless the link is an ipvlan child of a link of this process's namespace.
	Child Child
	// Addrs are the link's addresses, All those of every link but lo; global ones alone.
	Addrs, All []netip.Addr
}

// ReadInterface reads the link of that name in the namespace at path. What it says of the parent cannot be forged from within:
// the kernel names the parent's namespace by a number that it knows, and this process's number there is read in between two
// readings of the link, so that it cannot have been another namespace's meanwhile.
func ReadInterface(path, name string) (found Interface, err error) {
	err = inside(path, func(_ attachment.Netns, home int) error {
		first, firstErr := netlinksafe.LinkByName(name)
		if firstErr != nil {
			return fmt.Errorf("find link %s: %w", name, firstErr)
		}
		id, idErr := netlink.GetNetNsIdByFd(home)
		if idErr != nil {
			return fmt.Errorf("number of own network namespace: %w", idErr)
		}
		l, againErr := netlinksafe.LinkByName(name)
		if againErr != nil {
			return fmt.Errorf("find link %s: %w", name, againErr)
		}
		if l.Attrs().Name != name || l.Attrs().Index != first.Attrs().Index || l.Attrs().NetNsID != first.Attrs().NetNsID {
			return fmt.Errorf("link %s was replaced while it was looked at", name)
		}
		found.Kind = l.Type()
		found.Child, _ = child(l, id)
		found.Addrs, found.All, err = addressesOf(l)
		return err
	})
	return found, err
}

// addressesOf a link, and of all links, of the namespace that the calling thread is in.
func addressesOf(l netlink.Link) (of, all []netip.Addr, err error) {
	list, err := netlinksafe.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range list {
		addr, ok := global(a)
		if !ok {
			continue
		}
		all = append(all, addr)
		if a.LinkIndex == l.Attrs().Index {
			of = append(of, addr)
		}
	}
	return of, all, nil
}

// Carriers lists the namespaces in dirs that carry each of the addresses. What is on an ipvlan child of another namespace's link than
// this process's is left out: the host's ENIs do not reach it. So is a namespace that goes away meanwhile; for one that cannot be
// read there is an error beside what was found.
func Carriers(addrs []netip.Addr, dirs []string) (map[netip.Addr][]attachment.Netns, error) {
	found := map[netip.Addr][]attachment.Netns{}
	err := each(dirs, func(id attachment.Netns, home int) error {
		list, err := netlinksafe.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range list {
			addr, ok := global(a)
			if !ok || !slices.Contains(addrs, addr) {
				continue
			}
			away, err := isAway(a.LinkIndex, home)
			if err == nil && !away && !slices.Contains(found[addr], id) {
				found[addr] = append(found[addr], id)
			}
			if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
				return err
			}
		}
		return nil
	})
	return found, err
}

// isAway reports whether a link of the namespace that the calling thread is in is an ipvlan child of another namespace's link
// than home's.
func isAway(index, home int) (bool, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return false, err
	}
	if _, ok := l.(*netlink.IPVlan); !ok {
		return false, nil
	}
	id, err := netlink.GetNetNsIdByFd(home) // has a number by now if the link's parent is there
	if err != nil {
		return false, fmt.Errorf("number of own network namespace: %w", err)
	}
	_, ours := child(l, id)
	return !ours && l.Attrs().NetNsID >= 0, nil
}
