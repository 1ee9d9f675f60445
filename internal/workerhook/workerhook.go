// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package workerhook does what an event of an Auto Scaling group asks for, and answers the group's lifecycle hook: workers that launch get
// their ENIs, workers that end are drained and leave none behind, and on schedule what was left is swept. The Lambda is made of it.
//
// It promises an answer to every hook that it can decide on, heartbeats until then, and an error instead of an answer where trying
// again helps: before the invocation ends, so that the next one goes on. An answer names its wait by the event's token, so that neither
// a repeated event nor a late one touches a worker in service. How ENIs are given is package workereni's, how pods leave is a
// [Drainer]'s.
package workerhook

import (
	"context"
	"log/slog"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// Workers gives ENIs and takes them: [*workereni.Flow], whose errors are relied on, or [Misconfigured].
type Workers interface {
	Launch(ctx context.Context, q workereni.Request) ([]eni.Device, error)
	Terminate(ctx context.Context, worker eni.InstanceID) error
	Sweep(ctx context.Context, age time.Duration) ([]workereni.Orphan, error)
}

// Hooks answers. Its errors match [lifecycle.ErrNotWaiting] or [lifecycle.ErrRefused] where trying again is of no use, and
// [lifecycle.ErrNotTaken] where it is certain that nothing came of the call.
type Hooks interface {
	Complete(ctx context.Context, a lifecycle.Action, r lifecycle.Result) error
	Heartbeat(ctx context.Context, a lifecycle.Action) error
}

// Drainer has the pods of a worker that ends leave it. It returns when they have, when its own time since the event is over, or when
// ctx ends. Its error never keeps a worker from ending.
type Drainer interface {
	Drain(ctx context.Context, worker eni.InstanceID, since time.Time) error
	// Return lets pods back onto a worker that was drained into the warm pool and has come out of it. Nor does its error keep it from that.
	Return(ctx context.Context, worker eni.InstanceID, since time.Time) error
}

// Config makes a [Handler].
type Config struct {
	Workers Workers
	// Hooks is nil where others answer, as EKS does for managed node groups.
	Hooks Hooks
	// Drainer is nil where workers end with their pods on them.
	Drainer Drainer
	// Log gets a line for every decision; nil drops them.
	Log *slog.Logger
}

// Handler handles events. Its methods may be called concurrently, also for the same event.
type Handler struct {
	workers Workers
	hooks   Hooks
	drainer Drainer
	log     *slog.Logger
}

// New makes a handler.
func New(c Config) *Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{workers: c.Workers, hooks: c.Hooks, drainer: c.Drainer, log: c.Log}
}

// Results in the log, beside those of package lifecycle.
const (
	resultNone  = "NONE"  // nobody waits for an answer
	resultRetry = "RETRY" // the event is to be handled again
)

const (
	// HeartbeatInterval is a fifth of the 300 s that the hooks of the AWS samples and of our templates allow.
	HeartbeatInterval = 60 * time.Second
	// answerTime is what is left of the invocation when the work stops: for the answer and for undoing.
	answerTime = 30 * time.Second
	// terminateTime is what a drain leaves of the time for work, for the ENIs.
	terminateTime = 60 * time.Second
	// margin is what is left of the invocation when the answer is given up: for saying so.
	margin = 2 * time.Second
	// sweepAge is how long ago a worker must have been launched for its ENIs to be orphans: longer than a launch and its repetitions take.
	sweepAge = time.Hour
)

// Handle does what the event asks for. The time until the deadline of ctx is the invocation's: work stops a while before. With an error the
// event is to be handled again: it goes on from where this one stopped.
func (h *Handler) Handle(ctx context.Context, e lifecycle.Event) error {
	switch {
	case e.Action == nil:
		return h.sweep(ctx)
	case e.Action.Transition == lifecycle.Launching:
		return h.of(*e.Action).launch(ctx, e.Time)
	}
	return h.of(*e.Action).terminate(ctx, e.Time)
}

// action is the handling of one lifecycle action.
type action struct {
	*Handler
	lifecycle.Action
	log *slog.Logger // that says which one
}

func (h *Handler) of(a lifecycle.Action) action {
	return action{Handler: h, Action: a, log: h.log.With(
		"transition", a.Transition, "instance", a.Instance, "group", a.Group, "hook", a.Hook, "origin", a.Origin, "destination", a.Destination,
	)}
}

// shorter is ctx, ended so much before its deadline, though not by more than a quarter of what is left.
func shorter(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-min(by, time.Until(end)/4)))
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
