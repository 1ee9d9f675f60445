// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
	"github.com/multus-vpc/multus-vpc/internal/workerhook"
)

func contains(err error, words string) bool { return strings.Contains(err.Error(), words) }

// TestHowATerminationGoes: whatever comes of it, the instance may end.
func TestHowATerminationGoes(t *testing.T) {
	t.Parallel()
	const worker = "i-0123456789abcdef0"
	fine := func(context.Context) error { return nil }
	refuse := func(context.Context) error { return fmt.Errorf("take: %w", eni.ErrUnauthorized) }
	slow := func(context.Context) error { <-time.After(100 * time.Second); return nil }
	toTheEnd := func(ctx context.Context) error { return until(ctx) }
	intoThePool := func(a *lifecycle.Action) { a.Destination = lifecycle.WarmPool }
	for name, tc := range map[string]struct {
		drain, terminate func(context.Context) error
		action           func(*lifecycle.Action)
		config           func(*workerhook.Config)
		closed           bool // nobody waits
		beatErrs         []error
		steps            []string
		fails            string
		drained          string
		beats            int
	}{
		"emptied": {
			drain: slow, terminate: fine, drained: "yes", beats: 2,
			steps: []string{"drain " + worker + " since 23:59:53 at 0s", "terminate " + worker + " at 1m40s", "answer CONTINUE at 1m40s"},
		},
		"no drainer": {
			terminate: fine, config: func(c *workerhook.Config) { c.Drainer = nil }, beats: 1,
			steps: []string{"terminate " + worker + " at 0s", "answer CONTINUE at 0s"},
		},
		"the drain gives up": {
			drain: func(context.Context) error { return errors.New("budget allows no more disruptions") }, terminate: fine, beats: 1,
			drained: "no: budget allows no more disruptions",
			steps:   []string{"drain " + worker + " since 23:59:53 at 0s", "terminate " + worker + " at 0s", "answer CONTINUE at 0s"},
		},
		"the drain hangs": {
			drain: toTheEnd, terminate: fine, drained: "no: not finished in time: EC2 throttles", beats: 14,
			steps: []string{"drain " + worker + " since 23:59:53 at 0s", "terminate " + worker + " at 13m30s", "answer CONTINUE at 13m30s"},
		},
		"ENIs stay": {
			drain: fine, terminate: refuse, fails: "not authorised", drained: "yes", beats: 1,
			steps: []string{"drain " + worker + " since 23:59:53 at 0s", "terminate " + worker + " at 0s", "answer CONTINUE at 0s"},
		},
		"the time is over": {
			drain: fine, terminate: toTheEnd, fails: "not finished in time", drained: "yes", beats: 15,
			steps: []string{"drain " + worker + " since 23:59:53 at 0s", "terminate " + worker + " at 0s", "answer CONTINUE at 14m30s"},
		},
		"nobody waits": {
			drain: fine, terminate: fine, closed: true,
			steps: []string{"drain " + worker + " since 23:59:53 at 0s", "terminate " + worker + " at 0s", "answer CONTINUE at 0s"},
		},
		"others answer": {
			drain: fine, terminate: fine, config: unanswered, drained: "yes",
			steps: []string{"drain " + worker + " since 23:59:53 at 0s", "terminate " + worker + " at 0s"},
		},
		"out of the warm pool": {
			terminate: fine, action: func(a *lifecycle.Action) { a.Origin = lifecycle.WarmPool }, beats: 1,
			steps: []string{"terminate " + worker + " at 0s", "answer CONTINUE at 0s"},
		},
		"long back into the warm pool": {
			action: intoThePool, closed: true,
		},
		"long back into the warm pool, throttled": {
			drain: fine, action: intoThePool, closed: true, beatErrs: []error{errThrottled, errThrottled},
		},
		"back into the warm pool": {
			drain: fine, action: intoThePool, drained: "yes", beats: 2, // the first asks whether anybody waits
			steps: []string{"drain " + worker + " since 23:59:53 at 0s", "answer CONTINUE at 0s"},
		},
		"back into the warm pool, no word of who waits": { // which may be nobody, with the worker in service
			drain: fine, action: intoThePool, beatErrs: slices.Repeat([]error{errThrottled}, 1000), fails: "Throttling",
			steps: []string{"answer CONTINUE at 14m30s"},
		},
		"back into the warm pool, without permission to ask": {
			drain: fine, action: intoThePool, beatErrs: []error{errRefused}, fails: "not authorised",
			steps: []string{"answer CONTINUE at 0s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				s.drain, s.terminate, s.open, s.beatErrs = tc.drain, tc.terminate, !tc.closed, tc.beatErrs
				e := event(lifecycle.Terminating)
				if tc.action != nil {
					tc.action(e.Action)
				}
				var changes []func(*workerhook.Config)
				if tc.config != nil {
					changes = append(changes, tc.config)
				}
				_, err := s.handle(s.handler(changes...), e, quarter)
				wantError(t, err, tc.fails)
				s.wantSteps(tc.steps...)
				d := s.decision()
				want := "CONTINUE"
				if tc.closed {
					want = "NONE"
				}
				if d.Result != want || !tc.closed && d.Drained != tc.drained {
					t.Errorf("logged %+v, want %s, drained %q", d, want, tc.drained)
				}
				if len(s.beats) != tc.beats {
					t.Errorf("heartbeats at %s, want %d", s.beats, tc.beats)
				}
				if answers := len(s.answer); answers != 1 && !tc.closed && name != "others answer" {
					t.Errorf("%d answers", answers)
				}
			})
		})
	}
}

// TestADrainEndsWithItsWait: whoever ended it may have the worker in service again, out of the warm pool, with new pods.
func TestADrainEndsWithItsWait(t *testing.T) {
	t.Parallel()
	const worker = "i-0123456789abcdef0"
	for to, steps := range map[lifecycle.Place][]string{
		lifecycle.WarmPool: {"answer CONTINUE at 2m0s"},
		lifecycle.EC2:      {"terminate " + worker + " at 2m0s", "answer CONTINUE at 2m10s"},
	} {
		t.Run(string(to), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				s.lapse = 90 * time.Second
				s.drain = func(ctx context.Context) error { // a budget never allows it
					<-ctx.Done()
					return context.Cause(ctx)
				}
				s.terminate = func(ctx context.Context) error { // the ENIs go all the same
					<-time.After(10 * time.Second)
					return ctx.Err()
				}
				_, err := s.handle(s.handler(), event(lifecycle.Terminating, func(a *lifecycle.Action) { a.Destination = to }), quarter)
				wantError(t, err, "")
				s.wantSteps(append([]string{"drain " + worker + " since 23:59:53 at 0s"}, steps...)...)
			})
		})
	}
}

func TestASweepSaysWhatItDid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.orphans = []workereni.Orphan{
			{Device: device("eni-1")},
			{Device: device("eni-2"), Kept: "its worker i-1 is running"},
			{Device: device("eni-3"), Err: eni.ErrUnauthorized},
		}
		_, err := s.handle(s.handler(), lifecycle.Event{ID: "event-1"}, quarter)
		if !errors.Is(err, eni.ErrUnauthorized) || !contains(err, "eni-3") {
			t.Errorf("error %v", err)
		}
		s.wantSteps("sweep older than 1h0m0s at 0s")
		for _, words := range []string{`"eni":"eni-1"`, "its worker i-1 is running", `"deleted":1,"kept":1`} {
			if !strings.Contains(s.log.String(), words) {
				t.Errorf("the log lacks %s", words)
			}
		}
		s.orphans, s.sweepErr = nil, errors.New("EC2 is away")
		if _, err := s.handle(s.handler(), lifecycle.Event{ID: "event-1"}, quarter); !errors.Is(err, s.sweepErr) {
			t.Errorf("error %v", err)
		}
		if s.tried != 0 || slices.Contains(s.steps, "answer CONTINUE at 0s") {
			t.Error("a schedule has no hook")
		}
	})
}
