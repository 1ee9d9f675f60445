// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// doubtful reports whether EC2's no to changing an ENI may come from what it has not heard of yet. Where the caller's policy asks for
// tags, an ENI that EC2 does not know, or an attachment that is gone, is "UnauthorizedOperation": there are no tags to look at
// (https://github.com/hashicorp/terraform-provider-aws/pull/46211). An instance may be full of what another run has just attached.
func doubtful(err error) bool {
	return errors.Is(err, eni.ErrUnauthorized) || errors.Is(err, eni.ErrInstanceFull) || errors.Is(err, eni.ErrNotFound)
}

// doubts has since when each ENI is refused, one time after the other.
type doubts map[eni.ID]time.Time

// age is for how long the ENI has been refused, by this refusal or ones before it.
func (d doubts) age(id eni.ID) time.Duration {
	if _, again := d[id]; !again {
		d[id] = time.Now()
	}
	return time.Since(d[id])
}

// doubtedError hides what the error in its text is from [permanent]: it counts when it lasts.
type doubtedError struct{ error }

// weigh judges the error of a step that changes an ENI. What is doubtful passes until it is old; then an ENI that EC2 does not show
// is gone, and its token used up, and one that it shows may indeed not be changed.
func (r *run) weigh(s Step, err error) error {
	id := s.Device.ID
	if !doubtful(err) {
		delete(r.doubted, id)
		return err
	}
	age := r.doubted.age(id)
	shown := slices.ContainsFunc(r.ours, func(d eni.Device) bool { return d.ID == id })
	switch unknown := errors.Is(err, eni.ErrNotFound) || errors.Is(err, eni.ErrUnauthorized) && !shown; {
	case unknown && age >= memoryTime:
		r.remember(s.Device, func(m *memory) { m.removed = true })
		r.skip(s.Target.Slot)
		delete(r.doubted, id)
		return fmt.Errorf("%s is gone: %w", id, doubtedError{err})
	case errors.Is(err, eni.ErrNotFound):
		return err
	case unknown, age < settleTime:
		return doubtedError{err}
	}
	return err
}

// noRoom judges a subnet without room. The last of it may have gone to an ENI that another run has just made for this worker. So it
// counts when it lasts for longer than EC2 takes to show that one.
func (r *run) noRoom(reasons []string, refusal error) error {
	if r.fullSince.IsZero() {
		r.fullSince = time.Now()
	}
	if time.Since(r.fullSince) >= settleTime {
		return &ImpossibleError{Reasons: reasons, Err: refusal}
	}
	r.settled = false
	clear(r.held)
	r.forget(true)
	return fmt.Errorf("%w: %s", errLater, reasons[0])
}
