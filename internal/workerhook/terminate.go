// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
)

// terminate empties a worker that ends, and lets it end whatever came of that: a hook that stays open only puts the end off. With an error
// the handling is repeated, and what then is left the sweep takes.
//
// An instance that goes into the warm pool lives on: its pods leave, its ENIs stay. By a late event it may be out of there again, with
// pods: it is left alone, and a drain ends when nobody waits for it any longer. One that ends in the pool has no pods.
func (a action) terminate(ctx context.Context, since time.Time) error {
	work, cancel := shorter(ctx, answerTime)
	defer cancel()
	drains := a.drainer != nil && a.Origin != lifecycle.WarmPool
	if drains && a.Destination == lifecycle.WarmPool && a.hooks != nil {
		switch err := a.ask(work); {
		case errors.Is(err, lifecycle.ErrNotWaiting):
			a.log.Info("lifecycle action waits no longer", "result", resultNone)
			return nil
		case err != nil: // so it may be in service
			return errors.Join(err, a.answer(ctx, lifecycle.Continue, "error", err))
		}
	}
	waited, lapse := context.WithCancelCause(work)
	defer lapse(nil)
	stop := a.beat(ctx, func() { lapse(lifecycle.ErrNotWaiting) })
	var more []any
	if drains {
		more = append(more, "drained", a.drain(waited, since))
	}
	var err error
	if a.Destination != lifecycle.WarmPool {
		err = a.workers.Terminate(work, a.Instance)
	}
	stop()
	if err != nil {
		more = append(more, "error", err)
	}
	return errors.Join(err, a.answer(ctx, lifecycle.Continue, more...))
}

// drain reports what came of it, for the log.
func (a action) drain(ctx context.Context, since time.Time) string {
	ctx, cancel := shorter(ctx, terminateTime)
	defer cancel()
	if err := a.drainer.Drain(ctx, a.Instance, since); err != nil {
		return fmt.Sprintf("no: %v", err)
	}
	return "yes"
}

// sweep frees what was left behind.
func (h *Handler) sweep(ctx context.Context) error {
	work, cancel := shorter(ctx, answerTime)
	defer cancel()
	orphans, err := h.workers.Sweep(work, sweepAge)
	deleted, kept := 0, 0
	for _, o := range orphans {
		switch {
		case o.Err != nil:
			err = errors.Join(err, fmt.Errorf("sweep %s: %w", o.ID, o.Err))
		case o.Kept != "":
			kept++
			h.log.Info("unattached ENI kept", "eni", o.ID, "reason", o.Kept)
		default:
			deleted++
			h.log.Info("orphaned ENI deleted", "eni", o.ID)
		}
	}
	h.log.Info("swept", "deleted", deleted, "kept", kept)
	return err
}
