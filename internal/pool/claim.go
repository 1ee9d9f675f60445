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
	// before it is moved: shorter than the plugins' timeout, so that the move still serves this ADD.
	stickyPatience = 8 * time.Second
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
var errNotOurs = errors.New("not a worker's ENI for pods")

// mayTake lets an address be moved only from a secondary address of an ENI that is a worker's for pods.
func (p *iface) mayTake(ctx context.Context, u unit, owner eni.ID, w *waiter) error {
	if w.claim.guest && w.claim.conflict == attachment.Reassign {
		return nil
	}
	ifs, err := p.n.ports.EC2.Interfaces(ctx, []eni.ID{owner})
	if err != nil {
		return err
	}
	for _, i := range ifs {
		if i.ID == owner && i.Primary != u.Addr() && i.Tags[eni.TagNoManage] == "true" {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", owner, errNotOurs)
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
	case errors.Is(err, errHeldElsewhere), errors.Is(err, errNotOurs):
		// Another ENI has it: nothing of ours is in doubt.
		event = ownership.NotDone
		if errors.Is(err, errNotOurs) || w.claim.conflict == attachment.Never {
			why = fmt.Sprintf("address %s is %v; an address that a pod asks for is never taken from another ENI: free it there, or ask for another", name(u), err)
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
	case errors.Is(err, errHeldElsewhere), errors.Is(err, errNotOurs):
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

// ordinalAddress is the address of a StatefulSet's pod: its ordinal's in the first range.
func (n *Node) ordinalAddress(ctx context.Context, pod attachment.Pod, q attachment.Query) (netip.Addr, error) {
	if n.ports.Pods == nil {
		return netip.Addr{}, &Refusal{Invalid, "sticky: the agent has no access to the Kubernetes API, which says whose pod it is; give its service account get on pods"}
	}
	if pod.Name == "" {
		return netip.Addr{}, &Refusal{Invalid, "sticky: the runtime did not say which pod this is (K8S_POD_NAME in CNI_ARGS)"}
	}
	set, ordinal, err := n.ports.Pods.Ordinal(ctx, pod)
	if err != nil {
		return netip.Addr{}, &Refusal{NotReady, fmt.Sprintf("sticky: ask the Kubernetes API about pod %s/%s: %v", pod.Namespace, pod.Name, err)}
	}
	if set != q.Sticky.StatefulSet {
		return netip.Addr{}, &Refusal{Invalid, fmt.Sprintf("sticky.statefulSet: pod %s/%s belongs to StatefulSet %q, not %q", pod.Namespace, pod.Name, set, q.Sticky.StatefulSet)}
	}
	if len(q.Ranges) == 0 {
		return netip.Addr{}, &Refusal{Invalid, "sticky: needs ranges, the first of which has one address per ordinal"}
	}
	a := q.Ranges[0].From
	for i := 0; i < ordinal && q.Ranges[0].Contains(a); i++ {
		a = a.Next()
	}
	if !q.Ranges[0].Contains(a) {
		return netip.Addr{}, &Refusal{Exhausted, fmt.Sprintf("sticky: range %s has no address for ordinal %d; enlarge it", q.Ranges[0], ordinal)}
	}
	return a, nil
}
