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

const quarter = 15 * time.Minute

func unanswered(c *workerhook.Config) { c.Hooks = nil }

// TestHowALaunchIsAnswered: every outcome of a launch by every way in which an answer may be met.
func TestHowALaunchIsAnswered(t *testing.T) {
	t.Parallel()
	impossible := fmt.Errorf("give i-1 its ENIs: %w", errors.Join(
		&workereni.ImpossibleError{Reasons: []string{"no subnet in us-west-2c", "sg-1 is of another VPC"}}, errors.New("undo: throttled")))
	outcomes := map[string]func(context.Context) ([]eni.Device, error){
		"done": func(context.Context) ([]eni.Device, error) {
			return []eni.Device{device("eni-1"), device("eni-2")}, nil
		},
		"impossible": func(context.Context) ([]eni.Device, error) { return nil, impossible },
		"gone": func(context.Context) ([]eni.Device, error) {
			return nil, fmt.Errorf("give: %w", workereni.ErrGone)
		},
		"unfinished": func(ctx context.Context) ([]eni.Device, error) { return nil, until(ctx) },
	}
	for _, tc := range []struct {
		outcome  string
		met      string
		change   func(*stage)
		config   func(*workerhook.Config)
		answered []lifecycle.Result // that Auto Scaling took; ENIs in place are undone after ABANDON alone
		logged   string             // the result
		fails    string             // the error has it; empty for none
		sooner   time.Duration      // than the end of the invocation: at least so much
	}{
		{outcome: "done", met: "it waits", answered: []lifecycle.Result{"CONTINUE"}, logged: "CONTINUE"},
		{outcome: "done", met: "it waits no longer", change: func(s *stage) { s.open = false }, logged: "NONE"},
		{outcome: "done", met: "throttled three times", change: func(s *stage) { s.refusals = []error{errThrottled, errThrottled, errThrottled} }, answered: []lifecycle.Result{"CONTINUE"}, logged: "CONTINUE"},
		{outcome: "done", met: "the reply is lost", change: func(s *stage) { s.refusals = []error{errLostReply} }, answered: []lifecycle.Result{"CONTINUE"}, logged: "CONTINUE"},
		{outcome: "done", met: "refused", change: func(s *stage) { s.refusals = []error{errRefused} }, fails: "not authorised"},
		{outcome: "done", met: "away", change: func(s *stage) { s.refusals = slices.Repeat([]error{errThrottled}, 1000) }, fails: "Throttling", sooner: 2 * time.Second},
		{outcome: "done", met: "others answer", config: unanswered, logged: "CONTINUE"},
		{outcome: "impossible", met: "it waits", answered: []lifecycle.Result{"ABANDON"}, logged: "ABANDON"},
		{outcome: "impossible", met: "it waits no longer", change: func(s *stage) { s.open = false }, logged: "NONE"},
		{outcome: "impossible", met: "the reply is lost", change: func(s *stage) { s.refusals = []error{errLostReply} }, answered: []lifecycle.Result{"ABANDON"}, logged: "ABANDON"},
		{outcome: "impossible", met: "throttled, and then it waits no longer", change: func(s *stage) { s.refusals, s.open = []error{errThrottled}, false }, logged: "NONE"}, // another invocation has answered
		{outcome: "impossible", met: "refused", change: func(s *stage) { s.refusals = []error{errRefused} }, fails: "not authorised"},
		{outcome: "impossible", met: "others answer", config: unanswered, logged: "ABANDON"},
		{outcome: "gone", met: "it waits", logged: "NONE"},
		{outcome: "gone", met: "others answer", config: unanswered, logged: "NONE"},
		{outcome: "unfinished", met: "it waits", fails: "not finished in time", sooner: 30 * time.Second},
		{outcome: "unfinished", met: "it waits no longer", change: func(s *stage) { s.open = false }, fails: "not finished in time", sooner: 30 * time.Second},
		{outcome: "unfinished", met: "others answer", config: unanswered, fails: "not finished in time", sooner: 30 * time.Second},
	} {
		t.Run(tc.outcome+"/"+tc.met, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				s.launch = outcomes[tc.outcome]
				if tc.change != nil {
					tc.change(s)
				}
				var changes []func(*workerhook.Config)
				if tc.config != nil {
					changes = append(changes, tc.config)
				}
				took, err := s.handle(s.handler(changes...), event(lifecycle.Launching), quarter)
				wantError(t, err, tc.fails)
				if left := quarter - took; left < tc.sooner {
					t.Errorf("came back %s before the end, want %s", left, tc.sooner)
				}
				if !slices.Equal(s.answer, tc.answered) {
					t.Errorf("answered %q, want %q", s.answer, tc.answered)
				}
				if abandoned := slices.Equal(tc.answered, []lifecycle.Result{"ABANDON"}); s.givenUp != abandoned {
					t.Errorf("given up %t, want %t", s.givenUp, abandoned)
				}
				if tc.outcome == "impossible" && !strings.HasPrefix(s.steps[len(s.steps)-1], "undo") {
					t.Errorf("undone before the answer: %q", s.steps)
				}
				d := s.decision()
				if d.Result != tc.logged {
					t.Errorf("logged result %q, want %q", d.Result, tc.logged)
				}
				if tc.logged != "" && (d.Instance == "" || d.Group != "group" || d.Hook != "hook" || d.Transition != string(lifecycle.Launching)) {
					t.Errorf("the line lacks what it is about: %+v", d)
				}
				if tc.outcome == "impossible" && tc.logged == "ABANDON" && (len(d.Reasons) != 2 || d.Level != "ERROR") {
					t.Errorf("reasons %q at level %s", d.Reasons, d.Level)
				}
				if tc.outcome == "done" && tc.logged == "CONTINUE" && len(d.ENIs) != 2 {
					t.Errorf("ENIs %q", d.ENIs)
				}
			})
		})
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !contains(err, want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestHeartbeatsKeepTheHookOpen(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*stage)
		taken  []time.Duration
		tried  [2]int // at least and at most
	}{
		"each minute and at once": {taken: []time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute}, tried: [2]int{4, 4}},
		"none once nobody waits":  {change: func(s *stage) { s.lapse = 90 * time.Second }, taken: []time.Duration{0, time.Minute}, tried: [2]int{3, 3}},
		"soon after a failure":    {change: func(s *stage) { s.beatErrs = slices.Repeat([]error{errThrottled}, 1000) }, tried: [2]int{10, 101}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				worked := false
				s.launch = func(ctx context.Context) ([]eni.Device, error) {
					select {
					case <-time.After(200 * time.Second):
						worked = true
						return nil, nil
					case <-ctx.Done():
						return nil, until(ctx)
					}
				}
				if tc.change != nil {
					tc.change(s)
				}
				if _, err := s.handle(s.handler(), event(lifecycle.Launching), quarter); err != nil || !worked {
					t.Errorf("worked to the end %t, error %v", worked, err)
				}
				if !slices.Equal(s.beats, tc.taken) || s.tried < tc.tried[0] || s.tried > tc.tried[1] {
					t.Errorf("%d heartbeats, taken at %s; want %d, %s", s.tried, s.beats, tc.tried, tc.taken)
				}
			})
		})
	}
}

// TestAShortInvocationWorksToo: the function's timeout may be less than what is set aside.
func TestAShortInvocationWorksToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.launch = func(ctx context.Context) ([]eni.Device, error) {
			end, _ := ctx.Deadline()
			if left := time.Until(end); left < 15*time.Second {
				t.Errorf("%s for the work", left)
			}
			return nil, nil
		}
		if _, err := s.handle(s.handler(), event(lifecycle.Launching), 20*time.Second); err != nil {
			t.Error(err)
		}
	})
}

// TestAMisconfiguredFunctionAbandonsWithReasons, and lets workers end.
func TestAMisconfiguredFunctionAbandonsWithReasons(t *testing.T) {
	t.Parallel()
	wrong := errors.Join(errors.New("Owner: is missing"), errors.New("SubnetIds: none is given"))
	for tr, want := range map[lifecycle.Transition]lifecycle.Result{lifecycle.Launching: "ABANDON", lifecycle.Terminating: "CONTINUE"} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t)
			s.drain = func(context.Context) error { return nil }
			h := s.handler(func(c *workerhook.Config) { c.Workers = workerhook.Misconfigured{Err: wrong} })
			_, err := s.handle(h, event(tr), quarter)
			if (err == nil) != (tr == lifecycle.Launching) {
				t.Errorf("%s: %v", tr, err)
			}
			if d := s.decision(); d.Result != string(want) || tr == lifecycle.Launching && len(d.Reasons) != 2 {
				t.Errorf("%s: %+v", tr, d)
			}
			if !slices.Equal(s.answer, []lifecycle.Result{want}) {
				t.Errorf("%s: answered %q", tr, s.answer)
			}
			if _, err := s.handle(h, lifecycle.Event{}, quarter); !errors.Is(err, wrong) {
				t.Errorf("swept: %v", err)
			}
		})
	}
}

// TestAWorkerOutOfTheWarmPoolTakesPodsBack, once it has its ENIs; whether it could does not keep it from going into service.
func TestAWorkerOutOfTheWarmPoolTakesPodsBack(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		from, to lifecycle.Place
		err      error
		returns  bool
	}{
		"out of the pool":            {lifecycle.WarmPool, lifecycle.Group, nil, true},
		"out of the pool, no answer": {lifecycle.WarmPool, lifecycle.Group, errors.New("the API is away"), true},
		"into the pool":              {lifecycle.EC2, lifecycle.WarmPool, nil, false},
		"new":                        {lifecycle.EC2, lifecycle.Group, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t)
				s.launch, s.returnErr = func(context.Context) ([]eni.Device, error) { return nil, nil }, tc.err
				e := event(lifecycle.Launching)
				e.Action.Origin, e.Action.Destination = tc.from, tc.to
				if _, err := s.handle(s.handler(), e, quarter); err != nil {
					t.Error(err)
				}
				var steps []string
				for _, step := range s.steps {
					verb, _, _ := strings.Cut(step, " ")
					steps = append(steps, verb)
				}
				want := []string{"launch", "answer"}
				if tc.returns {
					want = []string{"launch", "return", "answer"}
				}
				if !slices.Equal(steps, want) || !slices.Equal(s.answer, []lifecycle.Result{lifecycle.Continue}) {
					t.Errorf("steps %q, answers %q", steps, s.answer)
				}
			})
		})
	}
}
