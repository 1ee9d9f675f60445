// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/candidate"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// worker is what only an ENI's own goroutine touches. All that an ENI asks EC2 to change goes through it, one call
// after the other.
type worker struct {
	order    candidate.Order
	orderOf  []netip.Prefix
	window   int // where in the order
	reads    map[int]windowRead
	attempt  int       // failures in a row
	resume   time.Time // no EC2 call that failed is repeated before
	full     time.Time // when an exhausted ENI tries to grow again
	fulls    int       // exhaustions in a row
	polled   time.Time // last look at the instance metadata
	surplus  time.Time // since when there is more stock than wanted
	regain   time.Time // when lost addresses are asked for again
	regained int       // how often they were
}

// windowRead is who holds what in a window, as of a moment.
type windowRead struct {
	at     time.Time
	owners map[netip.Addr]eni.ID
}

// step is what a worker does next.
type step int

const (
	idle step = iota
	confirm
	grow
	shrink
	regain
)

func (p *iface) run(ctx context.Context) {
	for ctx.Err() == nil {
		p.n.mu.Lock()
		next, wait := p.plan(time.Now())
		p.n.mu.Unlock()
		switch next {
		case confirm:
			p.confirm(ctx)
		case grow:
			p.grow(ctx)
		case shrink:
			p.shrink(ctx)
		case regain:
			p.regain(ctx)
		default:
			t := time.NewTimer(wait)
			select {
			case <-p.wake:
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
		}
	}
}

// plan decides the next step, or how long to wait for one. The caller holds n.mu.
func (p *iface) plan(now time.Time) (step, time.Duration) {
	const forever = time.Hour
	wait := forever
	due := func(at time.Time) bool {
		if !now.Before(at) {
			return true
		}
		wait = min(wait, at.Sub(now))
		return false
	}
	if p.gone {
		return idle, forever
	}
	if len(p.waiters) > 0 && p.slotsLeft() == 0 {
		p.slotsFull(now)
	}
	if p.need() > 0 && due(p.growAt()) {
		return grow, 0
	}
	if len(p.resend()) > 0 && due(p.w.resume) {
		return shrink, 0
	}
	if p.count(ownership.Lost) > 0 && due(later(p.w.regain, p.w.resume)) {
		return regain, 0
	}
	if at, pending := p.nextConfirm(); pending && due(at) {
		return confirm, 0
	}
	if p.surplus() == 0 {
		p.w.surplus = time.Time{}
	} else {
		if p.w.surplus.IsZero() {
			p.w.surplus = now
		}
		// A pool that breathes would pay for each breath with two calls: stock is surplus when it was so for a while.
		if due(later(p.w.surplus.Add(p.n.cfg.Cooldown), p.w.resume)) {
			return shrink, 0
		}
	}
	return idle, wait
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// need is how many more addresses the ENI should ask EC2 for.
func (p *iface) need() int {
	if ok, _ := p.managed(); !ok || !p.active {
		return 0
	}
	stock := p.count(ownership.Free, ownership.Assigning)
	total := stock + p.count(ownership.Held, ownership.Cooling, ownership.Guest)
	want := max(p.n.cfg.WarmIPTarget+len(p.waiters)-stock, p.n.cfg.MinimumIPTarget-total)
	return min(want, p.slotsLeft())
}

// growAt is when to try to grow: not while backing off, and after an exhaustion not soon unless somebody waits.
func (p *iface) growAt() time.Time {
	full := p.w.full
	if len(p.waiters) > 0 {
		full = time.Time{}
		if p.failure != nil && p.failure.final {
			full = p.failure.at.Add(fullPause)
		}
	}
	return later(p.w.resume, full)
}

// pendingUnknown counts the unknown addresses that will probably turn out to be ours.
func (p *iface) pendingUnknown() int {
	c := 0
	for _, a := range p.addrs {
		if a.state == ownership.Unknown && !a.named {
			c++
		}
	}
	return c
}

// slotsFull notes that every slot of the ENI is taken while somebody waits, and refuses those who wait in vain.
func (p *iface) slotsFull(now time.Time) {
	p.failure = &failure{at: now, reason: Exhausted, final: true, text: fmt.Sprintf(
		"ENI slots full: %s holds %d secondary addresses, all that a %s allows, and none is free; use more ENIs (several that match eni are filled in turn), a larger instance type, or fewer pods per worker",
		p, p.n.limits.SecondarySlots(), p.n.instance.Type)}
	p.refuse()
}

// surplus is how much stock should go back to EC2.
func (p *iface) surplus() int {
	if len(p.waiters) > 0 {
		return 0
	}
	free := p.count(ownership.Free)
	total := free + p.count(ownership.Held, ownership.Cooling, ownership.Assigning, ownership.Guest)
	return max(0, min(free-p.n.cfg.WarmIPTarget, total-p.n.cfg.MinimumIPTarget))
}

// resend lists the addresses whose unassign was answered by nothing and which a settled read still showed.
func (p *iface) resend() []netip.Addr {
	var addrs []netip.Addr
	for addr, a := range p.addrs {
		if a.state == ownership.Unassigning && !a.seen.Before(a.written.Add(settleTime)) {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// shrink gives addresses back to EC2: those whose unassign has to be said again, else the surplus.
func (p *iface) shrink(ctx context.Context) {
	n := p.n
	n.mu.Lock()
	addrs := p.resend()
	if len(addrs) == 0 {
		free := p.inState(ownership.Free)
		// The youngest stock goes: what has been here longest stays, so that blocks stay whole.
		slices.SortStableFunc(free, func(a, b netip.Addr) int { return p.addrs[b].since.Compare(p.addrs[a].since) })
		addrs = free[:min(p.surplus(), len(free))]
		if err := p.applyAll(addrs, ownership.Unassign); err != nil {
			n.log.Error("cannot record an unassign; it is said again after a restart", "error", err)
		}
	}
	p.stamp(addrs)
	p.w.surplus = time.Time{}
	n.mu.Unlock()
	if len(addrs) == 0 {
		return
	}
	err := n.ports.EC2.Unassign(ctx, p.id, addrs)
	n.mu.Lock()
	defer n.mu.Unlock()
	p.stamp(addrs)
	event := ownership.ReplyLost
	switch {
	case err == nil:
		event = ownership.Unassigned
	case errors.Is(err, eni.ErrThrottled):
		event = ownership.NotDone
	}
	if event == ownership.NotDone && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !p.addrs[a].seen.IsZero() && p.addrs[a].seen.After(p.addrs[a].since) }) {
		event = ownership.ReplyLost // it may have been done the first time: only a read can tell
	}
	if lerr := p.applyAll(addrs, event); lerr != nil {
		n.log.Error("cannot record an unassign", "error", lerr)
	}
	p.result(err)
	n.log.Info("addresses given back", "eni", p.id, "ips", addrs, "outcome", outcome(err))
	p.serve()
}

// regain assigns held addresses that were lost again, if nobody owns them.
func (p *iface) regain(ctx context.Context) {
	n := p.n
	n.mu.Lock()
	lost := p.inState(ownership.Lost)
	n.mu.Unlock()
	owners, err := n.ports.EC2.Owners(ctx, p.subnet.ID, lost)
	var free []netip.Addr
	for _, a := range lost {
		if _, owned := owners[a]; err == nil && !owned {
			free = append(free, a)
		}
	}
	if err == nil && len(free) > 0 {
		err = n.ports.EC2.Assign(ctx, p.id, free, false)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.result(err)
	// Whatever became of it, a read shows it, and makes the address held again.
	p.w.regain = time.Now().Add(settleTime << min(p.w.regained, 6))
	p.w.regained++
	n.log.Warn("lost addresses asked for again", "eni", p.id, "lost", lost, "unowned", free, "outcome", outcome(err))
}

// stamp notes that we wrote about the addresses just now.
func (p *iface) stamp(addrs []netip.Addr) {
	for _, addr := range addrs {
		if a := p.addrs[addr]; a != nil {
			a.written = time.Now()
		}
	}
}

// result keeps the back-off: a failure makes the next attempt wait a random time that may double, success ends it.
func (p *iface) result(err error) {
	switch {
	case err == nil:
		p.w.attempt, p.w.resume = 0, time.Time{}
	default:
		bound := min(backoffBase<<min(p.w.attempt, 7), backoffCap)
		p.w.attempt++
		p.w.resume = time.Now().Add(rand.N(bound))
	}
}

func outcome(err error) string {
	if err == nil {
		return "done"
	}
	return err.Error()
}
