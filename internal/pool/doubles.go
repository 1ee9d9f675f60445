// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// A damaged record costs more than itself. The ledger that lost a release goes on saying that the dead attachment holds
// the address, and may say the same of the living one that got it afterwards; the ledger that lost the second ADD says
// it of the dead one alone. When the dead one is reaped or has cooled, its address would be given out again, so before
// anything is concluded from the holds, each address is left with one.

// place is where an address is.
type place struct {
	eni  eni.ID
	addr netip.Addr
}

// settleDoubles leaves each address with one hold: that of the namespace which carries it, made if there is none, else
// the likeliest. It is called while booting, before the ENIs are known, and records what it changes. The caller holds n.mu.
func (n *Node) settleDoubles(found []Found) {
	at := map[place][]*hold{}
	for _, h := range n.holds {
		for _, a := range h.addrs {
			at[place{h.eni, a}] = append(at[place{h.eni, a}], h)
		}
	}
	changed := map[attachment.Key]bool{}
	for where, hs := range at {
		owner, known := n.rightful(where, hs, found)
		for _, h := range hs {
			if h == owner {
				continue
			}
			n.log.Warn("the ledger lacks that an address was given back; the hold ends", "ip", where.addr, "eni", where.eni,
				"containerID", h.ContainerID, "ifName", h.IfName, "netns", h.Netns.Path)
			h.addrs = slices.DeleteFunc(slices.Clone(h.addrs), func(a netip.Addr) bool { return a == where.addr })
			changed[h.Key] = true
			if len(h.addrs) == 0 {
				delete(n.holds, h.Key)
			}
		}
		if !known {
			n.holds[owner.Key] = owner
			changed[owner.Key] = true
		}
	}
	var recs []Record
	for key := range changed {
		rec := Record{Key: holdKey(key)}
		if h := n.holds[key]; h != nil {
			rec = h.record()
		}
		recs = append(recs, rec)
	}
	if len(recs) == 0 {
		return
	}
	if err := n.ports.Ledger.Put(recs...); err != nil {
		n.log.Error("cannot record who holds what; it is concluded again at the next start", "error", err)
	}
}

// rightful is the hold that an address belongs to, and whether it is one of hs. A namespace that carries the address
// always wins, unless that of a hold cannot be seen, which may carry it as well.
func (n *Node) rightful(where place, hs []*hold, found []Found) (owner *hold, known bool) {
	var carrier attachment.Netns
	hidden := false
	for _, h := range hs {
		hidden = hidden || !h.visible || n.ports.Namespaces.Look(h.Netns) == Hidden
	}
	for _, f := range found {
		if !slices.Contains(f.Addrs, where.addr) {
			continue
		}
		if k := slices.IndexFunc(hs, func(h *hold) bool { return h.Netns.Same(f.Netns) }); k >= 0 {
			return hs[k], true
		}
		carrier = f.Netns
	}
	if carrier != (attachment.Netns{}) && !hidden {
		return n.foundHold(where.eni, where.addr, carrier), false
	}
	return slices.MaxFunc(hs, func(a, b *hold) int {
		return cmp.Or(
			compareBool(n.ports.Namespaces.Look(a.Netns) != Gone, n.ports.Namespaces.Look(b.Netns) != Gone),
			compareBool(a.state != ownership.Cooling, b.state != ownership.Cooling),
			cmp.Compare(a.uptime, b.uptime),
		)
	}), true
}

// compareBool puts false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
