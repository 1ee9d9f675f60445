// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// routes are the lifecycle actions that were published: transition, from where and to where.
func (b *bench) routes() (out []string) {
	for _, e := range b.events {
		var d struct{ LifecycleTransition, Origin, Destination string }
		b.must(json.Unmarshal(e.Detail, &d))
		if kind, ok := strings.CutPrefix(d.LifecycleTransition, "autoscaling:EC2_INSTANCE_"); ok {
			out = append(out, kind+" "+d.Origin+" "+d.Destination)
		}
	}
	return out
}

func (b *bench) warm() (out []State) {
	g, _ := b.service.Group("g")
	for _, i := range g.Warm {
		out = append(out, i.State)
	}
	return out
}

func TestAWarmInstancePassesItsHooksTwice(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 1}, launching, leaving)
	b.must(b.service.PutWarmPool(b.now, "g", WarmPool{}))
	last := func() detail { return b.actions()[len(b.actions())-1] }
	if diff := cmp.Diff([]State{"Warmed:Pending:Wait"}, b.warm()); diff != "" {
		t.Error(diff)
	}
	b.must(b.complete(last(), Continue))
	if diff := cmp.Diff([]State{WarmedRunning}, b.warm()); diff != "" {
		t.Error(diff)
	}
	b.expect("")
	b.must(b.service.SetDesiredCapacity(b.now, "g", 1))
	b.expect("Pending:Wait")
	if a := b.actions(); a[0].EC2InstanceId != a[1].EC2InstanceId || a[0].LifecycleActionToken == a[1].LifecycleActionToken {
		t.Errorf("the group did not take the warm instance: %+v", a)
	}
	b.must(b.complete(last(), Continue))
	b.expect("InService")
	if len(b.warm()) != 0 {
		t.Errorf("the pool of a full group has %v", b.warm())
	}
	b.must(b.service.SetDesiredCapacity(b.now, "g", 0))
	b.must(b.service.DeleteWarmPool(b.now, "g"))
	if diff := cmp.Diff([]string{
		"LAUNCHING EC2 WarmPool", "LAUNCHING WarmPool AutoScalingGroup", "TERMINATING AutoScalingGroup EC2", "LAUNCHING EC2 WarmPool",
	}, b.routes()); diff != "" {
		t.Error(diff)
	}
	for range 3 {
		for _, d := range b.actions() {
			_ = b.complete(d, Continue) // those that have ended are refused
		}
	}
	if got := b.routes(); got[len(got)-1] != "TERMINATING WarmPool EC2" || len(b.warm()) != 0 {
		t.Errorf("actions %v, and left are %v", got, b.warm())
	}
}

func TestAnInstanceEndsOnce(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, launching)
	b.must(b.complete(b.actions()[0], Abandon))
	ends := 0
	for _, e := range b.events {
		if e.DetailType == "EC2 Instance Terminate Successful" {
			ends++
		}
	}
	if ends != 1 {
		t.Errorf("%d ends were published", ends)
	}
}
