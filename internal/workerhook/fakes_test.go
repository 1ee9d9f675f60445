// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
	"github.com/multus-vpc/multus-vpc/internal/workerhook"
)

// stage is what a handler works on: workers, hooks and a drainer that do as they are told, and note when.
type stage struct {
	t     *testing.T
	began time.Time

	launch    func(context.Context) ([]eni.Device, error)
	terminate func(context.Context) error
	drain     func(context.Context) error
	orphans   []workereni.Orphan
	sweepErr  error
	refusals  []error // of Complete, one after the other
	beatErrs  []error // of Heartbeat, likewise
	returnErr error

	mu      sync.Mutex
	open    bool               // somebody waits for an answer
	lapse   time.Duration      // after which nobody does, heartbeats or not
	beats   []time.Duration    // since the beginning, those that were taken
	tried   int                // heartbeats
	givenUp bool               // a worker that cannot launch
	answer  []lifecycle.Result // that were taken
	steps   []string
	log     bytes.Buffer
}

func newStage(t *testing.T) *stage {
	return &stage{t: t, began: time.Now(), open: true, lapse: time.Hour}
}

// work is a step that takes long enough for the first heartbeat.
func (s *stage) work(name string) {
	synctest.Wait()
	s.step(name)
}

func (s *stage) step(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, fmt.Sprintf("%s at %s", name, time.Since(s.began).Round(time.Second)))
}

func (s *stage) Launch(ctx context.Context, q workereni.Request) ([]eni.Device, error) {
	s.work("launch " + string(q.Instance) + " of " + q.Group)
	devices, err := s.launch(ctx)
	if impossible, ok := errors.AsType[*workereni.ImpossibleError](err); ok && q.GiveUp != nil {
		s.givenUp = q.GiveUp(impossible)
		s.step("undo")
	}
	return devices, err
}

func (s *stage) Terminate(ctx context.Context, worker eni.InstanceID) error {
	s.work("terminate " + string(worker))
	return s.terminate(ctx)
}

func (s *stage) Sweep(_ context.Context, age time.Duration) ([]workereni.Orphan, error) {
	s.step("sweep older than " + age.String())
	return s.orphans, s.sweepErr
}

func (s *stage) Drain(ctx context.Context, worker eni.InstanceID, since time.Time) error {
	s.work(fmt.Sprintf("drain %s since %s", worker, since.UTC().Format(time.TimeOnly)))
	return s.drain(ctx)
}

func (s *stage) Return(_ context.Context, worker eni.InstanceID, since time.Time) error {
	s.work(fmt.Sprintf("return %s since %s", worker, since.UTC().Format(time.TimeOnly)))
	return s.returnErr
}

// waiting is whether the token's wait goes on. s.mu is held.
func (s *stage) waiting(a lifecycle.Action) bool {
	if a.Token != "token-1" || a.Hook != "hook" || a.Group != "group" {
		s.t.Errorf("a call for %+v", a)
	}
	return s.open && time.Since(s.began) < s.lapse
}

func (s *stage) Complete(ctx context.Context, a lifecycle.Action, r lifecycle.Result) error {
	if _, bounded := ctx.Deadline(); !bounded {
		s.t.Error("an answer without a deadline")
	}
	s.step("answer " + string(r))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refusals) > 0 {
		err := s.refusals[0]
		s.refusals = s.refusals[1:]
		if errors.Is(err, errLostReply) {
			s.open, s.answer = false, append(s.answer, r)
		}
		return err
	}
	if !s.waiting(a) {
		return fmt.Errorf("complete: %w", lifecycle.ErrNotWaiting)
	}
	s.open, s.answer = false, append(s.answer, r)
	return nil
}

var (
	errLostReply = errors.New("reply lost")
	errThrottled = fmt.Errorf("%w: Throttling", lifecycle.ErrNotTaken)
	errRefused   = fmt.Errorf("%w: not authorised", lifecycle.ErrRefused)
)

func (s *stage) Heartbeat(_ context.Context, a lifecycle.Action) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried++
	if len(s.beatErrs) > 0 {
		err := s.beatErrs[0]
		s.beatErrs = s.beatErrs[1:]
		return err
	}
	if !s.waiting(a) {
		return fmt.Errorf("heartbeat: %w", lifecycle.ErrNotWaiting)
	}
	s.beats = append(s.beats, time.Since(s.began).Round(time.Second))
	return nil
}

// handler has all parts; change takes some away.
func (s *stage) handler(change ...func(*workerhook.Config)) *workerhook.Handler {
	c := workerhook.Config{Workers: s, Hooks: s, Drainer: s, Log: slog.New(slog.NewJSONHandler(io.MultiWriter(&s.log, s.t.Output()), nil))}
	for _, f := range change {
		f(&c)
	}
	return workerhook.New(c)
}

// event is one of the hook that waits.
func event(tr lifecycle.Transition, change ...func(*lifecycle.Action)) lifecycle.Event {
	a := lifecycle.Action{
		Transition: tr, Instance: "i-0123456789abcdef0", Group: "group", Hook: "hook", Token: "token-1", Origin: lifecycle.EC2, Destination: lifecycle.Group,
	}
	if tr == lifecycle.Terminating {
		a.Origin, a.Destination = lifecycle.Group, lifecycle.EC2
	}
	for _, f := range change {
		f(&a)
	}
	return lifecycle.Event{ID: "event-1", Time: time.Now().Add(-7 * time.Second), Action: &a}
}

// handle runs one invocation of so long, and returns how long it took.
func (s *stage) handle(h *workerhook.Handler, e lifecycle.Event, invocation time.Duration) (time.Duration, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.t.Context(), invocation)
	defer cancel()
	err := h.Handle(ctx, e)
	if ctx.Err() != nil {
		s.t.Errorf("the invocation was over after %s, and Handle came back with %v", time.Since(began), err)
	}
	return time.Since(began), err
}

// decision is the one line of the log that has a result.
func (s *stage) decision() (d struct {
	Level, Msg, Result, Wanted, Drained, Error, Instance, Group, Hook, Transition, Origin, Destination string
	Reasons, ENIs                                                                                      []string
},
) {
	s.t.Helper()
	found := 0
	for line := range strings.Lines(s.log.String()) {
		if !strings.Contains(line, `"result":`) {
			continue
		}
		found++
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			s.t.Fatal(err)
		}
	}
	if found > 1 {
		s.t.Errorf("%d lines with a result", found)
	}
	return d
}

// until works until the time for it is over.
func until(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("%w: EC2 throttles", workereni.ErrUnfinished)
}

func (s *stage) wantSteps(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.steps, want) {
		s.t.Errorf("steps\n%s\nwant\n%s", strings.Join(s.steps, "\n"), strings.Join(want, "\n"))
	}
}

func device(id eni.ID) (d eni.Device) {
	d.ID = id
	return d
}
