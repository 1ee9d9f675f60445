// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// undo takes away what this run made, the newest first, and what earlier ones left unattached. Pods may be on what is attached to a worker
// in service.
func (r *run) undo(ctx context.Context) error {
	for _, m := range r.made() {
		if slot, ok := slotTagged(m.Device); ok {
			r.spent[slot]++
		}
	}
	goes := func(d eni.Device) bool {
		return !d.Attached() || !r.inService && (r.known[d.ID].created || r.known[d.ID].attached)
	}
	if err := r.clear(ctx, r.q.Instance, goes, unseen{r.made(), r.unknown}); err != nil {
		return fmt.Errorf("undo: %v", err) // not %w: why undoing failed is not why the launch did
	}
	return nil
}

// made are the ENIs that this run created, as far as they have not been removed, in order.
func (r *run) made() (made []memory) {
	for _, id := range r.done {
		if m := r.known[id]; m.created && !m.removed {
			made = append(made, m)
		}
	}
	return made
}

// unseen is what EC2 may not show yet of what a run did.
type unseen struct {
	made    []memory
	unknown map[Slot]time.Time // creations that may have made an ENI
}

// clear detaches and deletes those of the worker's ENIs that are to go, the newest first, until none of them is left but those that
// EC2 refuses to let go.
func (f *Flow) clear(ctx context.Context, worker eni.InstanceID, goes func(eni.Device) bool, u unseen) error {
	c := clearing{Flow: f, worker: worker, goes: goes, unseen: u, gone: map[eni.ID]bool{}, refused: map[eni.ID]error{}, doubted: doubts{}}
	if err := f.persist(ctx, func() (progress bool, err error) { return c.pass(ctx) }); err != nil {
		return err
	}
	return errors.Join(slices.Collect(maps.Values(c.refused))...)
}

// clearing is one call of [Flow.clear].
type clearing struct {
	*Flow
	worker eni.InstanceID
	goes   func(eni.Device) bool
	unseen
	gone    map[eni.ID]bool
	refused map[eni.ID]error // for good
	doubted doubts
}

// pass removes what can be removed now. Its error says what will go later.
func (c *clearing) pass(ctx context.Context) (progress bool, err error) {
	shown, err := c.ec2.DevicesTagged(ctx, c.cfg.identity(c.worker))
	if err = c.doubted.believe("read", err, eni.ErrUnauthorized); err != nil {
		return false, err
	}
	hidden := map[eni.ID]bool{} // whether what EC2 does not show may be there all the same
	for _, m := range c.made {
		if !slices.ContainsFunc(shown, func(s eni.Device) bool { return s.ID == m.ID }) {
			hidden[m.ID] = time.Since(m.at) < settleTime
			shown = append(shown, m.Device)
		}
	}
	var left []error
	for slot, at := range c.unknown {
		if slices.ContainsFunc(shown, func(d eni.Device) bool { return d.Tags[TagSlot] == slot.String() }) {
			delete(c.unknown, slot)
		} else if time.Since(at) < settleTime {
			left = append(left, fmt.Errorf("%w: whether an ENI was made for card %d index %d", errLater, slot.Card, slot.Index))
		}
	}
	for _, d := range slices.Backward(shown) {
		if c.gone[d.ID] || c.refused[d.ID] != nil || !c.goes(d) {
			continue
		}
		err := c.remove(ctx, d)
		young, hides := hidden[d.ID]
		question := string(d.ID) + "/" + string(d.Attachment) // a doubt about the attachment is none about the ENI
		lasts := !young
		switch {
		case !doubtful(err):
			delete(c.doubted, question)
		case !hides: // one server may not know yet what another one shows
			lasts = c.doubted.age(question) >= settleTime
		}
		unknown := errors.Is(err, eni.ErrNotFound) || hides && errors.Is(err, eni.ErrUnauthorized)
		switch {
		case err == nil || unknown && lasts:
			c.gone[d.ID], progress = true, true
			c.log.Info("ENI deleted", "eni", d.ID, "instance", c.worker)
		case unknown: // to believe that it is gone would leave it behind
			left = append(left, fmt.Errorf("%w: %w", errLater, doubtedError{err}))
		case doubtful(err) && !lasts:
			left = append(left, doubtedError{err})
		case permanent(err):
			c.refused[d.ID], progress = err, true
		default:
			left = append(left, err)
		}
	}
	return progress, errors.Join(left...)
}

// remove deletes one ENI, after having started to detach it. That it is still attached is an error that passes.
func (f *Flow) remove(ctx context.Context, d eni.Device) error {
	if d.Attached() && d.AttachmentStatus != eni.StatusDetaching {
		if err := f.ec2.Detach(ctx, d.Attachment); err != nil && !errors.Is(err, eni.ErrNotFound) {
			return err
		}
	}
	err := f.ec2.Delete(ctx, d.ID)
	if errors.Is(err, eni.ErrInUse) {
		return fmt.Errorf("%w: %w", errLater, err)
	}
	return err
}
