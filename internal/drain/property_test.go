// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/drain"
)

// TestWhateverHappens draws pods, refusals and outages. The world fails the test by itself when a pod is touched that stays, or before the
// node is cordoned.
func TestWhateverHappens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var pods []cluster.Resident
		until := map[string]time.Duration{} // refused
		for i := range rapid.IntRange(0, 15).Draw(rt, "pods") {
			p := pod(fmt.Sprint("p", i), takes(time.Duration(rapid.SampledFrom([]int{0, 1, 30, 300, 3600}).Draw(rt, "grace"))*time.Second))
			kind := rapid.SampledFrom([]string{"plain", "plain", "plain", "daemon", "mirror", "ended"}).Draw(rt, "kind")
			p.DaemonSet, p.Mirror, p.Ended = kind == "daemon", kind == "mirror", kind == "ended"
			until[p.Name] = time.Duration(rapid.SampledFrom([]int{0, 0, 7, 60, 7200}).Draw(rt, "refused")) * time.Second
			pods = append(pods, p)
		}
		away := time.Duration(rapid.IntRange(0, 900).Draw(rt, "away from")) * time.Second
		back := away + time.Duration(rapid.SampledFrom([]int{0, 1, 40, 3600}).Draw(rt, "away for"))*time.Second
		kubelet := rapid.IntRange(0, 9).Draw(rt, "kubelet") > 0
		action := rapid.SampledFrom([]drain.Action{drain.Continue, drain.Force}).Draw(rt, "action")
		killed := time.Duration(rapid.SampledFrom([]int{3, 100, 599, 3600}).Draw(rt, "killed after")) * time.Second

		var problem string // to be told outside of the bubble, where rapid has its seed
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, pods...)
			w.noKubelet = !kubelet
			w.before = func(context.Context, string) error {
				if since := time.Since(w.began); since >= away && since < back {
					return errAway
				}
				return nil
			}
			asked := map[string]time.Duration{}
			w.evict = func(p cluster.Resident, at time.Duration, _ int) error {
				if last, again := asked[p.Name]; again && at-last < 5*time.Second && at < killed {
					problem = fmt.Sprintf("%s is asked for at %s and at %s", p, last, at)
				}
				if asked[p.Name] = at; at < until[p.Name] {
					return &cluster.RefusedError{Why: "not yet"}
				}
				return nil
			}
			f := w.flow(func(c *drain.Config) { c.OnTimeout = action })
			ctx, cancel := context.WithTimeout(t.Context(), killed)
			err := f.Drain(ctx, worker, w.began)
			cancel()
			if took := time.Since(w.began); errors.Is(err, drain.ErrUnfinished) != (took == killed && err != nil) {
				problem = fmt.Sprintf("%v after %s", err, took)
			}
			if errors.Is(err, drain.ErrUnfinished) {
				err = f.Drain(t.Context(), worker, w.began)
			}
			took, limit := time.Since(w.began), max(10*time.Minute, killed)
			if action == drain.Force {
				limit = max(10*time.Minute+45*time.Second, killed)
			}
			left := 0
			for _, p := range w.now() {
				if !p.DaemonSet && !p.Mirror && !p.Ended && (p.Leaves.IsZero() || time.Since(p.Leaves) < time.Minute) {
					left++
				}
			}
			switch {
			case took > limit:
				problem = fmt.Sprintf("it came back after %s", took)
			case err == nil && left > 0:
				problem = fmt.Sprintf("%d pods are left and it says nothing", left)
			case err == nil && !w.homes[0].Unschedulable:
				problem = "the node is not cordoned"
			case action == drain.Continue && len(w.happened("delete")) > 0:
				problem = "pods were deleted"
			case err != nil && !strings.HasPrefix(err.Error(), "drain the node of i-0123456789abcdef0: not done in "):
				problem = err.Error()
			}
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}
