// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// nextConfirm is when the ENI should be looked at because some of its addresses are in doubt.
func (p *iface) nextConfirm() (at time.Time, pending bool) {
	interval := slowConfirmInterval
	for _, c := range p.classes {
		pending = pending || p.n.described.Before(c.birthRead())
	}
	for _, a := range p.units {
		switch a.state {
		case ownership.Assigning, ownership.Unknown, ownership.Unassigning, ownership.Lost:
			pending = true
		default:
			pending = pending || !a.missing.IsZero() || !a.passed.IsZero() || a.state == ownership.Cooling && p.n.claimedBy(a) != nil
			continue
		}
		if a.state == ownership.Assigning && time.Since(a.written) < confirmByEC2After {
			interval = confirmInterval
		}
	}
	return p.w.polled.Add(interval), pending
}

// doubtful is the earliest moment from which a read from EC2 would decide about an address in doubt, and which no read
// has covered yet. The caller holds n.mu.
func (p *iface) doubtful() (at time.Time, ok bool) {
	for _, c := range p.classes {
		if due := c.birthRead(); p.n.described.Before(due) && (!ok || due.Before(at)) {
			at, ok = due, true
		}
	}
	for _, a := range p.units {
		if a.delegated() {
			continue
		}
		settled := a.written.Add(settleTime)
		due := settled
		switch a.state {
		case ownership.Assigning:
			if early := a.written.Add(confirmByEC2After); p.n.described.Before(early) {
				due = early
			} else if !p.n.described.Before(settled) {
				due = p.n.described.Add(settleTime) // EC2 said yes, and goes on showing nothing
			}
		case ownership.Unknown, ownership.Unassigning:
		case ownership.Held, ownership.Guest, ownership.Cooling:
			if a.missing.IsZero() {
				continue
			}
			due = later(settled, a.missing.Add(lossInterval))
		case ownership.Lost:
			due = later(settled, p.n.described.Add(settleTime<<min(p.w.regained, 6)))
		default:
			continue
		}
		if p.n.described.Before(due) && (!ok || due.Before(at)) {
			at, ok = due, true
		}
	}
	return at, ok
}

// confirm looks whether addresses in doubt are on the ENI: in the instance metadata, which costs nothing and is behind
// the data path, and in EC2 when the metadata has not shown them in time.
func (p *iface) confirm(ctx context.Context) {
	n := p.n
	p.w.polled = time.Now()
	n.mu.Lock()
	waits := p.count(ownership.Assigning, ownership.Unknown) > 0 || p.departing()
	n.mu.Unlock()
	if waits {
		shown := p.shown(ctx)
		n.mu.Lock()
		p.weigh(shown)
		p.departed(shown)
		n.mu.Unlock()
	}
	n.mu.Lock()
	at, ok := p.doubtful()
	n.mu.Unlock()
	if ok && !time.Now().Before(at) {
		n.describe(ctx, at)
	}
}

// seen files addresses in doubt that a read showed. The caller holds n.mu.
func (p *iface) seen(us []unit) {
	if len(us) == 0 {
		return
	}
	for _, u := range us {
		if p.state(u) == ownership.Assigning {
			p.n.cfg.Refill(time.Since(p.units[u].written))
			break // those of one call are seen together
		}
	}
	if err := p.applyAll(us, ownership.Seen); err != nil {
		p.n.log.Error("cannot record addresses that were seen", "error", err)
	}
	for a, ns := range p.carried { // a namespace that was found to carry it at the start wins
		of := slices.IndexFunc(us, func(u unit) bool { return u.Contains(a.Addr()) })
		if of < 0 {
			continue
		}
		if (a == us[of] || p.units[a] == nil) && p.n.ports.Namespaces.Look(ns) == Alive {
			p.n.adoptHeld(p, a.Addr(), ns)
		}
		delete(p.carried, a)
	}
	p.serve()
}

// describe reads the worker's ENIs from EC2 and files what it shows, unless a read that began at or after notBefore is
// there already. One call serves all ENIs.
func (n *Node) describe(ctx context.Context, notBefore time.Time) {
	select {
	case n.describing <- struct{}{}:
		defer func() { <-n.describing }()
	case <-ctx.Done():
		return
	}
	n.mu.Lock()
	skip := !n.described.Before(notBefore) || time.Now().Before(n.pause)
	n.mu.Unlock()
	if skip {
		return
	}
	began := time.Now()
	ifs, err := n.ports.EC2.InterfacesOf(ctx, n.instance.ID)
	if err == nil {
		err = n.meet(ctx, ifs)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.pause = time.Now().Add(rand.N(min(backoffBase<<min(n.failures, 7), backoffCap)) + confirmInterval)
		n.failures++
		if ctx.Err() == nil {
			n.log.Warn("read the worker's ENIs", "error", err)
		}
		return
	}
	n.failures, n.described = 0, began
	n.file(ifs, began)
}

// meet makes the acquaintance of ENIs that were attached while running: their subnets and reservations are read.
func (n *Node) meet(ctx context.Context, ifs []eni.Interface) error {
	n.mu.Lock()
	var fresh []eni.Interface
	for _, i := range ifs {
		if n.ifaces[i.ID] == nil {
			fresh = append(fresh, i)
		}
	}
	n.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	var ids []eni.SubnetID
	for _, i := range fresh {
		if !slices.Contains(ids, i.SubnetID) {
			ids = append(ids, i.SubnetID)
		}
	}
	subnets, err := n.ports.EC2.Subnets(ctx, ids)
	if err != nil {
		return fmt.Errorf("read the subnets of the worker's ENIs: %w", err)
	}
	var met []*iface
	readers := map[eni.SubnetID]*iface{} // one read of a subnet's reservations serves all of its ENIs
	for _, i := range fresh {
		k := slices.IndexFunc(subnets, func(s eni.Subnet) bool { return s.ID == i.SubnetID })
		if k < 0 {
			return fmt.Errorf("subnet %s of %s: %w", i.SubnetID, i.ID, eni.ErrNotFound)
		}
		p := &iface{
			n: n, id: i.ID, mac: i.MAC, subnet: subnets[k], eni: i, units: map[unit]*entry{}, late: map[unit]bool{}, recent: map[unit]time.Time{}, classes: map[string]*class{}, carried: map[unit]attachment.Netns{},
			wake: make(chan struct{}, 1), lanes: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
		}
		if reader := readers[i.SubnetID]; reader != nil {
			p.reservations, p.reservationsAt = reader.reservations, reader.reservationsAt
		} else if !i.IsPrimary() && i.Tags[eni.TagNoManage] == "true" {
			if err := n.readReservations(ctx, p, 0); err != nil {
				return err
			}
			readers[i.SubnetID] = p
		}
		met = append(met, p)
	}
	n.mu.Lock()
	for _, p := range met {
		n.install(p)
	}
	n.mu.Unlock()
	n.readLinks()
	return nil
}

// file applies a read of all own ENIs that began at a moment. The caller holds n.mu.
func (n *Node) file(ifs []eni.Interface, began time.Time) {
	for _, p := range n.ifaces {
		k := slices.IndexFunc(ifs, func(i eni.Interface) bool { return i.ID == p.id })
		if k < 0 {
			n.vanish(p)
			continue
		}
		p.gone = false
		p.eni = ifs[k]
		p.fileRead(unitsOf(ifs[k]), began)
		if ok, why := p.managed(); !ok {
			p.dismiss(Refusal{NotReady, fmt.Sprintf("%s %s", p, why)})
		}
		p.activateByRole()
		p.poke()
	}
}

// vanish marks an ENI that EC2 no longer shows on the worker. What is held on it is lost with it.
func (n *Node) vanish(p *iface) {
	if !p.gone {
		p.gone = true
		n.log.Warn("ENI is no longer attached", "eni", p.id)
	}
	p.fileRead(nil, time.Now())
	p.dismiss(Refusal{NotReady, fmt.Sprintf("%s is no longer attached to the worker", p)})
}

// birthTime is how long after a lost reply to a request by count an address that is new on the ENI is taken for its
// fruit: nobody else has a reason to assign to an ENI that is ours.
const birthTime = 2 * settleTime

// birthRead is from when on a read shows what a request by count brought whose reply was lost; zero without one.
func (c *class) birthRead() time.Time {
	if c.births.IsZero() {
		return time.Time{}
	}
	return c.births.Add(-birthTime / 2)
}

// unitsOf lists what an ENI has besides its primary address.
func unitsOf(i eni.Interface) []unit {
	return append(append(singles(i.Secondary), singles(i.IPv6)...), i.Prefixes...)
}

// fileRead applies what EC2 showed on the ENI. A unit that is absent is believed to be gone only if the read began when
// our last write must have settled, and what is held only when a read before did not show it either.
func (p *iface) fileRead(present []unit, began time.Time) {
	var seen, unseen []unit
	for _, u := range present {
		if e := p.units[u]; e != nil {
			e.seen, e.missing = began, time.Time{}
			if e.asking {
				continue
			}
		}
		switch p.state(u) {
		case ownership.None:
			if time.Since(p.recent[u]) < settleTime {
				continue // given back a moment ago, and the read is behind
			}
			p.meetUnit(u, began)
		case ownership.Assigning, ownership.Unknown:
			if p.units[u].proves(began) {
				seen = append(seen, u)
			}
		case ownership.Lost:
			seen = append(seen, u)
		}
	}
	for u, e := range p.units {
		if e.delegated() || e.asking || slices.Contains(present, u) {
			continue
		}
		used := p.inUse(u, e)
		if e.missing.IsZero() && (used || e.state == ownership.Cooling) {
			e.missing = began // and a read that may decide follows
		}
		if began.Before(e.written.Add(e.settles())) || used && began.Sub(e.missing) < lossInterval {
			continue
		}
		unseen = append(unseen, u)
	}
	for _, u := range unseen { // with a prefix go the addresses in it
		for inner, e := range p.units {
			if e.via == u {
				unseen = append(unseen, inner)
			}
		}
	}
	p.seen(seen)
	if err := p.applyAll(unseen, ownership.Unseen); err != nil {
		p.n.log.Error("cannot record addresses that are gone", "error", err)
	}
	p.matchHolds()
}

// settles is how long after our last write a read that does not show the unit proves nothing. After EC2 has answered an
// assign with yes that is longer: who gave such an address up would ask for another, and find it on the ENI later.
func (e *entry) settles() time.Duration {
	if e.state == ownership.Assigning {
		return promiseTime
	}
	return settleTime
}

// inUse reports whether a pod would lose something if the unit were gone.
func (p *iface) inUse(u unit, e *entry) bool {
	switch e.state {
	case ownership.Held, ownership.Guest, ownership.Lost:
		return true
	}
	return !u.IsSingleIP() && p.used()[u] > 0
}

// meetUnit files a unit that is new on the ENI: the fruit of a request by count whose reply was lost, or a stranger.
func (p *iface) meetUnit(u unit, began time.Time) {
	p.apply(u, ownership.Seen)
	e := p.units[u]
	e.seen = began
	if !u.IsSingleIP() && p.gather(u) > 0 {
		p.take(u)
		return
	}
	for _, c := range p.classes {
		if time.Now().Before(c.births) && c.V6 == u.Addr().Is6() && (c.Source == attachment.SourcePrefix) != u.IsSingleIP() {
			e.source = c.Source
			if err := p.applyAll([]unit{u}, ownership.Adopt); err != nil {
				p.n.log.Error("cannot record an adoption", "error", err)
			}
			p.n.log.Info("what EC2 chose was found on the ENI", "eni", p.id, "ip", name(u))
			return
		}
	}
	p.n.log.Info("foreign address on the ENI", "eni", p.id, "ip", name(u))
}

// gather makes the addresses of a prefix its own whose holds were loaded without it: they prove that the prefix is ours,
// though its record is damaged.
func (p *iface) gather(u unit) int {
	n := 0
	for a, e := range p.units {
		if a.IsSingleIP() && u.Contains(a.Addr()) && e.key != (attachment.Key{}) {
			e.via, e.source = u, attachment.SourcePrefix
			n++
		}
	}
	return n
}

// matchHolds brings the holds into line with their addresses after a read: lost, found again, or cooled on an ENI that
// no longer has them. The caller holds n.mu.
func (p *iface) matchHolds() {
	for key, h := range p.n.holds {
		if h.eni != p.id {
			continue
		}
		state := p.stateOf(h)
		if state == h.state {
			continue
		}
		rec := Record{Key: holdKey(key)}
		switch state {
		case ownership.Lost:
			p.n.log.Error("held address is lost: EC2 no longer has it on the ENI", "ips", h.addrs, "eni", p.id, "containerID", key.ContainerID,
				"pod", h.Pod.Namespace+"/"+h.Pod.Name)
			h.state = state
			rec = h.record()
		case ownership.Held:
			p.n.log.Info("lost address is back", "ips", h.addrs, "eni", p.id, "containerID", key.ContainerID)
			p.w.regained = 0
			h.state = state
			rec = h.record()
		case ownership.None:
			delete(p.n.holds, key)
		default:
			continue
		}
		if err := p.n.ports.Ledger.Put(rec); err != nil {
			p.n.log.Error("cannot record a hold", "error", err)
		}
	}
}

// stateOf is the state of a hold by its addresses: lost when one is. Those that a cooling hold no longer has are dropped.
func (p *iface) stateOf(h *hold) ownership.State {
	if p.has(h, ownership.Lost) {
		return ownership.Lost
	}
	if h.state == ownership.Cooling {
		left := slices.DeleteFunc(slices.Clone(h.addrs), func(a netip.Addr) bool { return p.state(single(a)) == ownership.None })
		if len(left) == 0 {
			return ownership.None
		}
		h.addrs = left
	}
	return p.state(single(h.addrs[0]))
}
