// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// family is how the addresses of one family are registered on one ENI.
type family struct {
	place
	ec2 EC2
	v6  bool
	// assign is all or nothing. With reassign it may move what other ENIs hold, where EC2 can.
	assign   func(ctx context.Context, id eni.ID, addrs []netip.Addr, reassign bool) error
	unassign func(ctx context.Context, id eni.ID, addrs []netip.Addr) error
	// take moves an address here from the ENI that holds it.
	take func(ctx context.Context, owner eni.ID, addr netip.Addr) error
	// lately reports whether the address was assigned here so short a time ago that reads may show it though it has gone since.
	lately func(netip.Addr) bool
}

func (d *Direct) ipv4(p place) family {
	return family{
		place: p, ec2: d.ec2, lately: d.lately,
		assign:   d.ec2.Assign,
		unassign: d.ec2.Unassign,
		take: func(ctx context.Context, _ eni.ID, addr netip.Addr) error {
			return d.ec2.Assign(ctx, p.eni.ID, []netip.Addr{addr}, true)
		},
	}
}

// ipv6 has no reassignment: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignIpv6Addresses.html
func (d *Direct) ipv6(p place) family {
	return family{
		place: p, ec2: d.ec2, v6: true, lately: d.lately,
		assign: func(ctx context.Context, id eni.ID, addrs []netip.Addr, _ bool) error {
			return d.ec2.AssignIPv6(ctx, id, addrs)
		},
		unassign: d.ec2.UnassignIPv6,
		take: func(ctx context.Context, owner eni.ID, addr netip.Addr) error {
			if err := d.ec2.UnassignIPv6(ctx, owner, []netip.Addr{addr}); err != nil && !errors.Is(err, eni.ErrNotAssigned) {
				return fmt.Errorf("unassign from %s: %w", owner, err)
			}
			return d.ec2.AssignIPv6(ctx, p.eni.ID, []netip.Addr{addr})
		},
	}
}

// of picks the family's addresses.
func (f family) of(addrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is6() != f.v6 })
}

// register assigns all that can be had at once, then sees to those that another ENI holds, and waits until EC2 shows the rest.
func (f family) register(ctx context.Context, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]Result {
	results := claim{family: f, conflict: conflict}.attempt(ctx, addrs)
	f.confirm(ctx, results)
	return results
}

// claim is one registration of some addresses.
type claim struct {
	family
	conflict attachment.OnConflict
	unsure   bool // a call of it may have assigned them, though nobody said so: then they are ours to give back
}

// attempt assigns addresses and sees to each that EC2 refuses.
func (c claim) attempt(ctx context.Context, addrs []netip.Addr) map[netip.Addr]Result {
	results := map[netip.Addr]Result{}
	for rest := addrs; len(rest) > 0; {
		err := c.assign(ctx, c.eni.ID, rest, c.conflict == attachment.Reassign)
		if err == nil {
			for _, a := range rest {
				results[a] = Result{New: true}
			}
			break
		}
		c.unsure = c.unsure || errors.Is(err, eni.ErrOutcomeUnknown)
		maps.Copy(results, c.refused(ctx, rest, err))
		rest = slices.DeleteFunc(slices.Clone(rest), func(a netip.Addr) bool { _, settled := results[a]; return settled })
	}
	return results
}

// refused makes what can be made of a refused call: the result of at least one of its addresses.
func (c claim) refused(ctx context.Context, addrs []netip.Addr, err error) map[netip.Addr]Result {
	switch {
	case errors.Is(err, eni.ErrSlotsFull) && len(addrs) > 1: // EC2 counts those that are here already once more
		if here := c.here(ctx, addrs); len(here) > 0 {
			return c.separate(ctx, here)
		}
		return c.failed(addrs, explain(c.place, err))
	case ofAll(err):
		return c.failed(addrs, explain(c.place, err))
	case len(addrs) > 1:
		return c.separate(ctx, culprits(addrs, err))
	case errors.Is(err, eni.ErrAddressInUse), errors.Is(err, eni.ErrOutcomeUnknown), errors.Is(err, eni.ErrSlotsFull):
		return map[netip.Addr]Result{addrs[0]: c.contest(ctx, addrs[0], err)}
	}
	return c.failed(addrs, fmt.Errorf("%w: %w", ErrRefused, explain(c.place, err)))
}

// failed is the same error for each of the addresses.
func (c claim) failed(addrs []netip.Addr, err error) map[netip.Addr]Result {
	results := map[netip.Addr]Result{}
	for _, a := range addrs {
		results[a] = Result{New: c.unsure, Err: err}
	}
	return results
}

// here are those of the addresses that EC2 shows on this ENI; none when it cannot be asked.
func (c claim) here(ctx context.Context, addrs []netip.Addr) []netip.Addr {
	owners, err := c.ec2.Owners(ctx, c.subnet.ID, addrs)
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return err != nil || owners[a] != c.eni.ID })
}

// culprits are the addresses that a refused call was refused for: those that EC2 named, who need not be all, else one of them
// to find out.
func culprits(addrs []netip.Addr, err error) []netip.Addr {
	if in, ok := errors.AsType[*eni.InUseError](err); ok {
		named := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !slices.Contains(in.Addrs, a) })
		if len(named) > 0 {
			return named
		}
	}
	return addrs[:1]
}

// separate attempts each address by itself, all at the same time: one may wait for its old owner.
func (c claim) separate(ctx context.Context, addrs []netip.Addr) map[netip.Addr]Result {
	results := map[netip.Addr]Result{}
	var mu sync.Mutex
	var each sync.WaitGroup
	for _, a := range addrs {
		each.Go(func() {
			got := c.attempt(ctx, []netip.Addr{a})
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(results, got)
		})
	}
	each.Wait()
	return results
}

// ofAll reports whether the error is about the call rather than about one of its addresses: EC2 was not reached, or did not look at
// them.
func ofAll(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	return !slices.ContainsFunc([]error{
		eni.ErrAddressInUse, eni.ErrOutcomeUnknown, eni.ErrSlotsFull, eni.ErrRefused, eni.ErrSubnetFull, eni.ErrNoPrefix,
	}, func(answer error) bool { return errors.Is(err, answer) })
}

// contest sees to one address that another ENI may hold: it waits for the owner to give it back, and takes it if it may. err is what EC2
// said last.
func (c claim) contest(ctx context.Context, a netip.Addr, err error) (r Result) {
	defer func() { r.New = r.New || c.unsure }()
	began := time.Now()
	var away, moved bool // it was read elsewhere; it was to be moved
	for {
		owners, rerr := c.ec2.Owners(ctx, c.subnet.ID, []netip.Addr{a})
		if rerr != nil {
			return Result{Err: errors.Join(err, rerr)}
		}
		owner, owned := owners[a]
		here, over := owner == c.eni.ID, time.Since(began) >= conflictPatience
		away = away || !here
		switch {
		case here && (over || away || c.steady(a)):
			return Result{}
		case errors.Is(err, eni.ErrSlotsFull) && !here:
			return Result{Err: explain(c.place, err)}
		case owned && !here && c.conflict == attachment.Never:
			return Result{Err: fmt.Errorf("%w: %s", ErrContested, owner)}
		case owned && !here && (over || c.conflict == attachment.Reassign):
			r := c.move(ctx, a, owner)
			unknown := errors.Is(r.Err, eni.ErrOutcomeUnknown)
			c.unsure = c.unsure || unknown
			if !unknown || moved {
				return r
			}
			moved, err = true, r.Err // who has it now is read first
		case !owned || errors.Is(err, eni.ErrOutcomeUnknown): // given back, or not done; a refusal stands until reads show why
			err = c.assign(ctx, c.eni.ID, []netip.Addr{a}, false)
			c.unsure = c.unsure || errors.Is(err, eni.ErrOutcomeUnknown)
			if err == nil {
				return Result{New: true}
			}
			if !errors.Is(err, eni.ErrAddressInUse) || over {
				return Result{Err: explain(c.place, err)}
			}
		}
		if perr := pause(ctx, pollInterval); perr != nil {
			return Result{Err: fmt.Errorf("wait for %s to give %s back: %w; %w", owner, a, perr, err)}
		}
	}
}

// steady reports whether one read that shows the address here is enough. What floats, and what was assigned here a moment ago, may have
// moved on while reads still show it.
func (c claim) steady(a netip.Addr) bool {
	return c.conflict != attachment.Reassign && (c.unsure || !c.lately(a))
}

// move takes the address from the ENI that holds it, unless that is not this cluster's, or not a worker's for pods.
func (c claim) move(ctx context.Context, a netip.Addr, owner eni.ID) Result {
	ifs, err := c.ec2.Interfaces(ctx, []eni.ID{owner, c.eni.ID}) // the instance metadata knows no tags of ours
	if err != nil {
		return Result{Err: err}
	}
	tags := map[eni.ID]map[string]string{}
	for _, i := range ifs {
		if i.ID == owner && i.Primary == a {
			return Result{Err: fmt.Errorf("%w: %s is the primary address of %s and cannot be moved: keep it out of the pods' range", ErrRefused, a, owner)}
		}
		tags[i.ID] = i.Tags
	}
	switch {
	case c.conflict == attachment.Reassign:
	case tags[owner][eni.TagNoManage] != "true":
		return Result{Err: fmt.Errorf("%w: %s, which is not tagged %s=true as a worker's ENI for pods", ErrContested, owner, eni.TagNoManage)}
	case !eni.SameCluster(tags[c.eni.ID], tags[owner]):
		return Result{Err: fmt.Errorf("%w: %s, whose tags do not name the cluster of %s", ErrContested, owner, c.eni.ID)}
	}
	if err := c.take(ctx, owner, a); err != nil {
		return Result{Err: explain(c.place, fmt.Errorf("move %s from %s to %s: %w", a, owner, c.eni.ID, err))}
	}
	return Result{New: true}
}

// release gives addresses back. EC2 refuses the batch when one of them has gone already, so that it is then done one by one.
func (f family) release(ctx context.Context, addrs []netip.Addr) error {
	err := f.unassign(ctx, f.eni.ID, addrs)
	switch {
	case err == nil, errors.Is(err, eni.ErrNotAssigned) && len(addrs) == 1, errors.Is(err, eni.ErrNotFound):
		return nil // what is not there need not be given back
	case !errors.Is(err, eni.ErrNotAssigned):
		return explain(f.place, fmt.Errorf("unassign from %s: %w", f.eni.ID, err))
	}
	var errs []error
	for _, a := range addrs {
		errs = append(errs, f.release(ctx, []netip.Addr{a}))
	}
	return errors.Join(errs...)
}

// confirm waits until EC2 shows the new addresses here: a move is asynchronous, and an answer is no proof of the data path.
func (f family) confirm(ctx context.Context, results map[netip.Addr]Result) {
	var waiting []netip.Addr
	for a, r := range results {
		if r.Err == nil {
			waiting = append(waiting, a)
		}
	}
	began := time.Now()
	for interval := confirmInterval; ; interval = min(2*interval, confirmIntervalCap) {
		owners, err := f.ec2.Owners(ctx, f.subnet.ID, waiting)
		if err == nil {
			waiting = slices.DeleteFunc(waiting, func(a netip.Addr) bool { return owners[a] == f.eni.ID })
			err = errors.New("EC2 does not show it there yet")
		}
		if len(waiting) == 0 {
			return
		}
		late := time.Since(began) > confirmPatience
		if perr := pause(ctx, interval); late || perr != nil {
			for _, a := range waiting {
				if _, owned := owners[a]; owned && late {
					err = fmt.Errorf("%w: %s", ErrContested, owners[a])
				}
				r := Result{New: results[a].New, Err: fmt.Errorf("confirm %s on %s: %w", a, f.eni.ID, errors.Join(err, perr))}
				if r.New {
					r.Err = fmt.Errorf("%w: %w", errUnconfirmed, r.Err)
				}
				results[a] = r
			}
			return
		}
	}
}

// errUnconfirmed is a claim that EC2 said yes to and that no read has shown.
var errUnconfirmed = errors.New("not confirmed")

// explain says what a user can do about an error of EC2, and marks those that trying again does not mend.
func explain(p place, err error) error {
	switch {
	case errors.Is(err, eni.ErrUnauthorized):
		return fmt.Errorf("%w: %w: allow ec2:AssignPrivateIpAddresses, ec2:AssignIpv6Addresses, their Unassign counterparts and ec2:Describe* to the pod's role", ErrRefused, err)
	case errors.Is(err, eni.ErrSlotsFull):
		return fmt.Errorf("%s holds as many addresses as its instance type allows: %w: spread the pods over more workers or ENIs", p.eni.ID, err)
	case errors.Is(err, eni.ErrNotFound):
		return fmt.Errorf("%s has gone: %w", p.eni.ID, err)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
