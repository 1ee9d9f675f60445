// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook_test

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
	"github.com/multus-vpc/multus-vpc/internal/workerhook"
)

// fleet has a subnet whose first /24 is for workers, and the second reserved for pods. EC2 and Auto Scaling let 5 writes/s of each action
// through.
const fleet = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: nodes, cidr: 10.10.16.0/20, az: us-west-2a}
- {name: pods, cidr: 10.10.2.0/23, az: us-west-2a, reservations: [{cidr: 10.10.3.0/24, tags: {multus-vpc.io/role: pool}}]}
ec2:
  latency: 80ms
  propagation: {route: 1s, imds: 2s, describe: 1s}
  throttle: {default: {read: {burst: 100, refill: 20}, write: {burst: 50, refill: 5}}}
autoScaling:
  throttle: {default: {read: {burst: 100, refill: 20}, write: {burst: 50, refill: 5}}}
`

const workers = 100

// TestAHundredWorkersPassTheirHooks at once, with static addresses from the start of the subnet beside a reservation.
func TestAHundredWorkersPassTheirHooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, hundredWorkers)
}

func hundredWorkers(t *testing.T) {
	w := newWorld(t, fleet)
	w.quiet = true
	w.cfg = workereni.Config{Owner: "tests", Interfaces: []workereni.Interface{{
		Subnet: eni.SubnetID(w.lab.Subnets["pods"]), Addressing: workereni.Start, DeleteOnTermination: true,
	}}}
	w.deploy(workers)
	began := time.Now()
	ids := w.scale(workers)
	took := time.Since(began)
	time.Sleep(time.Minute) // handlings that have answered say so

	w.wantAllContinued()
	taken := map[netip.Addr]bool{}
	var last netip.Addr
	view := w.lab.Cloud.View(time.Now().Add(time.Minute))
	for _, id := range ids {
		enis := view.ENIs(id)
		if len(enis) != 2 {
			t.Fatalf("%s has %d ENIs", id, len(enis))
		}
		a := enis[1].IPv4()[0]
		if taken[a] || netip.MustParsePrefix("10.10.3.0/24").Contains(a) {
			t.Errorf("%s has %s: taken before %t, or of the reservation", id, a, taken[a])
		}
		taken[a] = true
		last = slices.MaxFunc([]netip.Addr{cmp.Or(last, a), a}, netip.Addr.Compare)
	}
	calls := map[string]int{}
	for _, f := range []*front.Front{w.lab.Front, w.lab.ScalingFront} {
		for _, c := range f.Calls() {
			calls[c.Action+" "+c.Result] += c.Count
		}
	}
	ours := 0
	for _, e := range view.AllENIs() {
		if e.Tags[workereni.TagOwner] != "" {
			ours++
		}
	}
	if ours != workers {
		t.Errorf("%d ENIs of ours", ours)
	}
	if n := calls["RecordLifecycleActionHeartbeat ok"]; n < workers/2 {
		t.Errorf("%d heartbeats", n)
	}
	t.Logf("%d workers in service after %s, addresses up to %s, %d heartbeats", workers, took.Round(time.Second), last, calls["RecordLifecycleActionHeartbeat ok"])
	for _, action := range slices.Sorted(maps.Keys(calls)) {
		t.Logf("%6d %s", calls[action], action)
	}
}

// wantAllContinued: every worker that was launched is in service, by one answer.
func (w *world) wantAllContinued() {
	w.t.Helper()
	if n := w.launches(); n != workers {
		w.t.Errorf("%d instances were launched", n)
	}
	if n := w.logged(`"result":"CONTINUE"`); n != workers {
		w.t.Errorf("%d hooks answered by CONTINUE", n)
	}
	if n := w.logged(`"result":"ABANDON"`) + w.logged(`"result":"NONE"`); n != 0 {
		w.t.Errorf("%d answered otherwise", n)
	}
}

// slowWorkers get their ENIs after a while, all at the same time.
type slowWorkers struct{ workerhook.Misconfigured }

func (slowWorkers) Launch(ctx context.Context, _ workereni.Request) ([]eni.Device, error) {
	select {
	case <-time.After(12 * time.Minute):
		return nil, nil
	case <-ctx.Done():
		return nil, until(ctx)
	}
}

// TestAHundredHooksStayOpen although their heartbeats come at the same time, and Auto Scaling takes half of them.
func TestAHundredHooksStayOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fleet)
		w.quiet, w.workers = true, slowWorkers{}
		w.deploy(workers)
		w.scale(workers)
		time.Sleep(time.Minute)
		w.wantAllContinued()
	})
}

// TestALateDuplicateChangesNothing: the launch event comes again when the worker is in service, to a function whose configuration has
// become impossible for it, or another.
func TestALateDuplicateChangesNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*world){
		"the same configuration":   func(*world) {},
		"a subnet that is gone":    func(w *world) { w.cfg.Interfaces[0].Subnet = "subnet-0123456789abcdef0" },
		"too many interfaces":      func(w *world) { w.cfg.Interfaces = slices.Repeat(w.cfg.Interfaces, 8) },
		"interfaces the other way": func(w *world) { slices.Reverse(w.cfg.Interfaces) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oneZone+lagging)
				w.give()
				w.deploy(3)
				ids := w.scale(1)
				change(w)
				if len(w.payloads) != 1 {
					t.Fatalf("%d events", len(w.payloads))
				}
				if _, err := w.invoke(t.Context(), w.payloads[0]); err != nil {
					t.Error(err)
				}
				w.settle(1)
				w.wantENIs(workerENIs(ids)...)
				if n := w.logged(`"result":"ABANDON"`); n != 0 {
					t.Error("a healthy worker was abandoned")
				}
				if n := w.logged(`"result":"NONE"`); n != 1 {
					t.Errorf("%d handlings found nobody waiting", n)
				}
			})
		})
	}
}
