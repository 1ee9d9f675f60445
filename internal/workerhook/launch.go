// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook

import (
	"context"
	"errors"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// launch gives a worker its ENIs. The way out of a warm pool is the same: it finds them in place, and lets pods back.
//
// A worker that cannot have them is abandoned before they are undone. When somebody else has answered, it may be in service with them.
func (a action) launch(ctx context.Context, since time.Time) error {
	work, cancel := shorter(ctx, answerTime)
	defer cancel()
	stop := a.beat(ctx, func() {})
	var answered bool
	var answerErr error
	abandon := func(impossible *workereni.ImpossibleError) (taken bool) {
		stop()
		taken, answerErr = a.decide(ctx, lifecycle.Abandon, "reasons", impossible.Reasons, "error", impossible)
		answered = true
		return taken
	}
	devices, err := a.workers.Launch(work, workereni.Request{Instance: a.Instance, Group: a.Group, GiveUp: abandon})
	var more []any
	if err == nil && a.drainer != nil && a.Origin == lifecycle.WarmPool && a.Destination != lifecycle.WarmPool {
		if failed := a.drainer.Return(work, a.Instance, since); failed != nil {
			more = []any{"error", failed}
		}
	}
	stop()
	impossible, _ := errors.AsType[*workereni.ImpossibleError](err)
	switch {
	case err == nil:
		return a.answer(ctx, lifecycle.Continue, append(more, "enis", ids(devices))...)
	case errors.Is(err, workereni.ErrGone):
		// Auto Scaling sees that by itself. The event may as well be older than the end of the instance.
		a.log.Info("worker is gone", "result", resultNone, "error", err)
		return nil
	case impossible != nil:
		if !answered { // by [Misconfigured], who has nothing to undo
			abandon(impossible)
		}
		a.log.Info("worker cannot launch", "error", err) // which says besides what could not be undone
		return answerErr
	}
	return err
}

func ids(devices []eni.Device) []eni.ID {
	out := make([]eni.ID, 0, len(devices))
	for _, d := range devices {
		out = append(out, d.ID)
	}
	return out
}
