// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"errors"
	"fmt"
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
	// lookInterval is the mean pause between two looks for what was done and is not shown yet.
	lookInterval = time.Second
	// undoTimeout is for undoing, when the caller's time may be up.
	undoTimeout = 30 * time.Second
)

// Launch gives the worker its ENIs and returns them, in the order of the configuration, when EC2 shows all of them in place.
//
// What may pass (throttling, lost replies, an instance that is not known yet) is retried until ctx ends: then the error matches
// [ErrUnfinished] and what was made stays for the next call to go on from. With [ErrImpossible] and [ErrGone] it is undone: the ENIs
// of this call in reverse order, and those for this worker that an earlier one left unattached. Attached ones of earlier calls are
// left alone, for the worker may be healthy and the call a repetition under another configuration. Nor is anything undone when another
// call has put all ENIs in place, whatever was in the way of this one.
func (f *Flow) Launch(ctx context.Context, q Request) ([]eni.Device, error) {
	return f.launch(ctx, q, spent{})
}

// launch is [Flow.Launch] by one who knows which tokens are used up, and wants to know it next time.
func (f *Flow) launch(ctx context.Context, q Request, used spent) ([]eni.Device, error) {
	r := newRun(f, q, used)
	err := f.persist(ctx, func() (progress bool, err error) { return r.pass(ctx) })
	switch {
	case err == nil:
		return r.result, nil
	case errors.Is(err, ErrUnfinished):
		return nil, fmt.Errorf("give %s its ENIs: %w", q.Instance, err)
	case !errors.Is(err, ErrGone) && !errors.Is(err, ErrImpossible):
		err = &ImpossibleError{Reasons: []string{err.Error()}, Err: err}
	}
	if impossible, ok := errors.AsType[*ImpossibleError](err); ok {
		if impossible.Err != nil && r.inPlace(ctx) { // else the last look has shown what is in the way
			return r.result, nil
		}
		r.inService = q.GiveUp != nil && !q.GiveUp(impossible)
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
		delay := lookInterval/2 + rand.N(lookInterval)
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
