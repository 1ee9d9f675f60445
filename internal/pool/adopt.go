// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// An ENI may have addresses of a pool's range that nobody accounts for: a ledger was lost, an answer of EC2 came to
// nobody, or whoever made the ENI gave it its first stock. They are stock when nobody turned up for them in twice the
// cooldown, or in orphanAge. Until then they count as stock that is coming, so that no more is asked of EC2 than waiters need.

// fosters reports whether a foreign unit would be stock of the class: an address of a reservation that feeds it, or a
// delegated prefix of one.
func (c *class) fosters(u unit, e *entry) bool {
	if e.state != ownership.Foreign || e.barred {
		return false
	}
	if c.Source == attachment.SourcePrefix {
		return !u.IsSingleIP() && c.within(u.Masked())
	}
	return u.IsSingleIP() && c.feeds(u.Addr())
}

// prospects counts the addresses that the class can expect to adopt.
func (c *class) prospects() int {
	n := 0
	for u, e := range c.p.units {
		if !c.fosters(u, e) {
			continue
		}
		if u.IsSingleIP() {
			n++
		} else {
			n += capacity(u)
		}
	}
	return n
}

// orphans lists the foreign units that some class would take, and when the first of them is due. The caller holds n.mu.
func (p *iface) orphans(now time.Time) (ripe []unit, due time.Time) {
	age := max(2*p.n.cfg.Cooldown, orphanAge)
	for u, e := range p.units {
		for _, c := range p.classes {
			if !c.fosters(u, e) {
				continue
			}
			at := e.since.Add(age)
			if !now.Before(at) {
				ripe = append(ripe, u)
			}
			if due.IsZero() || at.Before(due) {
				due = at
			}
			break
		}
	}
	return ripe, later(due, p.w.adopt)
}

// adopt takes in the ENI's orphans that are due, if the metadata still shows them and nobody has them.
func (p *iface) adopt(ctx context.Context) {
	n := p.n
	p.w.adopt = time.Now().Add(n.cfg.ReconcileInterval)
	shown := p.shown(ctx)
	if shown == nil {
		return
	}
	found, err := n.ports.Namespaces.Scan()
	if err != nil {
		n.log.Warn("look into the network namespaces", "error", err)
		return
	}
	onHost, err := n.ports.Host.Addresses()
	if err != nil {
		n.log.Warn("read the host's addresses", "error", err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recognise(found)
	ripe, _ := p.orphans(time.Now())
	var barred []unit
	for _, u := range ripe {
		if _, ok := onHost[u.Addr()]; ok && u.IsSingleIP() {
			barred = append(barred, u)
			p.units[u].barred = true
		} else if shown[u] {
			p.take(u)
		}
	}
	if len(barred) > 0 {
		n.log.Warn("addresses of a pool's range are on links of the host, where no pod can use them", "ips", names(barred), "eni", p.id)
	}
	n.recognise(found) // addresses of prefixes that were just taken in
	p.serve()
}

// take makes a foreign unit stock. The caller holds n.mu, and recognises who has addresses of a prefix before any is
// handed out.
func (p *iface) take(u unit) {
	p.units[u].source = attachment.SourceReservation
	if !u.IsSingleIP() {
		p.units[u].source = attachment.SourcePrefix
	}
	if err := p.applyAll([]unit{u}, ownership.Adopt); err != nil {
		p.n.log.Error("cannot record an adoption", "error", err)
	}
	p.n.log.Info("address adopted", "ip", name(u), "eni", p.id)
}

// unbar lets units be adopted that a host link carried and carries no more. The caller holds n.mu.
func (p *iface) unbar(onHost map[netip.Addr]string) {
	for u, e := range p.units {
		if _, there := onHost[u.Addr()]; e.barred && !there {
			e.barred = false
			p.poke()
		}
	}
}
