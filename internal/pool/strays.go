// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// strays are addresses that left an ENI or came to it. A sibling of an address that left holds the ENI's own MAC for it, and would go
// on asking the old place for half a minute.
// https://www.kernel.org/doc/Documentation/networking/ip-sysctl.txt (base_reachable_time, gc_stale_time)

// forgetStrays deletes what the pods on an ENI know as neighbours of addresses that left it or came to it.
func (n *Node) forgetStrays() {
	strays := map[eni.ID][]netip.Addr{}
	n.mu.Lock()
	for id, p := range n.ifaces {
		if len(p.strays) > 0 {
			strays[id], p.strays = p.strays, nil
		}
	}
	moved := n.moved
	n.moved = false
	n.mu.Unlock()
	if len(strays) == 0 {
		return
	}
	var found []Found
	if moved { // siblings may be anybody's pods, of which no CNI call has told us
		var err error
		if found, err = n.ports.Namespaces.Scan(); err != nil {
			n.log.Warn("look into the network namespaces", "error", err)
		}
	}
	for id, addrs := range strays {
		for _, ns := range n.siblings(id, found) {
			if err := n.ports.Namespaces.Forget(ns.Path, addrs); err != nil {
				n.log.Warn("neighbour entries stay", "netns", ns.Path, "ips", addrs, "error", err)
			}
		}
	}
}

// siblings are the namespaces of those who have something on the ENI, and of those found that have a child of its link.
func (n *Node) siblings(id eni.ID, found []Found) []attachment.Netns {
	var all []attachment.Netns
	add := func(ns attachment.Netns) {
		if !slices.ContainsFunc(all, ns.Same) {
			all = append(all, ns)
		}
	}
	for _, h := range n.snapshot(func(h *hold) bool { return h.eni == id && h.state != ownership.Cooling && h.Netns.Path != "" }) {
		if n.ports.Namespaces.Look(h.Netns) == Alive {
			add(h.Netns)
		}
	}
	n.mu.Lock()
	if p := n.ifaces[id]; p != nil && p.link.Index != 0 {
		found = p.users(found)
	} else {
		found = nil
	}
	n.mu.Unlock()
	for _, f := range found {
		add(f.Netns)
	}
	return all
}
