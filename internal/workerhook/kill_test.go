// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// skies are how EC2 shows what was done, and how the bus delivers.
var skies = map[string]string{
	"clear": "",
	"late":  lagging,
	"twice": lagging + "events: {duplicates: 1}\n",
	"thrice in any order, up to three minutes late": lagging + "events: {duplicates: 2, delay: 3m}\n",
}

// eachDeath tells a story once for each call of the invocation that dies, and each way to die there. The invocation makes so many calls
// at least when it is alone; one that shares the work with its duplicates makes as many as happen to be left to it, and more in one run than
// in another.
func eachDeath(t *testing.T, victim lifecycle.Transition, least int, under []string, story func(w *world)) {
	for _, sky := range under {
		yaml := skies[sky]
		for _, after := range []bool{false, true} {
			name := "before the call"
			if after {
				name = "after it, the reply lost"
			}
			t.Run(sky+"/"+name, func(t *testing.T) {
				t.Parallel()
				fired, alive := 0, 0 // how many calls it died at; runs that it survived since
				for n := 1; alive < 3; n++ {
					k := &killer{transition: victim, n: n, after: after}
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, oneZone+yaml)
						w.killer = k
						w.give()
						w.deploy(3)
						story(w)
					})
					if t.Failed() {
						t.Fatalf("killed at call %d", n)
					}
					if k.fired {
						fired, alive = n, 0
					} else {
						alive++
					}
				}
				t.Logf("killed at each of %d calls", fired)
				least := least
				if strings.Contains(yaml, "duplicates") {
					least /= 2
				}
				if fired < least {
					t.Errorf("only %d calls", fired)
				}
			})
		}
	}
}

// TestKilledAtAnyCallAWorkerLaunches: the event is handled again, the worker is the same, and has its ENIs once.
func TestKilledAtAnyCallAWorkerLaunches(t *testing.T) {
	t.Parallel()
	eachDeath(t, lifecycle.Launching, 12, slices.Collect(maps.Keys(skies)), func(w *world) {
		ids := w.scale(1)
		time.Sleep(10 * time.Minute) // what else was delivered or is tried again comes to its end
		w.wantENIs(workerENIs(ids)...)
		if n := w.launches(); n != 1 {
			w.t.Errorf("%d instances were launched", n)
		}
		if n := w.logged(`"result":"ABANDON"`); n != 0 {
			w.t.Error("a healthy worker was abandoned")
		}
		w.settle(1)
	})
}

// TestKilledAtAnyCallAWorkerEnds, and leaves nothing behind.
func TestKilledAtAnyCallAWorkerEnds(t *testing.T) {
	t.Parallel()
	eachDeath(t, lifecycle.Terminating, 4, slices.Collect(maps.Keys(skies)), func(w *world) {
		w.scale(1)
		w.scale(0)
		time.Sleep(3 * time.Hour) // a late launch event may leave what the sweep takes
		w.wantENIs()
	})
}

// TestKilledAtAnyCallAnImpossibleWorkerIsAbandoned: EC2 refuses the second attachment for good.
func TestKilledAtAnyCallAnImpossibleWorkerIsAbandoned(t *testing.T) {
	t.Parallel()
	eachDeath(t, lifecycle.Launching, 12, []string{"twice"}, func(w *world) {
		if err := w.lab.Front.SetFaults([]front.Fault{{
			Action: "AttachNetworkInterface", Nth: 2, Count: 10000, Kind: front.ErrorBefore, Code: "UnauthorizedOperation",
		}}); err != nil {
			w.t.Fatal(err)
		}
		if err := w.lab.Scaling.SetDesiredCapacity(time.Now(), "g", 1); err != nil {
			w.t.Fatal(err)
		}
		for tries := 0; w.logged(`"result":"ABANDON"`) == 0; tries++ {
			if time.Sleep(time.Second); tries == 1200 {
				w.t.Fatal("nobody was abandoned")
			}
		}
		w.scale(0)
		time.Sleep(3 * time.Hour)
		w.wantENIs()
		if n := w.logged(`"result":"CONTINUE","enis"`); n != 0 {
			w.t.Errorf("%d launches went on", n)
		}
	})
}

// TestEventsOlderThanTheirHooks: each waits up to ten minutes, twice as long as the hooks do, in any order. What the group has in the end
// is whole, and nothing is left of the others.
func TestEventsOlderThanTheirHooks(t *testing.T) {
	t.Parallel()
	for seed := range 12 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, oneZone+fmt.Sprintf("ec2: {latency: 80ms, propagation: {route: 1s, imds: 3s, describe: 3s}, seed: %d}\nevents: {duplicates: 1, delay: 10m}\n", seed))
				w.give()
				w.deploy(3)
				w.workersFor(3, 3*time.Hour)
				w.workersFor(1, 3*time.Hour)
				w.workersFor(0, 4*time.Hour)
				w.wantENIs()
			})
		})
	}
}

// workersFor sets the size, lets time pass, and checks those in service.
func (w *world) workersFor(n int, d time.Duration) {
	w.t.Helper()
	if err := w.lab.Scaling.SetDesiredCapacity(time.Now(), "g", n); err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(d)
	ids := w.settle(n)
	for _, id := range ids {
		if got := len(w.lab.Cloud.View(time.Now().Add(time.Minute)).ENIs(id)); got != 3 {
			w.t.Errorf("%s is in service with %d ENIs", id, got)
		}
	}
}

// TestKilledAtAnyCallInTheLastRoom: the subnets have one free address each, and the type room for exactly these ENIs. A repetition that sees
// half of what was done must not take it for somebody else's.
func TestKilledAtAnyCallInTheLastRoom(t *testing.T) {
	t.Parallel()
	eachDeath(t, lifecycle.Launching, 12, []string{"twice"}, func(w *world) {
		w.giveTheLast()
		id := w.scale(1)[0]
		time.Sleep(10 * time.Minute)
		w.wantENIs("tiny4 at "+id+" 0:1", "tiny6 at "+id+" 0:2", "n4 at "+id+" 0:3")
		if n := w.launches(); n != 1 {
			w.t.Errorf("%d instances were launched", n)
		}
		if n := w.logged(`"result":"ABANDON"`); n != 0 {
			w.t.Error("a healthy worker was abandoned")
		}
	})
}

// giveTheLast has each worker get as many ENIs as its type allows, two of them with the last free addresses of their subnets.
func (w *world) giveTheLast() {
	w.t.Helper()
	last4, last6 := w.on("tiny4"), w.on("tiny6")
	last4.Addressing, last6.DeleteOnTermination = workereni.Start, false
	w.cfg.Interfaces = []workereni.Interface{last4, last6, w.on("n4")}
	for _, i := range w.cfg.Interfaces[:2] {
		for range 10 { // of the 11 that a /28 has
			if _, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: string(i.Subnet)}); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	time.Sleep(time.Minute) // until EC2 shows them
}
