// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/drain"
)

var errAway = errors.New("connection refused")

func stays(p *cluster.Resident)  { p.DaemonSet = true }
func mirror(p *cluster.Resident) { p.Mirror = true }
func ended(p *cluster.Resident)  { p.Ended = true }
func takes(d time.Duration) func(*cluster.Resident) {
	return func(p *cluster.Resident) { p.Grace = d }
}

func TestDrain(t *testing.T) {
	t.Parallel()
	refuse := func(until, after time.Duration) func(cluster.Resident, time.Duration, int) error {
		return func(_ cluster.Resident, at time.Duration, _ int) error {
			if at < until {
				return fmt.Errorf("evict: %w", &cluster.RefusedError{Why: "The disruption budget upf needs 2 healthy pods and has 2 currently", After: after})
			}
			return nil
		}
	}
	failing := func(prefix string, until time.Duration, err error) func(*world) {
		return func(w *world) {
			w.before = func(_ context.Context, call string) error {
				if strings.HasPrefix(call, prefix) && time.Since(w.began) < until {
					return err
				}
				return nil
			}
		}
	}
	for name, tc := range map[string]struct {
		pods  []cluster.Resident
		world func(*world)
		late  time.Duration // the event's age
		force bool

		after  time.Duration // when it returns
		err    string
		there  []string
		evicts []string // calls
	}{
		"no node":            {world: func(w *world) { w.homes = nil }, pods: []cluster.Resident{pod("a")}, there: []string{"a"}},
		"an empty node":      {},
		"a node that goes":   {world: failing("cordon", time.Hour, cluster.ErrGone)},
		"pods end":           {pods: []cluster.Resident{pod("a"), pod("b", takes(30*time.Second))}, after: 30 * time.Second, evicts: []string{"0s evict a", "0s evict b"}},
		"some stay":          {pods: []cluster.Resident{pod("a", stays), pod("b", mirror), pod("c", ended)}, there: []string{"a", "b", "c"}},
		"a pod ends already": {pods: []cluster.Resident{pod("a")}, world: leaves("a", 8*time.Second), after: 8 * time.Second},
		"a pod is gone":      {pods: []cluster.Resident{pod("a")}, world: func(w *world) { w.evict = goneAfter(w) }, after: 2 * time.Second, evicts: []string{"0s evict a"}},
		"a budget refuses":   {pods: []cluster.Resident{pod("a")}, world: func(w *world) { w.evict = refuse(15*time.Second, 0) }, after: 28 * time.Second, evicts: []string{"0s evict a", "6s evict a", "12s evict a", "18s evict a"}},
		"it says for how long": {
			pods: []cluster.Resident{pod("a")}, world: func(w *world) { w.evict = refuse(15*time.Second, 20*time.Second) }, after: 30 * time.Second,
			evicts: []string{"0s evict a", "20s evict a"},
		},
		"it says an hour": {
			pods: []cluster.Resident{pod("a")}, world: func(w *world) { w.evict = refuse(15*time.Second, time.Hour) }, after: 70 * time.Second,
			evicts: []string{"0s evict a", "1m0s evict a"},
		},
		"a budget refuses for ever": {
			pods: []cluster.Resident{pod("a"), pod("b", takes(time.Hour))},
			world: func(w *world) {
				w.evict = func(p cluster.Resident, at time.Duration, _ int) error {
					if p.Name == "b" {
						return nil
					}
					return refuse(time.Hour, time.Minute)(p, at, 1)
				}
			},
			after: 10 * time.Minute, there: []string{"a", "b"},
			err: "drain the node of i-0123456789abcdef0: not done in 10m0s: 2 pods are on the node: " +
				"core/a (The disruption budget upf needs 2 healthy pods and has 2 currently), core/b (has not ended yet)",
		},
		"the API is away for ever":     {pods: []cluster.Resident{pod("a")}, world: failing("", time.Hour, errAway), after: 10 * time.Minute, err: "not done in 10m0s: connection refused", there: []string{"a"}},
		"the API is away for a minute": {pods: []cluster.Resident{pod("a")}, world: failing("", time.Minute, errAway), after: 80 * time.Second},
		"it is away at the end":        {pods: []cluster.Resident{pod("a")}, world: func(w *world) { w.before = awayAfter(w, 3*time.Second) }, after: 10 * time.Minute, err: "connection refused: core/a (has not ended yet)"},
		"access is denied":             {pods: []cluster.Resident{pod("a")}, world: failing("", time.Hour, cluster.ErrDenied), after: 70 * time.Second, err: "the Kubernetes API denies access", there: []string{"a"}},
		"access is denied, forced":     {pods: []cluster.Resident{pod("a")}, world: failing("", time.Hour, cluster.ErrDenied), force: true, after: 70 * time.Second, err: "the Kubernetes API denies access", there: []string{"a"}},
		"access is denied at first":    {pods: []cluster.Resident{pod("a")}, world: failing("", 30*time.Second, cluster.ErrDenied), after: 40 * time.Second},
		"the event is late":            {pods: []cluster.Resident{pod("a")}, late: 9*time.Minute + 55*time.Second, after: 5 * time.Second, err: "core/a (has not ended yet)", there: []string{"a"}},
		"the event is too late":        {pods: []cluster.Resident{pod("a")}, late: time.Hour, err: "not done in 10m0s", there: []string{"a"}},
		"the kubelet is dead": {
			pods:  []cluster.Resident{pod("a"), pod("b")},
			world: func(w *world) { w.noKubelet = true; leaves("b", -time.Hour)(w) }, after: 70 * time.Second, there: []string{"a", "b"},
		},
		"forced": {
			pods:  []cluster.Resident{pod("a", takes(time.Hour)), pod("b"), pod("c", stays)},
			world: func(w *world) { w.evict = refuse(time.Hour, 0) }, force: true, after: 10*time.Minute + 30*time.Second, there: []string{"c"},
		},
		"forced, a pod that ends slowly": {
			pods: []cluster.Resident{pod("a", takes(time.Hour))}, force: true, after: 10*time.Minute + 30*time.Second, evicts: []string{"0s evict a"},
		},
		"forced, with a dead kubelet": {
			pods: []cluster.Resident{pod("a", takes(time.Hour))}, world: func(w *world) { w.noKubelet = true }, force: true,
			after: 10*time.Minute + 45*time.Second, err: "core/a (has not ended yet)", there: []string{"a"},
		},
		"forced, without the right": {
			pods: []cluster.Resident{pod("a", takes(time.Hour))}, world: failing("delete", time.Hour, fmt.Errorf("delete: %w", cluster.ErrDenied)), force: true,
			after: 10*time.Minute + 45*time.Second, err: "the Kubernetes API denies access: core/a (has not ended yet)", there: []string{"a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tc.pods...)
				if tc.world != nil {
					tc.world(w)
				}
				action := drain.Continue
				if tc.force {
					action = drain.Force
				}
				began := time.Now()
				err := w.flow(func(c *drain.Config) { c.OnTimeout = action }).Drain(t.Context(), worker, began.Add(-tc.late))
				if got := time.Since(began); got != tc.after {
					t.Errorf("took %s, want %s", got, tc.after)
				}
				if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %q", err, tc.err)
				}
				if errors.Is(err, drain.ErrUnfinished) {
					t.Error("the caller had time")
				}
				if diff := cmp.Diff(tc.there, w.there()); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
				got := w.happened("evict")
				slices.Sort(got)
				slices.Sort(tc.evicts)
				if diff := cmp.Diff(tc.evicts, got); tc.evicts != nil && diff != "" {
					t.Errorf("evictions (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// leaves is a pod that was told to end before, and has so long.
func leaves(name string, in time.Duration) func(*world) {
	return func(w *world) {
		p := w.pods["uid-"+name]
		p.Leaves = w.began.Add(in)
		w.add(p)
	}
}

// goneAfter lets a pod vanish while its eviction is asked for.
func goneAfter(w *world) func(cluster.Resident, time.Duration, int) error {
	return func(p cluster.Resident, _ time.Duration, _ int) error {
		delete(w.pods, p.UID)
		return cluster.ErrGone
	}
}

func awayAfter(w *world, d time.Duration) func(context.Context, string) error {
	return func(context.Context, string) error {
		if time.Since(w.began) > d {
			return errAway
		}
		return nil
	}
}

// TestAnAPIThatHangsEndsWithTheDeadline: a call that only its context ends.
func TestAnAPIThatHangsEndsWithTheDeadline(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"homes", "cordon", "list", "evict"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, pod("a"), pod("b"))
				w.before = func(ctx context.Context, c string) error {
					if strings.HasPrefix(c, call) {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				err := w.flow().Drain(t.Context(), worker, time.Now())
				if got := time.Since(w.began); got != 10*time.Minute || err == nil || !strings.Contains(err.Error(), "not done in 10m0s") {
					t.Errorf("%v after %s", err, got)
				}
			})
		})
	}
}

// TestACallerWithLessTimeComesBack: the next call goes on.
func TestACallerWithLessTimeComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pod("a", takes(time.Minute)))
		f := w.flow(force)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := f.Drain(ctx, worker, w.began)
		failure, ok := errors.AsType[*drain.Error](err)
		if !errors.Is(err, drain.ErrUnfinished) || !errors.Is(err, context.DeadlineExceeded) || !ok || len(failure.Left) != 1 || time.Since(w.began) != 20*time.Second {
			t.Fatalf("got %v after %s", err, time.Since(w.began))
		}
		if err := f.Drain(t.Context(), worker, w.began); err != nil || time.Since(w.began) != time.Minute {
			t.Errorf("got %v after %s", err, time.Since(w.began))
		}
		want := []string{"0s evict a"}
		if diff := cmp.Diff(want, w.happened("evict")); diff != "" {
			t.Error(diff)
		}
		if len(w.happened("cordon")) != 1 || len(w.happened("delete")) != 0 {
			t.Errorf("calls: %q", w.calls)
		}
	})
}

// TestAnOldListDoesNotSayThatTheNodeIsEmpty: only a fresh one does, and what it shows is evicted.
func TestAnOldListDoesNotSayThatTheNodeIsEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pod("a"))
		w.cache = []cluster.Resident{}
		if err := w.flow().Drain(t.Context(), worker, w.began); err != nil || len(w.there()) != 0 {
			t.Errorf("got %v, left %v", err, w.there())
		}
	})
}

// TestAnOldListCausesNoStorm: a pod that ended is shown for a while, and a new one of its name runs elsewhere.
func TestAnOldListCausesNoStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cache = []cluster.Resident{pod("a")}
		err := w.flow().Drain(t.Context(), worker, w.began)
		if n := len(w.happened("evict")); err == nil || n > 110 { // each 6 s in ten minutes
			t.Errorf("%v, %d evictions", err, n)
		}
	})
}

// TestANodeOfTheSameNameIsAnotherOne: the instance dies under the drain, and its address, so its node's name, becomes another one's.
func TestANodeOfTheSameNameIsAnotherOne(t *testing.T) {
	t.Parallel()
	for name, config := range map[string][]func(*drain.Config){"evicted": nil, "by force": {force}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, pod("guarded"))
				w.evict = func(cluster.Resident, time.Duration, int) error { return &cluster.RefusedError{Why: "budget"} }
				after := time.Minute
				if config != nil {
					after = 10*time.Minute - time.Second // just before its time is over
				}
				time.AfterFunc(after, func() {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.owner = "i-0another"
					clear(w.pods)
					w.add(pod("of-the-next"))
				})
				if err := w.flow(config...).Drain(t.Context(), worker, time.Now()); err != nil {
					t.Error(err)
				}
				for _, call := range []string{"evict of-the-next", "delete of-the-next"} {
					if got := w.happened(call); len(got) > 0 {
						t.Errorf("%q", got)
					}
				}
			})
		})
	}
}

// TestPodsThatComeLateGoToo: the scheduler had placed one before the node was cordoned.
func TestPodsThatComeLateGoToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, pod("a"))
		time.AfterFunc(5*time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.add(pod("b"))
		})
		if err := w.flow().Drain(t.Context(), worker, w.began); err != nil || len(w.there()) != 0 {
			t.Errorf("got %v, left %v", err, w.there())
		}
	})
}

// TestManyPodsTwiceAtOnce: two drains of a full node, a few evictions at a time.
func TestManyPodsTwiceAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 110 {
			w.add(pod(fmt.Sprintf("p-%03d", i)))
		}
		w.limit = 20
		w.before = func(ctx context.Context, call string) error {
			if !strings.HasPrefix(call, "evict") {
				return nil
			}
			select {
			case <-time.After(100 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := w.flow().Drain(t.Context(), worker, w.began); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if left := w.there(); len(left) != 0 {
			t.Errorf("left %v", left)
		}
		if took := time.Since(w.began); took > 20*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// TestAKilledDrainIsTakenUpAtAnyPoint: the caller ends before or after each of the calls, and calls again.
func TestAKilledDrainIsTakenUpAtAnyPoint(t *testing.T) {
	t.Parallel()
	for _, action := range []drain.Action{drain.Continue, drain.Force} {
		for n := 1; ; n++ {
			var calls int
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, pod("a"), pod("b", takes(time.Minute)), pod("c", stays), pod("d", takes(time.Hour)))
				ctx, kill := context.WithCancel(t.Context())
				defer kill()
				w.before = func(context.Context, string) error {
					w.mu.Lock()
					defer w.mu.Unlock()
					if len(w.calls) == n {
						kill()
					}
					return nil
				}
				w.evict = func(p cluster.Resident, after time.Duration, _ int) error {
					if p.Name == "d" && action == drain.Force || after < 20*time.Second {
						return &cluster.RefusedError{Why: "not yet"}
					}
					return nil
				}
				config := func(c *drain.Config) { c.OnTimeout, c.Timeout = action, 2*time.Minute }
				if err := w.flow(config).Drain(ctx, worker, w.began); errors.Is(err, drain.ErrUnfinished) {
					err = w.flow(config).Drain(t.Context(), worker, w.began)
					if (err == nil) != (action == drain.Force) {
						t.Errorf("%s, killed at call %d: %v", action, n, err)
					}
				}
				left := []string{"c"}
				if action == drain.Continue {
					left = []string{"c", "d"}
				}
				if diff := cmp.Diff(left, w.there()); diff != "" {
					t.Errorf("%s, killed at call %d: left (-want +got):\n%s", action, n, diff)
				}
				calls = len(w.calls)
			})
			if n > calls {
				break
			}
		}
	}
}

// TestAWorkerComesBackFromTheWarmPool: what we cordoned for the way in is undone on the way out, and nothing else.
func TestAWorkerComesBackFromTheWarmPool(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		home  cluster.Home
		drain time.Duration // when it was drained; 0 for not
		back  time.Duration // when it came back
		world func(*world)
		calls []string
		took  time.Duration
		err   string
		open  bool
	}{
		"drained before":        {drain: time.Minute, back: time.Hour, calls: []string{"uncordon node-1"}, open: true},
		"an old event":          {drain: time.Hour, back: time.Minute},
		"somebody's own cordon": {home: cluster.Home{Unschedulable: true}, drain: time.Minute, back: time.Hour},
		"never drained":         {back: time.Hour, open: true},
		"the node has changed": {drain: time.Minute, back: time.Hour, calls: []string{"uncordon node-1", "uncordon node-1"}, took: 2 * time.Second, open: true, world: func(w *world) {
			w.before = func(_ context.Context, call string) error {
				if call == "uncordon node-1" && w.homes[0].Version == "" {
					w.homes[0].Version = "2"
				}
				return nil
			}
		}},
		"the API is away": {drain: time.Minute, back: time.Hour, took: 2 * time.Minute, err: "uncordon the node of i-0123456789abcdef0: not done in 2m0s: connection refused", world: func(w *world) {
			w.before = func(context.Context, string) error { return errAway }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				tc.home.Name = node
				w.homes = []cluster.Home{tc.home}
				if tc.drain != 0 {
					time.Sleep(tc.drain)
					if err := w.flow().Drain(t.Context(), worker, w.began.Add(tc.drain)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(tc.back)
				if tc.world != nil {
					tc.world(w)
				}
				began := time.Now()
				err := w.flow().Return(t.Context(), worker, w.began.Add(tc.back))
				if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err || time.Since(began) != tc.took {
					t.Errorf("%v after %s", err, time.Since(began))
				}
				var calls []string
				for _, c := range w.happened("uncordon") {
					_, call, _ := strings.Cut(c, " ")
					calls = append(calls, call)
				}
				if diff := cmp.Diff(tc.calls, calls); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				if w.homes[0].Unschedulable == tc.open {
					t.Errorf("the node is %+v", w.homes[0])
				}
			})
		})
	}
}

// TestALaterDrainIsNotUndoneByTheReturnBefore: the worker was in the pool, came back, and now ends; the event of its return is
// delivered once more.
func TestALaterDrainIsNotUndoneByTheReturnBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		at := func(minute int) time.Time { return w.began.Add(time.Duration(minute) * time.Minute) }
		for _, step := range []error{
			w.flow().Drain(t.Context(), worker, at(1)), // its return at minute 2 has not been handled
			w.flow().Drain(t.Context(), worker, at(3)),
			w.flow().Return(t.Context(), worker, at(2)),
		} {
			if step != nil {
				t.Fatal(step)
			}
		}
		if h := w.homes[0]; !h.Unschedulable || !h.Cordoned.Equal(at(3)) {
			t.Errorf("the node is %+v", h)
		}
	})
}
