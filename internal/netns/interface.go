// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
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
		first, err := netlinksafe.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find link %s: %w", name, err)
		}
		id, err := netlink.GetNetNsIdByFd(home)
		if err != nil {
			return fmt.Errorf("number of own network namespace: %w", err)
		}
		l, err := netlinksafe.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find link %s: %w", name, err)
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

// Carriers lists the namespaces in dirs that carry each of the addresses. A namespace that goes away meanwhile is left out; for
// one that cannot be read there is an error beside what was found.
func Carriers(addrs []netip.Addr, dirs []string) (map[netip.Addr][]attachment.Netns, error) {
	found := map[netip.Addr][]attachment.Netns{}
	err := each(dirs, func(id attachment.Netns, _ int) error {
		carried, err := addresses()
		for _, a := range addrs {
			if slices.Contains(carried, a) {
				found[a] = append(found[a], id)
			}
		}
		return err
	})
	return found, err
}
