// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"fmt"
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
	unit  unit
	by    *waiter
	fresh bool // the ENI was not believed to have it, nor to be getting it, when EC2 was asked
}

func wished(ws []wish) []unit {
	us := make([]unit, len(ws))
	for i, w := range ws {
		us[i] = w.unit
	}
	return us
}

// moves reports whether the address may be moved here from another ENI by now.
func (w wish) moves() bool {
	c := w.by.claim
	return (c.conflict == attachment.Reassign || c.conflict == attachment.WaitThenReassign) && time.Since(w.by.since) >= c.patience
}

// forced reports whether the very first request moves the address, whoever has it: a floating one, which belongs to the pod on
// which it appeared last.
func (w wish) forced() bool { return w.by.hold.claimed && w.by.claim.conflict == attachment.Reassign }

// patient reports whether the wish may wait for what else the ENI asks EC2 for.
func (w wish) patient() bool { return !w.forced() }

// nextClaim finds an address that somebody named and that EC2 is to be asked for: of several who wait, of those that match, the one
// whose turn is first. The caller holds n.mu.
func (p *iface) nextClaim(match func(wish) bool) (first wish) {
	for _, w := range p.waiters {
		if first.by != nil && !w.retry.Before(first.by.retry) {
			continue
		}
		for _, a := range w.exact {
			if next := (wish{unit: single(a), by: w}); p.open(next) && match(next) {
				first = next
				break
			}
		}
	}
	return first
}

// open reports whether EC2 is to be asked for the wish, and is not being asked about its address. The caller holds n.mu.
func (p *iface) open(w wish) bool {
	e := p.units[w.unit]
	return (p.unassigned(w.unit.Addr()) || w.by.renew) && (e == nil || !e.asking)
}

// wishes lists what the next request asks for: of those that match the first wish, and whatever can go with it in one call. The caller
// holds n.mu.
func (p *iface) wishes(match func(wish) bool) []wish {
	first := p.nextClaim(match)
	if first.by == nil || first.by.alone {
		return slices.DeleteFunc([]wish{first}, func(w wish) bool { return w.by == nil })
	}
	all, now := []wish{first}, time.Now()
	room := p.slotsLeft(first.unit.Addr().Is6())
	for _, w := range p.waiters {
		for _, a := range w.exact {
			next := wish{unit: single(a), by: w}
			same := func(x wish) bool { return x.unit == next.unit }
			switch {
			case !p.open(next), !match(next), slices.ContainsFunc(all, same):
			case a.Is6() != first.unit.Addr().Is6(), w.alone, now.Before(w.retry), len(all) >= room && !w.renew:
			default:
				all = append(all, next)
			}
		}
	}
	return all
}

// claim asks EC2 for addresses that waiters named and that may wait for the metadata.
func (p *iface) claim(ctx context.Context) { p.claimThose(ctx, wish.patient, p.shown(ctx)) }

// claimThose asks EC2 for the next of those addresses that waiters named and that match, in one call unless that is refused, and moves
// those from another ENI whose waiter may and waited long enough.
func (p *iface) claimThose(ctx context.Context, match func(wish) bool, before map[unit]bool) {
	n := p.n
	n.mu.Lock()
	ws := p.wishes(match)
	if len(ws) == 0 {
		n.mu.Unlock()
		return
	}
	us := wished(ws)
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

// intend records what EC2 is about to be asked for. What the ENI has already and is asked for anew stays what it is meanwhile. The
// caller holds n.mu.
func (p *iface) intend(ws []wish, before map[unit]bool) error {
	var fresh []unit
	for i, w := range ws {
		if !p.unassigned(w.unit.Addr()) {
			continue
		}
		ws[i].fresh = true
		p.units[w.unit] = &entry{since: time.Now(), source: w.by.claim.source}
		fresh = append(fresh, w.unit)
	}
	err := p.applyAll(fresh, ownership.Assign)
	p.doubt(fresh, before)
	return err
}

// request asks EC2 for the wishes, and says in errs what became of each of them.
func (p *iface) request(ctx context.Context, ws []wish, errs map[unit]error) {
	us := wished(ws)
	err := p.assignUnits(ctx, us, ws[0].forced())
	for _, u := range us {
		errs[u] = err
	}
	if errors.Is(err, eni.ErrSlotsFull) {
		p.settled(ctx, ws, errs)
		return
	}
	inUse, ok := errors.AsType[*eni.InUseError](err)
	if !ok {
		return
	}
	owners, err := p.n.ports.EC2.Owners(ctx, p.subnet.ID, addrsOf(us))
	var rest []unit
	moves := map[eni.ID][]wish{}
	for _, w := range ws {
		a := w.unit.Addr()
		owner, owned := owners[a]
		switch {
		case err != nil:
			errs[w.unit] = err
		case owner == p.id:
			errs[w.unit] = w.here() // a read will show it
		case owned:
			if errs[w.unit] = p.mayTake(ctx, w, owner); errs[w.unit] == nil {
				moves[owner] = append(moves[owner], w)
			}
		case len(ws) == 1 || slices.Contains(inUse.Addrs, a):
			errs[w.unit] = fmt.Errorf("%w: reads do not show which", errHeldElsewhere)
		default:
			rest = append(rest, w.unit)
		}
	}
	for owner, ws := range moves {
		p.moveHere(ctx, ws, owner, errs)
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

// here is what a read says of the wish that shows its address on the ENI already.
func (w wish) here() error {
	if w.by.renew && time.Since(w.by.since) < 2*claimInterval {
		return fmt.Errorf("%w: reads may be behind", errHeldElsewhere)
	}
	return nil
}

// settled sees to those wishes of a request that EC2 refused for want of slots, whose address may be on the ENI already: whether it
// counts that twice is not documented.
func (p *iface) settled(ctx context.Context, ws []wish, errs map[unit]error) {
	ws = slices.DeleteFunc(slices.Clone(ws), func(w wish) bool { return !w.by.renew })
	if len(ws) == 0 {
		return
	}
	us := wished(ws)
	owners, err := p.n.ports.EC2.Owners(ctx, p.subnet.ID, addrsOf(us))
	for _, w := range ws {
		switch {
		case err != nil:
			errs[w.unit] = err
		case owners[w.unit.Addr()] == p.id:
			errs[w.unit] = w.here()
		}
	}
}

// errHeldElsewhere is a claim that is to be tried again, or given up, because another ENI has the address.
var errHeldElsewhere = errors.New("held by another ENI")

// moveHere moves the addresses that another ENI has, and says in errs what became of each of them.
func (p *iface) moveHere(ctx context.Context, ws []wish, owner eni.ID, errs map[unit]error) {
	us := wished(ws)
	err := p.moveUnits(ctx, us, owner)
	if len(ws) > 1 && (errors.Is(err, eni.ErrNotAssigned) || errors.Is(err, eni.ErrAddressInUse)) { // one of them moved meanwhile
		for _, w := range ws {
			p.moveHere(ctx, []wish{w}, owner, errs)
		}
		return
	}
	for _, w := range ws {
		h := w.by.hold
		p.n.log.Warn("address is moved here from another ENI", "ip", name(w.unit), "from", owner, "to", p.id, "containerID", h.ContainerID,
			"pod", h.Pod.Namespace+"/"+h.Pod.Name, "outcome", outcome(err))
		if errs[w.unit] = err; err == nil {
			p.n.tell(h.Pod, AddressMoved, "%s was on %s and is taken to %s for this pod", name(w.unit), owner, p.id)
		}
	}
}

// moveUnits is all or nothing for IPv4. IPv6 has no reassignment:
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignIpv6Addresses.html
func (p *iface) moveUnits(ctx context.Context, us []unit, from eni.ID) error {
	addrs := addrsOf(us)
	if addrs[0].Is4() {
		return p.n.ports.EC2.Assign(ctx, p.id, addrs, true)
	}
	answered, err := p.n.withdraw(us, from)
	if err != nil {
		return err
	}
	err = p.n.ports.EC2.UnassignIPv6(ctx, from, addrs)
	answered()
	if err != nil && !(errors.Is(err, eni.ErrNotAssigned) && len(addrs) == 1) {
		return err
	}
	return p.n.ports.EC2.AssignIPv6(ctx, p.id, addrs)
}

// withdraw notes that EC2 is about to be asked to take the addresses from an ENI, if that is another one of this worker, so that its
// goroutines leave them alone until EC2 has answered.
func (n *Node) withdraw(us []unit, from eni.ID) (answered func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.ifaces[from]
	if p == nil {
		return func() {}, nil
	}
	for _, u := range us {
		if e := p.units[u]; e != nil && e.asking {
			return nil, fmt.Errorf("%w: %s, for which EC2 is being asked about it", errHeldElsewhere, from)
		}
	}
	p.asking(us)
	return func() {
		n.mu.Lock()
		p.answered(us)
		n.mu.Unlock()
		p.poke()
	}, nil
}

// errNotOurs is an owner from which an address is never taken.
var errNotOurs = errors.New("which is not an ENI for pods of this cluster's workers")

// mayTake says why an address stays with the ENI that has it, nil when it is to be moved here: only from a secondary address of an ENI that
// is for pods and of the same cluster, unless it floats.
func (p *iface) mayTake(ctx context.Context, w wish, owner eni.ID) error {
	c := w.by.claim
	if !w.moves() {
		return fmt.Errorf("%w: %s", errHeldElsewhere, owner)
	}
	if c.guest && c.conflict == attachment.Reassign {
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
		if i.ID == owner && i.Primary != w.unit.Addr() && i.Tags[eni.TagNoManage] == "true" && eni.SameCluster(ours, i.Tags) {
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
	if w.fresh {
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
