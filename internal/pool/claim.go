// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Patience with whoever has an address that somebody named.
const (
	// stickyPatience is how long a StatefulSet's pod waits for the worker that had its address before to give it back,
	// before it is moved. The DEL there is over when the pod is made anew, so what takes time is EC2's throttling. With
	// claimInterval, the move, and confirmByEC2After the whole stays below Config.MaxWait: one ADD does it.
	stickyPatience = 6 * time.Second
	// conflictPatience is the same for an address of another IPAM, whose old pod is being deleted.
	conflictPatience = 5 * time.Second
	// claimInterval is how often an address that another ENI has is asked for again meanwhile.
	claimInterval = time.Second
)

// claim says how addresses that were named may be got.
type claim struct {
	source   string
	guest    bool // another IPAM's address: register it
	conflict attachment.OnConflict
	patience time.Duration // before conflict is acted upon
}

// wish is an address that somebody named and that EC2 is asked for.
type wish struct {
	unit unit
	by   *waiter
}

// moves reports whether the address may be moved here from another ENI by now.
func (w wish) moves() bool {
	c := w.by.claim
	return (c.conflict == attachment.Reassign || c.conflict == attachment.WaitThenReassign) && time.Since(w.by.since) >= c.patience
}

// forced reports whether the very first request moves the address, whoever has it: a floating one, which belongs to the pod on
// which it appeared last.
func (w wish) forced() bool { return w.by.hold.claimed && w.by.claim.conflict == attachment.Reassign }

// nextClaim finds an address that somebody named and that EC2 is to be asked for: of several who wait the one whose turn is
// first. The caller holds n.mu.
func (p *iface) nextClaim() (first wish) {
	for _, w := range p.waiters {
		if first.by != nil && !w.retry.Before(first.by.retry) {
			continue
		}
		for _, a := range w.exact {
			if p.unassigned(a) || w.renew {
				first = wish{single(a), w}
				break
			}
		}
	}
	return first
}

// wishes lists what the next request asks for: the first wish, and whatever can go with it in one call. The caller holds n.mu.
func (p *iface) wishes() []wish {
	first := p.nextClaim()
	if first.by == nil || first.by.alone {
		return slices.DeleteFunc([]wish{first}, func(w wish) bool { return w.by == nil })
	}
	all, now := []wish{first}, time.Now()
	room := p.slotsLeft(first.unit.Addr().Is6())
	for _, w := range p.waiters {
		for _, a := range w.exact {
			next := wish{single(a), w}
			same := func(x wish) bool { return x.unit == next.unit }
			switch {
			case !p.unassigned(a) && !w.renew, slices.ContainsFunc(all, same):
			case a.Is6() != first.unit.Addr().Is6(), next.forced() != first.forced(), w.alone, now.Before(w.retry), len(all) >= room && !w.renew:
			default:
				all = append(all, next)
			}
		}
	}
	return all
}

// claim asks EC2 for addresses that waiters named, in one call unless that is refused, and moves those from another ENI whose
// waiter may and waited long enough.
func (p *iface) claim(ctx context.Context) {
	n := p.n
	before := p.shown(ctx)
	n.mu.Lock()
	ws := p.wishes()
	if len(ws) == 0 {
		n.mu.Unlock()
		return
	}
	us := make([]unit, len(ws))
	for i, w := range ws {
		us[i] = w.unit
	}
	err := p.intend(ws, before)
	p.asking(us)
	n.mu.Unlock()
	errs := map[unit]error{}
	if err != nil {
		for _, u := range us {
			errs[u] = fmt.Errorf("record the intent: %w; free space in the agent's state directory", err)
		}
	} else {
		p.request(ctx, ws, errs)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.answered(us)
	var failed error
	for _, w := range ws {
		err := errs[w.unit]
		n.log.Info("address claimed", "eni", p.id, "ip", name(w.unit), "containerID", w.by.hold.ContainerID, "outcome", outcome(err))
		p.fileClaim(w, err)
		if err != nil && !errors.Is(err, errHeldElsewhere) {
			failed = err
			w.by.alone = len(ws) > 1 && !errors.Is(err, eni.ErrThrottled) && !errors.Is(err, eni.ErrOutcomeUnknown)
		}
	}
	if failed != nil || slices.ContainsFunc(us, func(u unit) bool { return errs[u] == nil }) {
		p.result(failed)
	}
	p.serve()
}

// intend records what EC2 is about to be asked for. What is asked for anew stays what it is meanwhile. The caller holds n.mu.
func (p *iface) intend(ws []wish, before map[unit]bool) error {
	var fresh []unit
	for _, w := range ws {
		if w.by.renew {
			continue
		}
		p.units[w.unit] = &entry{since: time.Now(), source: w.by.claim.source}
		fresh = append(fresh, w.unit)
	}
	err := p.applyAll(fresh, ownership.Assign)
	p.doubt(fresh, before)
	return err
}

// request asks EC2 for the wishes, and says in errs what became of each of them.
func (p *iface) request(ctx context.Context, ws []wish, errs map[unit]error) {
	us := make([]unit, len(ws))
	for i, w := range ws {
		us[i] = w.unit
	}
	err := p.assignUnits(ctx, us, ws[0].forced())
	for _, u := range us {
		errs[u] = err
	}
	inUse, ok := errors.AsType[*eni.InUseError](err)
	if !ok {
		return
	}
	owners, err := p.n.ports.EC2.Owners(ctx, p.subnet.ID, addrsOf(us))
	var rest []unit
	for _, w := range ws {
		a := w.unit.Addr()
		owner, owned := owners[a]
		switch {
		case err != nil:
			errs[w.unit] = err
		case owner == p.id && w.by.renew && time.Since(w.by.since) < 2*claimInterval:
			errs[w.unit] = fmt.Errorf("%w: reads may be behind", errHeldElsewhere)
		case owner == p.id:
			errs[w.unit] = nil // ours already: a read will show it
		case owned:
			errs[w.unit] = p.contest(ctx, w, owner)
		case len(ws) == 1 || slices.Contains(inUse.Addrs, a):
			errs[w.unit] = fmt.Errorf("%w: reads do not show which", errHeldElsewhere)
		default:
			rest = append(rest, w.unit)
		}
	}
	if len(rest) == 0 {
		return
	}
	// The refused call may have been applied in part, so that after another refusal only a read can tell.
	err = p.assignUnits(ctx, rest, false)
	if err != nil {
		err = fmt.Errorf("%w: asked for again without what others have: %v", eni.ErrOutcomeUnknown, err) //nolint:errorlint // what it matches would be taken for the whole truth
	}
	for _, u := range rest {
		errs[u] = err
	}
}

// errHeldElsewhere is a claim that is to be tried again, or given up, because another ENI has the address.
var errHeldElsewhere = errors.New("held by another ENI")

// contest is what becomes of an address that another ENI has.
func (p *iface) contest(ctx context.Context, w wish, owner eni.ID) error {
	u, by := w.unit, w.by
	if !w.moves() {
		return fmt.Errorf("%w: %s", errHeldElsewhere, owner)
	}
	if err := p.mayTake(ctx, u, owner, by); err != nil {
		return err
	}
	p.n.log.Warn("address is moved here from another ENI", "ip", name(u), "from", owner, "to", p.id, "containerID", by.hold.ContainerID,
		"pod", by.hold.Pod.Namespace+"/"+by.hold.Pod.Name)
	if err := p.moveHere(ctx, u.Addr(), owner); err != nil {
		return err
	}
	p.n.tell(by.hold.Pod, AddressMoved, "%s was on %s and is taken to %s for this pod", name(u), owner, p.id)
	return nil
}

func (p *iface) moveHere(ctx context.Context, a netip.Addr, from eni.ID) error {
	if a.Is4() {
		return p.n.ports.EC2.Assign(ctx, p.id, []netip.Addr{a}, true)
	}
	// IPv6 has no reassignment: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignIpv6Addresses.html
	if err := p.n.ports.EC2.UnassignIPv6(ctx, from, []netip.Addr{a}); err != nil && !errors.Is(err, eni.ErrNotAssigned) {
		return err
	}
	return p.n.ports.EC2.AssignIPv6(ctx, p.id, []netip.Addr{a})
}

// errNotOurs is an owner from which an address is never taken.
var errNotOurs = errors.New("which is not an ENI for pods of this cluster's workers")

// mayTake lets an address be moved only from a secondary address of an ENI that is for pods and of the same cluster.
func (p *iface) mayTake(ctx context.Context, u unit, owner eni.ID, w *waiter) error {
	if w.claim.guest && w.claim.conflict == attachment.Reassign {
		return nil
	}
	p.n.mu.Lock()
	ours := p.eni.Tags
	p.n.mu.Unlock()
	ifs, err := p.n.ports.EC2.Interfaces(ctx, []eni.ID{owner})
	if err != nil {
		return err
	}
	for _, i := range ifs {
		if i.ID == owner && i.Primary != u.Addr() && i.Tags[eni.TagNoManage] == "true" && eni.SameCluster(ours, i.Tags) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s, %w", errHeldElsewhere, owner, errNotOurs)
}

// freely says what to do about an address that is not taken from its owner.
func (c claim) freely(sticky bool) string {
	switch {
	case sticky:
		return "it is never taken from there: free it, or give the StatefulSet other ranges"
	case c.guest:
		return "it is not taken from there: free it, or keep the IPAM plugin's range to itself"
	}
	return "an address that a pod asks for is never taken from another ENI: free it there, or ask for another"
}

// fileClaim applies the outcome of a wish. The caller holds n.mu.
func (p *iface) fileClaim(w wish, err error) {
	u, by := w.unit, w.by
	switch {
	case err == nil && by.renew:
		p.renewed(w)
		return
	case err == nil:
		p.promised(w)
		return // assigning until a read shows it
	}
	event, why := ownership.Refused, ""
	switch {
	case errors.Is(err, eni.ErrThrottled):
		event = ownership.NotDone
	case errors.Is(err, eni.ErrOutcomeUnknown):
		event = ownership.ReplyLost
	case errors.Is(err, errHeldElsewhere):
		// Another ENI has it: nothing of ours is in doubt.
		event = ownership.NotDone
		if errors.Is(err, errNotOurs) || by.claim.conflict == attachment.Never {
			why = fmt.Sprintf("address %s is %v; %s", name(u), err, by.claim.freely(by.hold.sticky))
		}
	case errors.Is(err, eni.ErrSlotsFull):
		event = ownership.NotDone
		if v6 := u.Addr().Is6(); len(p.idle(v6)) == 0 && p.count(ownership.Unassigning, ownership.Unknown, ownership.Cooling) == 0 {
			why = fmt.Sprintf("ENI slots full: EC2 allows %s no more addresses (a %s has %d per ENI), so it cannot have %s; use a larger instance type, or fewer pods per worker",
				p, p.n.instance.Type, p.slots(v6), name(u))
		}
	}
	if !by.renew {
		if lerr := p.applyAll([]unit{u}, event); lerr != nil {
			p.n.log.Error("cannot record an outcome", "error", lerr)
		}
	}
	by.why = fmt.Sprintf("%s: %v", name(u), err)
	switch {
	case why != "" && slices.Contains(p.waiters, by): // else it has its answer
		p.leave(by)
		reason := Exhausted
		if by.hold.claimed && errors.Is(err, errHeldElsewhere) {
			reason = Taken
		}
		by.done <- &Refusal{reason, why}
	case errors.Is(err, errHeldElsewhere):
		by.retry = time.Now().Add(claimInterval) // others go on
	default:
		by.retry = time.Now()
	}
}

// blocked refuses waiters whose named address is a pod's of this very worker. The caller holds n.mu.
func (p *iface) blocked() {
	p.waiters = slices.DeleteFunc(p.waiters, func(w *waiter) bool {
		for _, a := range w.exact {
			e := p.units[single(a)]
			if e == nil || e.key == w.hold.Key || w.renew {
				continue
			}
			switch e.state {
			case ownership.Foreign:
				if !w.claim.guest && !w.hold.sticky {
					w.done <- &Refusal{Exhausted, fmt.Sprintf("address %s is on %s, but not the agent's: somebody else assigned it; unassign it there, or ask for another", a, p.id)}
					return true
				}
			case ownership.Held, ownership.Guest, ownership.Lost:
				w.done <- &Refusal{Exhausted, fmt.Sprintf("address %s is held by attachment %s on this worker", a, e.key)}
				return true
			case ownership.Cooling:
				if h := p.n.holds[e.key]; h == nil || time.Until(h.deadline) > p.n.cfg.MaxWait {
					w.done <- &Refusal{Exhausted, fmt.Sprintf("address %s was given back by attachment %s and cools; try again", a, e.key)}
					return true
				}
			}
		}
		return false
	})
}
