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

// nextClaim finds an address that somebody named and that is not on the ENI yet, and who wants it: of several the one
// whose turn is first. The caller holds n.mu.
func (p *iface) nextClaim() (u unit, by *waiter) {
	for _, w := range p.waiters {
		if by != nil && !w.retry.Before(by.retry) {
			continue
		}
		for _, a := range w.exact {
			if p.unassigned(a) {
				u, by = single(a), w
				break
			}
		}
	}
	return u, by
}

// claim asks EC2 for one address that a waiter named, and moves it from another ENI where the waiter may and waited long
// enough. One at a time: each answer is about one address, so none is in doubt because of another.
func (p *iface) claim(ctx context.Context) {
	n := p.n
	before := p.shown(ctx)
	n.mu.Lock()
	u, w := p.nextClaim()
	if w == nil {
		n.mu.Unlock()
		return
	}
	p.units[u] = &entry{since: time.Now(), source: w.claim.source}
	err := p.applyAll([]unit{u}, ownership.Assign)
	p.doubt([]unit{u}, before)
	p.asking([]unit{u})
	move := w.claim.conflict == attachment.Reassign || w.claim.conflict == attachment.WaitThenReassign
	move = move && time.Since(w.since) >= w.claim.patience
	n.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("record the intent: %w", err)
	} else {
		err = p.assignUnits(ctx, []unit{u}, false)
	}
	if errors.Is(err, eni.ErrAddressInUse) {
		err = p.contest(ctx, u, w, move)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.answered([]unit{u})
	n.log.Info("address claimed", "eni", p.id, "ip", name(u), "containerID", w.hold.ContainerID, "outcome", outcome(err))
	p.fileClaim(u, w, err)
}

// errHeldElsewhere is a claim that is to be tried again, or given up, because another ENI has the address.
var errHeldElsewhere = errors.New("held by another ENI")

// contest is what becomes of an address that another ENI has.
func (p *iface) contest(ctx context.Context, u unit, w *waiter, move bool) error {
	owners, err := p.n.ports.EC2.Owners(ctx, p.subnet.ID, []netip.Addr{u.Addr()})
	if err != nil {
		return err
	}
	owner, owned := owners[u.Addr()]
	switch {
	case owner == p.id:
		return nil // ours already: a read will show it
	case !owned:
		return fmt.Errorf("%w: reads do not show which", errHeldElsewhere)
	case !move:
		return fmt.Errorf("%w: %s", errHeldElsewhere, owner)
	}
	if err := p.mayTake(ctx, u, owner, w); err != nil {
		return err
	}
	p.n.log.Warn("address is moved here from another ENI", "ip", name(u), "from", owner, "to", p.id, "containerID", w.hold.ContainerID,
		"pod", w.hold.Pod.Namespace+"/"+w.hold.Pod.Name)
	if u.Addr().Is4() {
		return p.n.ports.EC2.Assign(ctx, p.id, []netip.Addr{u.Addr()}, true)
	}
	// IPv6 has no reassignment: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignIpv6Addresses.html
	if err := p.n.ports.EC2.UnassignIPv6(ctx, owner, []netip.Addr{u.Addr()}); err != nil && !errors.Is(err, eni.ErrNotAssigned) {
		return err
	}
	return p.n.ports.EC2.AssignIPv6(ctx, p.id, []netip.Addr{u.Addr()})
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

// fileClaim applies the outcome of a claim. The caller holds n.mu.
func (p *iface) fileClaim(u unit, w *waiter, err error) {
	event, why := ownership.Refused, ""
	switch {
	case err == nil:
		p.result(nil)
		return // assigning until a read shows it
	case errors.Is(err, eni.ErrThrottled):
		event = ownership.NotDone
	case errors.Is(err, eni.ErrOutcomeUnknown):
		event = ownership.ReplyLost
	case errors.Is(err, errHeldElsewhere):
		// Another ENI has it: nothing of ours is in doubt.
		event = ownership.NotDone
		if errors.Is(err, errNotOurs) || w.claim.conflict == attachment.Never {
			why = fmt.Sprintf("address %s is %v; %s", name(u), err, w.claim.freely(w.hold.sticky))
		}
	case errors.Is(err, eni.ErrSlotsFull):
		event = ownership.NotDone
		if v6 := u.Addr().Is6(); len(p.idle(v6)) == 0 && p.count(ownership.Unassigning, ownership.Unknown, ownership.Cooling) == 0 {
			why = fmt.Sprintf("ENI slots full: EC2 allows %s no more addresses (a %s has %d per ENI), so it cannot have %s; use a larger instance type, or fewer pods per worker",
				p, p.n.instance.Type, p.slots(v6), name(u))
		}
	}
	if lerr := p.applyAll([]unit{u}, event); lerr != nil {
		p.n.log.Error("cannot record an outcome", "error", lerr)
	}
	w.why = fmt.Sprintf("%s: %v", name(u), err)
	switch {
	case why != "" && slices.Contains(p.waiters, w): // else it has its answer
		p.leave(w)
		w.done <- &Refusal{Exhausted, why}
	case errors.Is(err, errHeldElsewhere):
		w.retry = time.Now().Add(claimInterval) // others go on
	default:
		w.retry = time.Now()
		p.result(err)
	}
}

// blocked refuses waiters whose named address is a pod's of this very worker. The caller holds n.mu.
func (p *iface) blocked() {
	p.waiters = slices.DeleteFunc(p.waiters, func(w *waiter) bool {
		for _, a := range w.exact {
			e := p.units[single(a)]
			if e == nil || e.key == w.hold.Key {
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
