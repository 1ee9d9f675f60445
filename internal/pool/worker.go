// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// worker is what an ENI's own goroutine keeps to itself. All that an ENI asks EC2 to change goes through it, one call after the other;
// floating addresses alone do not wait for that: see [iface.lane].
type worker struct {
	attempt  int       // failures in a row
	resume   time.Time // no EC2 call that failed is repeated before
	polled   time.Time // last look at the instance metadata
	surplus  time.Time // since when there is more stock than wanted
	regain   time.Time // when lost addresses are asked for again
	regained int       // how often they were
	adopt    time.Time // orphans are not looked at before
	claimed  bool      // the last step for those who wait was a claim
	hurried  bool      // the next failure makes a short pause
}

// step is what a worker does next: a call, or nothing for a while.
type step struct {
	do   func(context.Context)
	wait time.Duration
}

func (p *iface) run(ctx context.Context) { p.loop(ctx, p.wake, p.plan) }

// loop takes one step after the other. What one goroutine of the ENI has done may be what another waits for.
func (p *iface) loop(ctx context.Context, wake <-chan struct{}, plan func(now time.Time) step) {
	for ctx.Err() == nil {
		p.n.mu.Lock()
		next := plan(time.Now())
		p.n.mu.Unlock()
		if next.do != nil {
			next.do(ctx)
			p.poke()
			continue
		}
		nap(ctx, next.wait, wake)
	}
}

// poke wakes the ENI's goroutines.
func (p *iface) poke() {
	for _, wake := range []chan struct{}{p.wake, p.lanes[0], p.lanes[1]} {
		poke(wake)
	}
}

// clock is the moment of a plan, and how long it is until the first thing that is not due yet.
type clock struct {
	now  time.Time
	wait time.Duration
}

func (c *clock) due(at time.Time) bool {
	if c.now.Before(at) {
		c.wait = min(c.wait, at.Sub(c.now))
		return false
	}
	return true
}

// plan decides the next step: first what somebody waits for, then what is in doubt, then what is too much. The caller
// holds n.mu.
func (p *iface) plan(now time.Time) step {
	const forever = time.Hour
	if p.gone {
		return step{wait: forever}
	}
	c := &clock{now, forever}
	for _, decide := range []func(*clock) func(context.Context){p.planWaiters, p.planDoubts, p.planSurplus} {
		if do := decide(c); do != nil {
			return step{do: do}
		}
	}
	return step{wait: c.wait}
}

// planWaiters decides what is done for those who wait, and for the stock that those who come next find.
func (p *iface) planWaiters(c *clock) func(context.Context) {
	p.blocked()
	if len(p.yielding()) > 0 && c.due(p.w.resume) {
		return p.giveBack(p.yielding)
	}
	if ripe, at := p.orphans(c.now); !at.IsZero() && c.due(at) && len(ripe) > 0 {
		return p.adopt
	}
	for _, k := range p.sortedClasses() {
		// An address in doubt has a slot, and leaves it when a read shows that it is not there.
		if free, coming := k.stock(); k.waiting() > free+coming && p.slotsLeft(k.V6) == 0 && p.pendingUnknown() == 0 {
			k.slotsFull(c.now)
		}
	}
	// Claims and growth take turns, so that neither waits for what stands in the other's way.
	first, second := p.planClaim, p.planGrowth
	if p.w.claimed {
		first, second = second, first
	}
	if do := first(c); do != nil {
		return do
	}
	return second(c)
}

func (p *iface) planClaim(c *clock) func(context.Context) {
	if w := p.nextClaim(wish.patient).by; w != nil && c.due(later(p.w.resume, w.retry)) {
		p.w.claimed = true
		return p.claim
	}
	return nil
}

func (p *iface) planGrowth(c *clock) func(context.Context) {
	all := p.sortedClasses()
	slices.SortStableFunc(all, func(a, b *class) int { return cmp.Compare(b.short(), a.short()) }) // who is waited for comes first
	for _, k := range all {
		if k.ask() > 0 && c.due(k.growAt()) {
			p.w.claimed = false
			return k.grow
		}
	}
	return nil
}

// planDoubts decides what is done about units of which it is not known whether the ENI has them.
func (p *iface) planDoubts(c *clock) func(context.Context) {
	if len(p.resend()) > 0 && c.due(p.w.resume) {
		return p.insist
	}
	if p.count(ownership.Lost) > 0 && c.due(later(p.w.regain, p.w.resume)) {
		return p.regain
	}
	if at, pending := p.nextConfirm(); pending && c.due(at) {
		return p.confirm
	}
	return nil
}

// planSurplus decides what goes back to EC2.
func (p *iface) planSurplus(c *clock) func(context.Context) {
	if len(p.leaving(true)) > 0 && c.due(p.w.resume) {
		return p.giveBackNamed
	}
	if len(p.leaving(false)) == 0 {
		p.w.surplus = time.Time{}
		return nil
	}
	if p.w.surplus.IsZero() {
		p.w.surplus = c.now
	}
	// A pool that breathes would pay for each breath with two calls: stock is surplus when it was so for a while.
	if c.due(later(p.w.surplus.Add(p.n.cfg.Cooldown), p.w.resume)) {
		return p.giveBack(func() []unit { return p.leaving(false) })
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask is how many more units the class should ask EC2 for: none that would take the slot of somebody who waits.
func (c *class) ask() int {
	if ok, _ := c.p.managed(); !ok {
		return 0
	}
	need := c.unitsFor(c.need())
	if need == 0 {
		return 0
	}
	return max(0, min(need, c.p.slotsLeft(c.V6)-c.p.short(c.V6)+c.short()))
}

// growAt is when to try to grow: not while backing off, after an exhaustion not soon unless somebody waits, and never for
// one pod of many that come at the same time.
func (c *class) growAt() time.Time {
	full := c.full
	if c.waiting() > 0 {
		full = time.Time{}
		if f := c.limit(); f != nil && f.final && !f.slots {
			full = f.at.Add(fullPause)
		}
	}
	return later(later(c.p.w.resume, c.after), later(full, c.gatherUntil()))
}

// gatherUntil is when a burst of pods has told what it needs, as far as that can be waited for: stock that is merely less
// than wanted is topped up once in a while, and those who wait for more than is coming are joined by the others of their
// burst. With nothing left and nobody waiting it is at once.
func (c *class) gatherUntil() time.Time {
	switch free, coming := c.stock(); {
	case c.waiting() > free+coming:
		return c.p.oldest(c).Add(gatherTime)
	case free+coming > 0:
		return c.grown.Add(topUpInterval)
	}
	return time.Time{}
}

// oldest is since when the first of those waits who want an address of the class.
func (p *iface) oldest(c *class) time.Time {
	for _, w := range p.waiters {
		if slices.Contains(w.classes, c) {
			return w.since
		}
	}
	return time.Time{}
}

// pendingUnknown counts the unknown addresses that will probably turn out to be ours.
func (p *iface) pendingUnknown() int {
	n := 0
	for _, e := range p.units {
		if e.state == ownership.Unknown && !e.named {
			n++
		}
	}
	return n
}

// resend lists the units whose unassign was not sent yet, or answered by nothing while a settled read still showed them.
func (p *iface) resend() []unit {
	var us []unit
	for u, e := range p.units {
		if e.state == ownership.Unassigning && !e.asking && (e.unsent || !e.seen.Before(e.written.Add(settleTime))) {
			us = append(us, u)
		}
	}
	slices.SortFunc(us, compareUnits)
	return us
}

// leaving lists the free units that are to go back to EC2: with named, those that a pod had asked for by name, at once;
// without, what is more than every class wants that it serves, the youngest first, so that blocks stay whole.
func (p *iface) leaving(named bool) []unit {
	free := p.free(func(_ unit, e *entry) bool { return (e.source == sourceNamed) == named })
	if named || len(free) == 0 {
		return free
	}
	spare := map[*class]int{}
	for _, c := range p.classes {
		spare[c] = c.surplus()
	}
	return slices.DeleteFunc(free, func(u unit) bool {
		e := p.units[u]
		for c, left := range spare {
			if c.worth(u, e) > left {
				return true
			}
		}
		for c := range spare {
			spare[c] -= c.worth(u, e)
		}
		return false
	})
}

// giveBack gives free units back to EC2: of those chosen, the ones that one call takes.
func (p *iface) giveBack(choose func() []unit) func(context.Context) {
	return func(ctx context.Context) {
		p.n.mu.Lock()
		us := alike(choose())
		if err := p.applyAll(us, ownership.Unassign); err != nil {
			p.n.log.Error("cannot record an unassign; it is said again after a restart", "error", err)
		}
		p.asking(us)
		p.w.surplus = time.Time{}
		p.n.mu.Unlock()
		p.sendUnassign(ctx, us, false)
	}
}

// insist says those unassigns that have to be said again, or for the first time.
func (p *iface) insist(ctx context.Context) {
	p.n.mu.Lock()
	us := alike(p.resend())
	again := slices.ContainsFunc(us, func(u unit) bool { return !p.units[u].unsent })
	for _, u := range us {
		p.units[u].unsent = false
	}
	p.asking(us)
	p.n.mu.Unlock()
	p.sendUnassign(ctx, us, again)
}

// sendUnassign asks EC2 to take the units back, and files the answer.
func (p *iface) sendUnassign(ctx context.Context, us []unit, again bool) {
	if len(us) == 0 {
		return
	}
	n := p.n
	err := p.unassignUnits(ctx, us)
	n.mu.Lock()
	p.answered(us)
	event := ownership.ReplyLost
	switch {
	case err == nil:
		event = ownership.Unassigned
	case errors.Is(err, eni.ErrThrottled) && !again: // the first time may have been done: only a read can tell
		event = ownership.NotDone
	}
	if lerr := p.applyAll(us, event); lerr != nil {
		n.log.Error("cannot record an unassign", "error", lerr)
	}
	n.log.Info("addresses given back", "eni", p.id, "ips", names(us), "outcome", outcome(err))
	if errors.Is(err, eni.ErrNotAssigned) { // not here, though it takes a read to tell which of several
		p.strays = append(p.strays, addrsOf(us)...)
		poke(n.tick)
		err = nil // nothing to wait for
	}
	p.result(err)
	p.serve()
	n.mu.Unlock()
}

// sendBack has free units go back to EC2 next. The caller holds n.mu.
func (p *iface) sendBack(us []unit) {
	if err := p.applyAll(us, ownership.Unassign); err != nil {
		p.n.log.Error("cannot record an unassign; it is said again after a restart", "error", err)
	}
	for _, u := range us {
		p.units[u].unsent = true
	}
	p.poke()
}

// alike are the units that go into one call with the first: of its family, and addresses or prefixes.
func alike(us []unit) []unit {
	if len(us) == 0 {
		return nil
	}
	first := us[0]
	return slices.DeleteFunc(slices.Clone(us), func(u unit) bool {
		return u.Addr().Is6() != first.Addr().Is6() || u.IsSingleIP() != first.IsSingleIP()
	})
}

func (p *iface) unassignUnits(ctx context.Context, us []unit) error {
	switch {
	case !us[0].IsSingleIP():
		return p.n.ports.EC2.UnassignPrefixes(ctx, p.id, us)
	case us[0].Addr().Is6():
		return p.n.ports.EC2.UnassignIPv6(ctx, p.id, addrsOf(us))
	}
	return p.n.ports.EC2.Unassign(ctx, p.id, addrsOf(us))
}

// assignUnits names single addresses of one family.
func (p *iface) assignUnits(ctx context.Context, us []unit, reassign bool) error {
	if us[0].Addr().Is6() {
		return p.n.ports.EC2.AssignIPv6(ctx, p.id, addrsOf(us))
	}
	return p.n.ports.EC2.Assign(ctx, p.id, addrsOf(us), reassign)
}

// regain assigns held addresses that were lost again, if nobody owns them.
func (p *iface) regain(ctx context.Context) {
	n := p.n
	n.mu.Lock()
	lost := slices.DeleteFunc(p.inState(ownership.Lost), func(u unit) bool { return p.units[u].delegated() })
	sticky := map[unit]hold{}
	for _, u := range lost {
		if h := n.holds[p.units[u].key]; h != nil && h.sticky {
			sticky[u] = *h
		}
	}
	n.mu.Unlock()
	lost = n.unwanted(lost, p)
	var err error
	var owners map[netip.Addr]eni.ID
	if len(lost) > 0 {
		owners, err = n.ports.EC2.Owners(ctx, p.subnet.ID, addrsOf(lost))
	}
	var free []unit
	if err == nil {
		nobodys := slices.DeleteFunc(slices.Clone(lost), func(u unit) bool {
			_, owned := owners[u.Addr()]
			h, isSticky := sticky[u]
			return owned || isSticky && n.replaced(ctx, h)
		})
		free = p.begin(nobodys)
	}
	for rest := free; len(rest) > 0; { // one call takes one family
		batch := alike(rest)
		err = errors.Join(err, p.assignUnits(ctx, batch, false))
		rest = slices.DeleteFunc(slices.Clone(rest), func(u unit) bool { return slices.Contains(batch, u) })
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.answered(free)
	p.result(err)
	p.noteOwners(owners)
	// Whatever became of it, a read shows it, and makes the address held again.
	p.w.regain = time.Now().Add(settleTime << min(p.w.regained, 6))
	p.w.regained++
	n.log.Warn("lost addresses asked for again", "eni", p.id, "lost", names(lost), "unowned", names(free), "outcome", outcome(err))
}

// noteOwners notes which lost addresses another ENI has. The caller holds n.mu.
func (p *iface) noteOwners(owners map[netip.Addr]eni.ID) {
	for addr, owner := range owners {
		e := p.units[single(addr)]
		if e == nil || e.state != ownership.Lost || owner == p.id {
			continue
		}
		if e.owner == "" {
			p.n.cfg.Count(Contested)
			p.tellContested(addr, e.key, owner)
			p.n.log.Warn("a pod's address was taken by another ENI; it is not taken back", "ip", addr, "eni", p.id, "owner", owner, "containerID", e.key.ContainerID)
		}
		e.owner = owner
	}
}

// begin notes that EC2 is about to be asked for those of the units that are still lost, and returns them.
func (p *iface) begin(lost []unit) []unit {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	us := slices.DeleteFunc(slices.Clone(lost), func(u unit) bool { return p.state(u) != ownership.Lost || p.units[u].asking })
	p.asking(us)
	return us
}

// asking notes that EC2 is about to be asked to change the units. Until the answer is there no read concludes anything: a
// request may be slower than reads are behind. The caller holds n.mu.
func (p *iface) asking(us []unit) {
	for _, u := range us {
		if e := p.units[u]; e != nil {
			e.written, e.asking = time.Now(), true
		}
	}
}

// answered notes that the answer of such a request is there. The caller holds n.mu.
func (p *iface) answered(us []unit) {
	for _, u := range us {
		if e := p.units[u]; e != nil {
			e.written, e.asking = time.Now(), false
		}
	}
}

func outcome(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}
