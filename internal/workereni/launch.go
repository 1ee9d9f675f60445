// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

const (
	// backoffBase and backoffCap bound the pauses between attempts, which are drawn at random below them: workers that start
	// together must not come again together. At EC2's 5 writes/s, a hundred workers need 20 s for one call each.
	backoffBase   = time.Second
	throttledBase = 4 * time.Second
	backoffCap    = 20 * time.Second
	// lookInterval is between two looks for what was done and is not shown yet.
	lookInterval = time.Second
	// undoTimeout is for undoing, when the caller's time may be up.
	undoTimeout = 30 * time.Second
)

// Launch gives the worker its ENIs and returns them, in the order of the configuration, when EC2 shows all of them in place.
//
// What may pass (throttling, lost replies, an instance that is not known yet) is retried until ctx ends: then the error matches
// [ErrUnfinished] and what was made stays for the next call to go on from. With [ErrImpossible] and [ErrGone] it is undone: the ENIs
// of this call in reverse order, and those for this worker that an earlier one left unattached. Attached ones of earlier calls are
// left alone, for the worker may be healthy and the call a repetition under another configuration.
func (f *Flow) Launch(ctx context.Context, q Request) ([]eni.Device, error) {
	beat := f.heartbeat(ctx, q)
	defer beat()
	r := newRun(f, q)
	err := f.persist(ctx, func() (progress bool, err error) { return r.pass(ctx) })
	switch {
	case err == nil:
		return r.result, nil
	case errors.Is(err, ErrUnfinished):
		return nil, fmt.Errorf("give %s its ENIs: %w", q.Instance, err)
	case !errors.Is(err, ErrGone) && !errors.Is(err, ErrImpossible):
		err = &ImpossibleError{Reasons: []string{err.Error()}, Err: err}
	}
	f.log.Warn("undoing what was made for a worker", "instance", q.Instance, "error", err)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return nil, fmt.Errorf("give %s its ENIs: %w", q.Instance, errors.Join(err, r.undo(grace)))
}

// errLater is what only waiting cures, as far as it is not one of the sentinels that say so.
var errLater = errors.New("not yet")

// persist repeats step while its error may pass, until ctx ends. A step that got on resets the growth of the pauses.
func (f *Flow) persist(ctx context.Context, step func() (progress bool, err error)) error {
	for tries := 0; ; tries++ {
		progress, err := step()
		if err == nil || permanent(err) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrUnfinished, err)
		}
		if progress {
			tries = 0
		}
		delay := lookInterval
		if !errors.Is(err, errLater) {
			base := backoffBase
			if errors.Is(err, eni.ErrThrottled) {
				base = throttledBase
			}
			delay = base/10 + rand.N(min(backoffCap, base<<min(tries, 10)))
			f.log.Info("EC2 call to be repeated", "error", err, "after", delay)
		}
		if pause(ctx, delay) != nil {
			return fmt.Errorf("%w: %w", ErrUnfinished, err)
		}
	}
}

// permanent reports whether trying again is of no use. What is not known to be so may pass.
func permanent(err error) bool {
	for _, e := range []error{
		ErrImpossible, ErrGone, eni.ErrUnauthorized, eni.ErrSubnetFull, eni.ErrNoPrefix, eni.ErrSlotsFull, eni.ErrInstanceFull, eni.ErrRefused,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// heartbeat keeps the caller's promise to somebody else alive until the returned function is called.
func (f *Flow) heartbeat(ctx context.Context, q Request) (stop func()) {
	if q.Heartbeat == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if err := q.Heartbeat(ctx); err != nil && ctx.Err() == nil {
				f.log.Warn("heartbeat not taken", "instance", q.Instance, "error", err)
			}
			if pause(ctx, HeartbeatInterval) != nil {
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// read collects what EC2 says of the worker, as far as it is not known or has to be looked at again. What does not change during a
// run is read once.
func (r *run) read(ctx context.Context) (err error) {
	if r.worker.ID == "" {
		if r.worker, err = r.find(ctx); err != nil {
			return err
		}
	}
	if r.worker.Gone() {
		return fmt.Errorf("%w: %s is %s", ErrGone, r.q.Instance, r.worker.State)
	}
	if !r.looked {
		if r.ours, err = r.ec2.DevicesTagged(ctx, r.cfg.identity(r.q.Instance)); err != nil {
			return err
		}
		r.looked = true
	}
	if err := r.readOnce(ctx, r.worker); err != nil {
		return err
	}
	return r.readHeld(ctx)
}

// find reads the worker. EC2 may know it only later, or, an hour or so after it has ended, no more.
func (r *run) find(ctx context.Context) (eni.Worker, error) {
	workers, err := r.ec2.Workers(ctx, []eni.InstanceID{r.q.Instance})
	switch {
	case err != nil:
		return eni.Worker{}, err
	case len(workers) > 0:
		r.absent = time.Time{}
		return workers[0], nil
	case r.absent.IsZero():
		r.absent = time.Now()
	case time.Since(r.absent) > memoryTime:
		return eni.Worker{}, fmt.Errorf("%w: EC2 knows no %s", ErrGone, r.q.Instance)
	}
	return eni.Worker{}, fmt.Errorf("instance %s: %w", r.q.Instance, eni.ErrNotFound)
}

// facts are what read has collected.
func (r *run) facts() Facts {
	return Facts{Now: time.Now(), Worker: r.worker, Layout: r.layout, Subnets: r.subnets, Groups: r.groups, Ours: r.ours, Held: r.held}
}

// forget has the next pass look again: at our ENIs, and after a surprise at the worker as well.
func (r *run) forget(surprise bool) {
	r.looked = false
	if surprise {
		r.worker = eni.Worker{}
	}
}

func (r *run) readOnce(ctx context.Context, w eni.Worker) (err error) {
	if r.settled {
		return nil
	}
	if r.layout, err = r.ec2.Layout(ctx, w.Type); err != nil {
		return err
	}
	if r.subnets, err = r.ec2.SubnetsFound(ctx, r.cfg.subnets()); err != nil {
		return err
	}
	if groups := r.cfg.groups(); len(groups) > 0 {
		if r.groups, err = r.ec2.Groups(ctx, groups); err != nil {
			return err
		}
	}
	r.settled = true
	return nil
}

// readHeld reads the subnets out of which addresses are still to be chosen.
func (r *run) readHeld(ctx context.Context) (err error) {
	merged := r.merge(r.facts())
	targets, _ := merged.targets(r.cfg)
	mine := merged.mine(targets)
	for _, t := range targets {
		_, exists := mine[t.Slot]
		if _, known := r.held[t.Subnet]; known || exists || t.Addressing == DHCP && t.Stock == 0 || !t.In.IPv4.IsValid() {
			continue
		}
		reservations, known := r.reservations[t.Subnet]
		if !known {
			if reservations, err = r.ec2.Reservations(ctx, t.Subnet); err != nil {
				return err
			}
			r.reservations[t.Subnet] = reservations
		}
		devices, err := r.ec2.DevicesIn(ctx, t.Subnet)
		if err != nil {
			return err
		}
		r.held[t.Subnet] = NewHeld(reservations, devices)
	}
	return nil
}

// rank is how many workers of the group that lacked an ENI in the target's subnet, when the subnet was read, come before this one.
// Each takes the free address of its rank, so that workers that start together do not all try the first. Those that read the subnet
// later see fewer free addresses and fewer workers, and come to the same.
func (r *run) rank(ctx context.Context, t Target) (int, error) {
	if r.q.Group == "" {
		return 0, nil
	}
	if !r.ranked {
		peers, err := r.ec2.WorkersTagged(ctx, tagAutoScalingGroup, r.q.Group)
		if err != nil {
			return 0, err
		}
		r.peers, r.ranked = peers, true
	}
	before := 0
	for _, p := range r.peers {
		if p.AZ == t.In.AZ && !r.held[t.Subnet].workers[p.ID] && p.ID < r.q.Instance {
			before++
		}
	}
	return before, nil
}

// choose completes the description of a new ENI by the addresses that it asks for.
func (r *run) choose(ctx context.Context, t Target, n *eni.NewDevice) error {
	held, known := r.held[t.Subnet]
	if !known {
		return nil
	}
	avoid := maps.Clone(r.avoid)
	n.Secondary = held.stock(r.q.Instance, t, t.Stock, avoid)
	if t.Addressing == DHCP {
		return nil
	}
	place, err := r.rank(ctx, t)
	if err != nil {
		return err
	}
	place = place*r.sharing(t) + r.nth(t)
	if lost := r.lost[t.Slot]; lost > 0 { // whoever was faster may follow the same order
		place = rand.N(16 << min(lost, 8))
		maps.Copy(avoid, r.picked)
	}
	a, ok := held.primary(t, place, avoid)
	if !ok {
		return &ImpossibleError{Reasons: []string{fmt.Sprintf("subnet %s is full: no address is free for addressing %s", t.Subnet, t.Addressing)}}
	}
	n.Primary = a
	return nil
}

// sharing is how many targets choose their address out of the target's subnet, and nth which of them it is.
func (r *run) sharing(t Target) (n int) {
	for _, o := range r.targets {
		if o.Subnet == t.Subnet && o.Addressing == t.Addressing {
			n++
		}
	}
	return max(n, 1)
}

func (r *run) nth(t Target) (n int) {
	for _, o := range r.targets {
		if o.Slot == t.Slot {
			break
		}
		if o.Subnet == t.Subnet && o.Addressing == t.Addressing {
			n++
		}
	}
	return n
}
