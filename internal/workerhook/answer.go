// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
)

// The pauses between attempts are drawn at random below these bounds: the hooks of a large group are answered together.
const (
	answerBase = time.Second
	answerCap  = 10 * time.Second
	// A heartbeat that is not taken comes again after beatBase and a random part of beatSpread. Workers that start together beat
	// together: without it the same ones are throttled each time, until their hooks are over.
	beatBase   = 2 * time.Second
	beatSpread = 18 * time.Second
)

// answer tells Auto Scaling, until it took it or the invocation ends, and logs what came of it. That nobody waits is no error: an
// earlier handling of the event has answered, or the hook's time is over.
func (a action) answer(ctx context.Context, r lifecycle.Result, more ...any) error {
	_, err := a.decide(ctx, r, more...)
	return err
}

// decide is answer, and reports whether Auto Scaling took it: then nobody else has decided otherwise.
func (a action) decide(ctx context.Context, r lifecycle.Result, more ...any) (taken bool, err error) {
	log, level := a.log.With(more...), slog.LevelInfo
	if r == lifecycle.Abandon {
		level = slog.LevelError
	}
	if a.hooks == nil {
		log.Log(ctx, level, "lifecycle action is answered by others", "result", r)
		return false, nil
	}
	ctx, cancel := shorter(ctx, margin)
	defer cancel()
	perhaps := false // an earlier try was taken, and its reply lost
	for tries := 0; ; tries++ {
		err = a.hooks.Complete(ctx, a.Action, r)
		switch {
		case err == nil, errors.Is(err, lifecycle.ErrNotWaiting) && perhaps:
			log.Log(ctx, level, "lifecycle action answered", "result", r)
			return true, nil
		case errors.Is(err, lifecycle.ErrNotWaiting):
			log.Info("lifecycle action waits no longer", "result", resultNone, "wanted", r)
			return false, nil
		case errors.Is(err, lifecycle.ErrRefused):
			return false, fmt.Errorf("%s of %s: %w", r, a.Instance, err)
		}
		perhaps = perhaps || !errors.Is(err, lifecycle.ErrNotTaken)
		delay := answerBase/10 + rand.N(min(answerCap, answerBase<<min(tries, 10)))
		log.Info("answer to be repeated", "error", err, "after", delay)
		if pause(ctx, delay) != nil {
			return false, fmt.Errorf("%s of %s: %w", r, a.Instance, err)
		}
	}
}

// beat keeps the hook open until the returned function is called: at once, for the event may have waited, and each
// [HeartbeatInterval]. The work goes on when nobody waits any longer: a hook whose time was over may have let the worker into service.
// What must not go on then is ended by lapsed.
func (a action) beat(ctx context.Context, lapsed func()) (stop func()) {
	if a.hooks == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			err, next := a.hooks.Heartbeat(ctx, a.Action), HeartbeatInterval
			switch {
			case errors.Is(err, lifecycle.ErrNotWaiting):
				a.log.Info("no more heartbeats: lifecycle action waits no longer")
				lapsed()
				return
			case err != nil && ctx.Err() == nil:
				a.log.Warn("heartbeat not taken", "error", err)
				next = beatBase + rand.N(beatSpread)
			}
			if pause(ctx, next) != nil {
				return
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// ask asks whether somebody waits, until Auto Scaling says so: nil means yes. What may pass is not taken for either.
func (a action) ask(ctx context.Context) error {
	for {
		err := a.hooks.Heartbeat(ctx, a.Action)
		if err == nil || errors.Is(err, lifecycle.ErrNotWaiting) || errors.Is(err, lifecycle.ErrRefused) {
			return err
		}
		a.log.Warn("heartbeat not taken", "error", err)
		if pause(ctx, beatBase+rand.N(beatSpread)) != nil {
			return err
		}
	}
}
