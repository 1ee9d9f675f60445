// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// TestAGroupAlwaysGetsThere does random things to a group with hooks. Whatever they are: every member is an instance that
// runs, every instance that runs is a member, and once nobody disturbs it the group has what it shall have.
func TestAGroupAlwaysGetsThere(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t, vpc.Propagation{})
		b.create(GroupSettings{MaxSize: 6, DesiredCapacity: rapid.IntRange(0, 6).Draw(rt, "desired"), Subnets: b.subnets}, launching, leaving)
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			b.disturb(rt)
			if err := b.consistent(); err != nil {
				rt.Fatal(err)
			}
		}
		for range 20 { // somebody who handles every hook at once
			for _, d := range b.actions() {
				_ = b.complete(d, Continue) // those that have ended long since are refused
			}
			b.pass(longestPause)
		}
		if err := b.consistent(); err != nil {
			rt.Fatal(err)
		}
		g, _ := b.service.Group("g")
		for _, i := range g.Instances {
			if i.State != InService {
				rt.Fatalf("%s is %s", i.ID, i.State)
			}
		}
		if len(g.Instances) != g.DesiredCapacity {
			rt.Fatalf("%d instances, want %d", len(g.Instances), g.DesiredCapacity)
		}
		if want := g.Pool.size(g.GroupSettings); len(g.Warm) != want {
			rt.Fatalf("%d warm instances, want %d", len(g.Warm), want)
		}
		if next, ok := b.service.Next(); ok {
			rt.Fatalf("something is due at %v", next)
		}
	})
}

// disturb does one thing. Refusals are fine: the thing is drawn without asking whether it can be done.
func (b *bench) disturb(rt *rapid.T) {
	g, _ := b.service.Group("g")
	one := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "which") }
	switch rapid.SampledFrom([]string{"resize", "complete", "abandon", "heartbeat", "wait", "kill", "terminate", "unhook", "warm"}).Draw(rt, "what") {
	case "resize":
		b.must(b.service.SetDesiredCapacity(b.now, "g", rapid.IntRange(0, 6).Draw(rt, "to")))
	case "complete":
		if a := b.actions(); len(a) > 0 {
			_ = b.complete(a[one(len(a))], Continue)
		}
	case "abandon":
		if a := b.actions(); len(a) > 0 {
			_ = b.complete(a[one(len(a))], Abandon)
		}
	case "heartbeat":
		if a := b.actions(); len(a) > 0 {
			d := a[one(len(a))]
			_ = b.service.Heartbeat(b.now, ActionRef{Group: "g", Hook: d.LifecycleHookName, Token: d.LifecycleActionToken})
		}
	case "wait":
		b.pass(time.Duration(rapid.IntRange(1, 90).Draw(rt, "seconds")) * time.Second)
	case "kill":
		if n := len(g.Instances); n > 0 {
			_, err := b.cloud.TerminateInstances(b.now, []string{g.Instances[one(n)].ID})
			b.must(err)
			b.service.Advance(b.now)
		}
	case "terminate":
		if n := len(g.Instances); n > 0 {
			_ = b.service.TerminateInstance(b.now, g.Instances[one(n)].ID, rapid.Bool().Draw(rt, "decrement"))
		}
	case "warm":
		switch rapid.IntRange(-2, 4).Draw(rt, "pool") {
		case -2, -1:
			b.must(b.service.DeleteWarmPool(b.now, "g"))
		default:
			b.must(b.service.PutWarmPool(b.now, "g", WarmPool{}))
		}
	case "unhook":
		if rapid.Bool().Draw(rt, "launch") {
			_ = b.service.DeleteHook(b.now, "g", "launch")
		} else {
			b.must(b.service.PutHook(b.now, "g", launching))
		}
	}
}

// consistent compares the group with EC2.
func (b *bench) consistent() error {
	g, _ := b.service.Group("g")
	var running []string
	for _, i := range b.cloud.View(b.now).Instances() {
		if i.State == vpc.StateRunning {
			running = append(running, i.ID)
		}
	}
	staying := 0
	for _, i := range slices.Concat(g.Instances, g.Warm) {
		if !i.State.leaving() && !strings.HasPrefix(string(i.State), "Warmed:") {
			staying++
		}
		if runs := slices.Contains(running, i.ID); runs != i.Healthy {
			return fmt.Errorf("%s is %s and healthy %v, but runs: %v", i.ID, i.State, i.Healthy, runs)
		}
		running = slices.DeleteFunc(running, func(id string) bool { return id == i.ID })
	}
	if len(running) > 0 {
		return fmt.Errorf("%v run and are of no group", running)
	}
	if pending := len(b.service.groups["g"].members) - len(g.Instances) - len(g.Warm); pending != 0 {
		return fmt.Errorf("%d members are not shown", pending)
	}
	if settled := b.service.groups["g"].retryAt.IsZero(); staying < g.DesiredCapacity && settled {
		return fmt.Errorf("%d of %d, and nothing is due", staying, g.DesiredCapacity)
	}
	return nil
}
