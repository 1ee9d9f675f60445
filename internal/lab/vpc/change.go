// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"fmt"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// change is one call that changes the account: all of it happens at one moment, or nothing does. What it puts is seen by
// its own later reads.
type change struct {
	*Cloud
	now  time.Time
	keep bool // commit though the call returns an error (MixedBatchPartial)

	undo   []func() // of the address spaces, which change at once
	commit []func() // of the stores
	drafts map[string]*ENI
}

// change runs one call under the lock.
func (c *Cloud) change(now time.Time, call func(*change) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.last) {
		now = c.last
	}
	c.last = now
	tx := &change{Cloud: c, now: now, drafts: map[string]*ENI{}}
	err := call(tx)
	if err != nil && !tx.keep {
		for _, f := range slices.Backward(tx.undo) {
			f()
		}
		return err
	}
	for _, f := range tx.commit {
		f()
	}
	for id, e := range tx.drafts {
		if e == nil {
			c.enis.remove(now, id)
		} else {
			c.enis.put(now, id, *e)
		}
	}
	if len(tx.commit)+len(tx.drafts) > 0 {
		c.announce(now)
	}
	return err
}

// announce tells who waits, remembers when, and forgets what is too old to be seen by anybody.
func (c *Cloud) announce(now time.Time) {
	close(c.changed)
	c.changed = make(chan struct{})
	horizon := now.Add(-c.cfg.Propagation.longest())
	c.moments = slices.DeleteFunc(append(c.moments, now), func(t time.Time) bool { return t.Before(horizon) })
	if c.sweeps++; c.sweeps%256 == 0 {
		c.enis.prune(horizon)
		c.templates.prune(horizon)
		c.groups.prune(horizon)
		c.instances.prune(horizon)
		c.reservations.prune(horizon)
		c.subnets.prune(horizon)
		c.vpcs.prune(horizon)
	}
}

// putENI makes e the ENI's newest version and moves its addresses in the subnet's space. An address must have been
// released by its old holder before.
func (tx *change) putENI(e ENI) error {
	old, _ := tx.newestENI(e.ID)
	s := tx.space(e.SubnetID)
	if err := retain(tx, s.addrs, e.ID, old.Addresses(), e.Addresses()); err != nil {
		return err
	}
	if err := retain(tx, s.prefixes, e.ID, old.AllPrefixes(), e.AllPrefixes()); err != nil {
		return err
	}
	tx.drafts[e.ID] = &e
	return nil
}

// removeENI ends an ENI and frees its addresses.
func (tx *change) removeENI(e ENI) error {
	if err := tx.putENI(ENI{ID: e.ID, SubnetID: e.SubnetID}); err != nil {
		return err
	}
	tx.drafts[e.ID] = nil
	return nil
}

// retain makes the space say that id holds exactly want of what it held.
func retain[K comparable](tx *change, held map[K]string, id string, had, want []K) error {
	for _, k := range had {
		if !slices.Contains(want, k) {
			delete(held, k)
			tx.undo = append(tx.undo, func() { held[k] = id })
		}
	}
	for _, k := range want {
		switch owner, taken := held[k]; {
		case taken && owner == id:
		case taken:
			return &APIError{
				Code: "InternalError", Message: fmt.Sprintf("%v given to %s while %s holds it", k, id, owner), Status: 500,
			}
		default:
			held[k] = id
			tx.undo = append(tx.undo, func() { delete(held, k) })
		}
	}
	return nil
}

// newestENI reads an ENI as the call has it so far, whether or not callers can see it yet.
func (tx *change) newestENI(id string) (ENI, bool) {
	if e, ok := tx.drafts[id]; ok {
		if e == nil {
			return ENI{}, false
		}
		return e.clone(), true
	}
	e, ok := tx.enis.newest(id)
	return e.clone(), ok
}

// each goes through all ENIs as the call has them so far, in no order. They must not be changed.
func (tx *change) each() iter.Seq[ENI] {
	return func(yield func(ENI) bool) {
		for id := range tx.enis.objects {
			if _, drafted := tx.drafts[id]; drafted {
				continue
			}
			if e, ok := tx.enis.newest(id); ok && !yield(e) {
				return
			}
		}
		for _, e := range tx.drafts {
			if e != nil && !yield(*e) {
				return
			}
		}
	}
}

// attachedTo returns the ENIs of an instance as the call has them so far, in the order of cards and indexes.
func (tx *change) attachedTo(instanceID string) []ENI {
	var out []ENI
	for e := range tx.each() {
		if e.Attachment != nil && e.Attachment.InstanceID == instanceID {
			out = append(out, e.clone())
		}
	}
	slices.SortFunc(out, bySlot)
	return out
}

// eni is [change.newestENI] for an ENI that a caller named: one made less than a Describe lag ago is not found, which is
// what callers see right after CreateNetworkInterface.
// https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
func (tx *change) eni(id string) (ENI, error) {
	if _, seen := tx.enis.asOf(tx.visible(), id); !seen {
		return ENI{}, errENINotFound(id)
	}
	e, ok := tx.newestENI(id)
	if !ok {
		return ENI{}, errENINotFound(id)
	}
	return e, nil
}

// instance returns the instance that a caller named.
func (tx *change) instance(id string) (Instance, error) {
	if _, seen := tx.instances.asOf(tx.visible(), id); !seen {
		return Instance{}, errInstanceNotFound(id)
	}
	i, ok := tx.instances.newest(id)
	if !ok {
		return Instance{}, errInstanceNotFound(id)
	}
	return i, nil
}

// subnet returns the subnet that a caller named.
func (tx *change) subnet(id string) (Subnet, error) {
	s, ok := tx.subnets.newest(id)
	if !ok {
		return Subnet{}, errSubnetNotFound(id)
	}
	return s, nil
}

// visible is the moment up to which objects made can be named by callers.
func (tx *change) visible() time.Time { return tx.now.Add(-tx.cfg.Propagation.Describe) }

// stamp is the moment that a new object shows: clients cannot read the year 1 of what has existed since ever.
func (tx *change) stamp() time.Time {
	if tx.now.IsZero() {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return tx.now
}

func (tx *change) putInstance(i Instance) {
	tx.commit = append(tx.commit, func() { tx.instances.put(tx.now, i.ID, i) })
}

// space is who holds what in one subnet now.
type space struct {
	addrs    map[netip.Addr]string
	prefixes map[netip.Prefix]string
}

func (c *Cloud) space(subnetID string) *space {
	s := c.spaces[subnetID]
	if s == nil {
		s = &space{addrs: map[netip.Addr]string{}, prefixes: map[netip.Prefix]string{}}
		c.spaces[subnetID] = s
	}
	return s
}

// holder returns the ENI that holds a, by itself or within a delegated prefix, or "".
func (s *space) holder(a netip.Addr) string {
	if id, ok := s.addrs[a]; ok {
		return id
	}
	return s.prefixes[delegatedAround(a)]
}

// free reports whether nothing of p is held.
func (s *space) free(p netip.Prefix) bool {
	if _, taken := s.prefixes[p]; taken {
		return false
	}
	if p.Addr().Is4() {
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			if _, taken := s.addrs[a]; taken {
				return false
			}
		}
		return true
	}
	for a := range s.addrs {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// replay is the answer to a call with a client token, given again when the call is repeated.
// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
type replay struct{ request, answer any }

// repeated returns the earlier answer to the same request with the same token.
func repeated[Out any](tx *change, action, token string, request any) (Out, bool, error) {
	var none Out
	r, ok := tx.tokens[action+" "+token]
	if token == "" || !ok {
		return none, false, nil
	}
	answer := r.answer.(Out)
	if e, isENI := any(answer).(ENI); isENI {
		// What was made may be gone. unverified: the code, which is the one that the message for other resources has.
		if _, exists := tx.newestENI(e.ID); !exists {
			return none, false, errTokenUsed()
		}
	}
	if !reflect.DeepEqual(r.request, request) {
		return none, false, errTokenUsed()
	}
	return answer, true, nil
}

// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (IdempotentParameterMismatch)
func errTokenUsed() *APIError {
	return Errorf("IdempotentParameterMismatch",
		"The client token you have provided is associated with a resource that is already deleted or has different parameters")
}

func remember(tx *change, action, token string, request, answer any) {
	if token != "" {
		tx.commit = append(tx.commit, func() { tx.tokens[action+" "+token] = replay{request, answer} })
	}
}
