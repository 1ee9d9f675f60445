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

// doubts has since when each question is answered by a no, one time after the other. Where an ENI is to be changed, its ID is the question.
type doubts map[string]time.Time

// age is for how long the answer has been no, this one or ones before it.
func (d doubts) age(question string) time.Duration {
	if _, again := d[question]; !again {
		d[question] = time.Now()
	}
	return time.Since(d[question])
}

// believe judges the error of what changes no ENI. One of the nos counts when it lasts: another server of EC2 may know better.
func (d doubts) believe(question string, err error, nos ...error) error {
	if !slices.ContainsFunc(nos, func(no error) bool { return errors.Is(err, no) }) {
		delete(d, question)
		return err
	}
	if d.age(question) < settleTime {
		return doubtedError{err}
	}
	return err
}

// doubtedError hides what the error in its text is from [permanent]: it counts when it lasts.
type doubtedError struct{ error }

// weigh judges the error of a step that changes an ENI. What is doubtful passes until it is old; then an ENI that EC2 does not show
// is gone, and its token used up, and one that it shows may indeed not be changed.
func (r *run) weigh(s Step, err error) error {
	id := s.Device.ID
	if !doubtful(err) {
		delete(r.doubted, string(id))
		return err
	}
	age := r.doubted.age(string(id))
	shown := slices.ContainsFunc(r.ours, func(d eni.Device) bool { return d.ID == id })
	switch unknown := errors.Is(err, eni.ErrNotFound) || errors.Is(err, eni.ErrUnauthorized) && !shown; {
	case unknown && age >= memoryTime:
		r.remember(s.Device, func(m *memory) { m.removed = true })
		r.skip(s.Target.Slot)
		delete(r.doubted, string(id))
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
