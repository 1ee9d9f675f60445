// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// An ENI's slots are shared by the kinds of stock that it keeps and by addresses that pods ask for by name. Who comes
// first would have them all: the defaults want as many as the ENI of a small worker has. So stock that nobody uses makes
// room for those who wait for another kind.

// short is how many more slots of a family those who wait need.
func (p *iface) short(v6 bool) int {
	if len(p.waiters) == 0 {
		return 0
	}
	slots := 0
	for _, c := range p.classes {
		if c.V6 == v6 {
			slots += c.short()
		}
	}
	for _, w := range p.waiters {
		for _, a := range w.exact {
			if a.Is6() == v6 && p.unassigned(a) {
				slots++
			}
		}
	}
	return slots
}

// short is how many more slots those who wait for an address of the class need, if slots are all that they need.
func (c *class) short() int {
	free, coming := c.stock()
	missing := c.waiting() - free - coming
	if missing <= 0 || c.limited() {
		return 0
	}
	return c.unitsFor(missing)
}

// limited reports whether the class met a limit a moment ago that no slot would lift.
func (c *class) limited() bool {
	return c.failure != nil && c.failure.final && !c.failure.slots && c.failure.fresh()
}

// unitsFor is how many units of the class have so many addresses.
func (c *class) unitsFor(addrs int) int {
	switch {
	case addrs <= 0:
		return 0
	case c.Source != attachment.SourcePrefix:
		return addrs
	case c.V6:
		return 1 // a /80 is plenty
	}
	const perPrefix = 1 << 4 // a /28
	return (addrs + perPrefix - 1) / perPrefix
}

// unassigned reports whether an address that somebody named is still to be assigned.
func (p *iface) unassigned(a netip.Addr) bool {
	_, delegated := p.prefixAround(a)
	return !delegated && p.state(single(a)) == ownership.None
}

// yielding lists stock that makes room: none while there is a slot left, then as much as those who wait need, and a part
// of the rest, so that not every pod of theirs has to wait for it. The caller holds n.mu.
func (p *iface) yielding() []unit {
	for _, v6 := range []bool{false, true} {
		short := p.short(v6)
		if short == 0 || p.slotsLeft(v6) > 0 {
			continue
		}
		if idle := p.idle(v6); len(idle) > 0 {
			extra := max(0, min(p.n.cfg.WarmIPTarget, (len(idle)-short)/2))
			return idle[:min(len(idle), short+extra)]
		}
	}
	return nil
}

// idle lists the free units of a family that are of no use to anybody who waits, the youngest first.
func (p *iface) idle(v6 bool) []unit {
	return p.free(func(u unit, e *entry) bool {
		if u.Addr().Is6() != v6 {
			return false
		}
		for _, c := range p.classes {
			if c.waiting() > 0 && c.worth(u, e) > 0 {
				return false
			}
		}
		return true
	})
}

// free lists the free units that match and that nobody asked for by name, or has an address of, the youngest first.
func (p *iface) free(match func(unit, *entry) bool) []unit {
	var us []unit
	used := p.used()
	for u, e := range p.units {
		if e.state == ownership.Free && !e.asking && !(u.IsSingleIP() && p.wanted(u.Addr())) && used[u] == 0 && match(u, e) {
			us = append(us, u)
		}
	}
	slices.SortFunc(us, func(a, b unit) int {
		if c := p.units[b].since.Compare(p.units[a].since); c != 0 {
			return c
		}
		return compareUnits(a, b)
	})
	return us
}

// worth is how many addresses of the class a free unit is.
func (c *class) worth(u unit, e *entry) int {
	switch {
	case !u.IsSingleIP() && c.Source == attachment.SourcePrefix && u.Addr().Is6() == c.V6:
		return capacity(u)
	case c.serves(u, e):
		return 1
	}
	return 0
}

// retireAfter is how long nobody has to ask for a kind of stock before it is given up in favour of another one of its
// family: ranges, exclude and tags of a network change now and then, and what they were before is asked for no more.
const retireAfter = 24 * time.Hour

// retire gives up the kinds of stock that others have replaced, and that nobody has an address of.
func (n *Node) retire() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.ifaces {
		for key, c := range p.classes {
			if time.Since(c.asked) < retireAfter || c.waiting() > 0 || c.used() > 0 || !c.replaced() {
				continue
			}
			if err := n.ports.Ledger.Put(Record{Key: activeKey(p.id, c.kind)}); err != nil {
				n.log.Error("cannot record that a kind of stock is given up", "error", err)
				continue
			}
			delete(p.classes, key)
			n.log.Info("kind of stock given up: nobody asks for it any more", "eni", p.id, "class", c.String())
			p.poke()
		}
	}
}

// replaced reports whether pods ask for another kind of the same family.
func (c *class) replaced() bool {
	for _, o := range c.p.classes {
		if o != c && o.V6 == c.V6 && o.asked.After(c.asked) && time.Since(o.asked) < retireAfter {
			return true
		}
	}
	return false
}
