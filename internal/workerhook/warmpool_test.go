// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
)

// TestAWarmPool: its workers pass the hook twice, get their ENIs once, and leave none behind wherever they end. Each event comes twice,
// the one of the way in, it may be, after the one of the way out.
func TestAWarmPool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, oneZone+lagging+"events: {duplicates: 1, delay: 90s}\n")
		w.give()
		w.deploy(4)
		prepared := 2
		if err := w.lab.Scaling.PutWarmPool(time.Now(), "g", autoscaling.WarmPool{MinSize: 2, MaxPrepared: &prepared}); err != nil {
			t.Fatal(err)
		}
		steps := []struct {
			size int
			want map[autoscaling.State]int
		}{
			{0, map[autoscaling.State]int{autoscaling.WarmedRunning: 2}},
			{2, map[autoscaling.State]int{autoscaling.WarmedRunning: 2, autoscaling.InService: 2}},
			{1, map[autoscaling.State]int{autoscaling.WarmedRunning: 2, autoscaling.InService: 1}},
		}
		for _, step := range steps {
			if err := w.lab.Scaling.SetDesiredCapacity(time.Now(), "g", step.size); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Minute)
			states, ids := map[autoscaling.State]int{}, []string(nil)
			g, _ := w.lab.Scaling.Group("g")
			for _, i := range slices.Concat(g.Instances, g.Warm) {
				states[i.State]++
				ids = append(ids, i.ID)
			}
			if diff := cmp.Diff(step.want, states); diff != "" {
				t.Fatalf("of %d workers (-want +got):\n%s", step.size, diff)
			}
			w.wantENIs(workerENIs(ids)...)
		}
		if n := w.launches(); n != 4 {
			t.Errorf("%d instances were launched for the pool", n)
		}
		if err := w.lab.Scaling.DeleteWarmPool(time.Now(), "g"); err != nil {
			t.Fatal(err)
		}
		w.workersFor(1, 30*time.Minute)
		w.workersFor(2, 30*time.Minute)
		w.workersFor(0, 3*time.Hour)
		w.wantENIs()
		if n := w.logged(`"result":"ABANDON"`); n != 0 {
			t.Errorf("%d workers were abandoned", n)
		}
		w.wantWays("EC2 to AutoScalingGroup", "EC2 to WarmPool", "WarmPool to AutoScalingGroup", "AutoScalingGroup to EC2", "WarmPool to EC2")
	})
}

// wantWays are where the instances of the events came from and went to.
func (w *world) wantWays(want ...string) {
	w.t.Helper()
	ways := map[string]bool{}
	for _, p := range w.payloads {
		e, err := lifecycle.Parse(p)
		if err != nil {
			w.t.Fatal(err)
		}
		ways[string(e.Action.Origin)+" to "+string(e.Action.Destination)] = true
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(ways))); diff != "" {
		w.t.Errorf("ways (-want +got):\n%s", diff)
	}
}
