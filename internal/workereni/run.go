// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// run is one call of [Flow.Launch].
type run struct {
	*Flow
	q      Request
	result []eni.Device
	// inService is a worker that is not given up: see [Request].
	inService bool

	worker eni.Worker   // its ID is empty until it is read
	absent time.Time    // since when EC2 does not know it; zero when it does
	ours   []eni.Device // looked says whether they are read
	looked bool
	seen   time.Time // when they were read

	fullSince time.Time // since when a subnet has no room; zero when it has

	settled bool // the next three are read
	layout  eni.Layout
	subnets []eni.Subnet
	groups  []eni.Group

	targets      []Target
	held         map[eni.SubnetID]Held
	reservations map[eni.SubnetID][]eni.Reservation
	avoid        map[netip.Addr]bool // asked for, and refused
	picked       map[netip.Addr]bool // by this run, and given
	lost         map[Slot]int        // how often an address was taken by somebody faster
	acted        bool                // since the last look
	peers        []eni.Worker
	ranked       bool // peers is read

	// What this run did, by ENI, in order: EC2 shows it later.
	done  []eni.ID
	known map[eni.ID]memory
	// doubted says since when EC2 refuses something for a reason that may only seem so.
	doubted doubts
	// passedOver are ENIs too many that EC2 does not delete for us.
	passedOver map[eni.ID]bool
	// Tokens: how many have been used up for a slot, and since when the present one is refused: it has made an ENI, by other words
	// than ours.
	spent
	refused map[Slot]time.Time
	unknown map[Slot]time.Time // when a creation's reply was lost
}

func newRun(f *Flow, q Request, used spent) *run {
	return &run{
		Flow: f, q: q, held: map[eni.SubnetID]Held{}, reservations: map[eni.SubnetID][]eni.Reservation{}, avoid: map[netip.Addr]bool{}, picked: map[netip.Addr]bool{}, lost: map[Slot]int{},
		known: map[eni.ID]memory{}, doubted: doubts{}, passedOver: map[eni.ID]bool{}, spent: used, refused: map[Slot]time.Time{}, unknown: map[Slot]time.Time{},
	}
}

// identity are the tags by which a worker's ENIs are found.
func (c Config) identity(worker eni.InstanceID) map[string]string {
	return map[string]string{TagOwner: c.Owner, TagInstance: string(worker)}
}

func (c Config) subnets() (ids []eni.SubnetID) {
	for _, i := range c.Interfaces {
		if i.Subnet != "" && !slices.Contains(ids, i.Subnet) {
			ids = append(ids, i.Subnet)
		}
	}
	return ids
}

func (c Config) groups() (ids []eni.GroupID) {
	for _, i := range c.Interfaces {
		for _, g := range i.Groups {
			if !slices.Contains(ids, g) {
				ids = append(ids, g)
			}
		}
	}
	return ids
}

// pass reads EC2, does what is to be done, and returns nil when EC2 itself shows all of it.
func (r *run) pass(ctx context.Context) (progress bool, err error) {
	if err := r.doubted.believe("read", r.read(ctx), eni.ErrUnauthorized); err != nil {
		return false, err
	}
	for {
		plan, reasons := NewPlan(r.cfg, r.merge(r.facts()))
		r.targets = plan.Targets
		switch {
		case plan.Full:
			return progress, r.noRoom(reasons, nil)
		case len(reasons) > 0:
			return progress, &ImpossibleError{Reasons: reasons}
		case len(plan.Waits) > 0:
			r.forget(true)
			return progress, fmt.Errorf("%w: %s", errLater, plan.Waits[0])
		case len(plan.Steps) == 0:
			return progress, r.confirm()
		}
		step, ok := r.next(plan.Steps)
		if !ok {
			r.forget(true)
			return progress, fmt.Errorf("%w: what it made is not shown", eni.ErrTokenUsed)
		}
		if step.Do == Attach && r.worker.Booting() { // Auto Scaling's event may come before it runs
			r.forget(true)
			return progress, fmt.Errorf("%w: %s is pending", eni.ErrNotReady, r.q.Instance)
		}
		switch err := r.do(ctx, step); {
		case errors.Is(err, eni.ErrTokenUsed): // the other ENIs need not wait for what has become of this one
		case err != nil:
			if !r.nothingNew(err, step) {
				r.forget(true)
			}
			return progress, err
		default:
			progress, r.acted = true, true
		}
	}
}

// nothingNew reports whether what is known stays true after the error: EC2 let the call not through, or does not know yet what this
// run has made. For a while: where calls are throttled for minutes, what this run made is to be shown, and the worker may have ended.
func (r *run) nothingNew(err error, s Step) bool {
	if time.Since(r.seen) > settleTime {
		return false
	}
	return errors.Is(err, eni.ErrThrottled) || errors.Is(err, eni.ErrNotFound) && r.known[s.Device.ID].created && !r.known[s.Device.ID].removed
}

// confirm compares with what EC2 shows, without what this run remembers.
func (r *run) confirm() error {
	if r.acted { // what was read is older than what was done
		r.forget(false)
		r.acted = false
		return fmt.Errorf("%w: to be read back", errLater)
	}
	facts := r.facts()
	seen, reasons := NewPlan(r.cfg, facts)
	if len(reasons) > 0 || !seen.Done() {
		r.forget(true) // the worker may have ended, and another run have undone what this one did
		return fmt.Errorf("%w: EC2 does not show yet what was done", errLater)
	}
	mine := facts.mine(seen.Targets)
	for _, t := range seen.Targets {
		r.result = append(r.result, mine[t.Slot])
	}
	return nil
}

// inPlace looks once more, at nothing but what EC2 shows. Another run may have been let through where this one was refused, and whoever
// called it has said that the worker has its ENIs.
func (r *run) inPlace(ctx context.Context) bool {
	r.forget(true)
	r.acted = false
	return r.read(ctx) == nil && r.confirm() == nil
}

// do makes one call.
func (r *run) do(ctx context.Context, s Step) (err error) {
	d, w := s.Device, r.worker
	switch s.Do {
	case Create:
		err = r.doubted.believe("create "+s.Target.Slot.String(), r.create(ctx, s.Target, w), eni.ErrNotFound, eni.ErrUnauthorized)
		if errors.Is(err, eni.ErrNotFound) { // the subnet or a security group: they were there
			return &ImpossibleError{Reasons: []string{err.Error()}, Err: err}
		}
		return err
	case SourceDestCheck:
		if err = r.ec2.SetSourceDestCheck(ctx, d.ID, s.Target.SourceDestCheck); err == nil {
			r.remember(d, func(m *memory) { m.SourceDestCheck, m.setCheck = s.Target.SourceDestCheck, true })
		}
	case Attach:
		var a eni.AttachmentID
		if a, err = r.ec2.Attach(ctx, d.ID, w.ID, s.Target.Slot.Card, s.Target.Slot.Index); err == nil {
			r.log.Info("ENI attached", "eni", d.ID, "instance", w.ID, "slot", s.Target.Slot)
			r.remember(d, func(m *memory) {
				m.Attachment, m.InstanceID, m.NetworkCard, m.DeviceIndex = a, w.ID, s.Target.Slot.Card, s.Target.Slot.Index
				m.attached = true
			})
		}
	case DeleteOnTermination:
		if err = r.ec2.SetDeleteOnTermination(ctx, d.ID, d.Attachment, s.Target.DeleteOnTermination); err == nil {
			r.remember(d, func(m *memory) { m.Device.DeleteOnTermination, m.setEnd = s.Target.DeleteOnTermination, true })
		}
	case Remove:
		if err = r.ec2.Delete(ctx, d.ID); err == nil || errors.Is(err, eni.ErrNotFound) {
			r.log.Info("surplus ENI deleted", "eni", d.ID, "instance", w.ID)
			r.remember(d, func(m *memory) { m.removed = true })
			err = nil
		}
	}
	if err = r.weigh(s, err); s.Do == Remove && permanent(err) { // the worker has its ENIs all the same
		r.log.Warn("surplus ENI cannot be deleted", "eni", d.ID, "instance", w.ID, "error", err)
		r.passedOver[d.ID] = true
		return nil
	}
	return err
}

// create makes the target's ENI. All runs for a worker use the same token for a slot, so that EC2 makes one ENI for all of them.
func (r *run) create(ctx context.Context, t Target, w eni.Worker) error {
	n := eni.NewDevice{
		Subnet: t.Subnet, Groups: t.Groups, Tags: r.cfg.tagsFor(w, t.Slot), Token: token(r.cfg.Owner, w.ID, t.Slot, r.spent[t.Slot]),
		Description: fmt.Sprintf("multus-vpc %s card %d index %d", w.ID, t.Slot.Card, t.Slot.Index),
	}
	if len(t.In.IPv6) > 0 {
		n.IPv6Count = 1
	}
	if err := r.choose(ctx, t, &n); err != nil {
		return err
	}
	d, err := r.ec2.Create(ctx, n)
	switch {
	case err == nil && r.known[d.ID].created: // and not seen since: it was deleted, and EC2 repeats what it answered then
		r.skip(t.Slot)
		return fmt.Errorf("%w: %s is gone", errLater, d.ID)
	case err == nil:
		delete(r.refused, t.Slot)
		delete(r.unknown, t.Slot)
		r.fullSince = time.Time{}
		for _, a := range append(n.Secondary, d.Interface.Primary) {
			r.picked[a] = true
		}
		r.log.Info("ENI created", "eni", d.ID, "instance", w.ID, "slot", t.Slot, "subnet", t.Subnet, "ip", d.Interface.Primary, "stock", len(n.Secondary))
		d.Tags = n.Tags
		r.remember(d, func(m *memory) { m.created = true })
	case errors.Is(err, eni.ErrAddressInUse):
		for _, a := range append(n.Secondary, n.Primary) {
			r.avoid[a] = true
		}
		r.lost[t.Slot]++
		delete(r.held, t.Subnet)
	case errors.Is(err, eni.ErrSubnetFull):
		return r.noRoom([]string{err.Error()}, err)
	case errors.Is(err, eni.ErrTokenUsed):
		r.refused[t.Slot] = time.Now()
	case errors.Is(err, eni.ErrOutcomeUnknown):
		r.unknown[t.Slot] = time.Now()
	}
	return err
}

// tagsFor are the tags of a new ENI, the same in each run.
func (c Config) tagsFor(w eni.Worker, s Slot) map[string]string {
	tags := map[string]string{}
	maps.Copy(tags, c.Tags)
	maps.Copy(tags, c.identity(w.ID))
	tags[eni.TagNoManage] = "true"
	tags[TagSlot] = s.String()
	if primary, ok := w.Primary(); ok { // attached at launch; LaunchTime of the instance changes with each start
		tags[TagLaunched] = primary.AttachedAt.UTC().Format(time.RFC3339)
	}
	return tags
}
