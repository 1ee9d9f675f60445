// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

// ambush waits for the work to reach a step.
type ambush struct {
	ready    <-chan struct{}                 // closed when the step is reached
	release  func(verdict)                   // lets the request that was caught go on
	clear    func()                          // ends the ambush
	prey     func([]*stage.Call) *stage.Call // chooses the plugin to kill among those in flight
	nextLife time.Time                       // when the agent was started again
}

// lay makes the ambush for a step.
func (n *node) lay(ctx context.Context, s step) *ambush {
	ctx, cancel := context.WithCancel(ctx)
	a := &ambush{release: func(verdict) {}, clear: cancel, prey: n.anyADD}
	switch s {
	case beforeAssign, lateAssign:
		n.layAtEC2(a, "AssignPrivateIpAddresses", false)
	case afterAssign:
		n.layAtEC2(a, "AssignPrivateIpAddresses", true)
	case beforeUnassign, lateUnassign:
		n.layAtEC2(a, "UnassignPrivateIpAddresses", false)
	case afterUnassign:
		n.layAtEC2(a, "UnassignPrivateIpAddresses", true)
	case unassigned:
		n.layAtAnswer(ctx, a, "UnassignPrivateIpAddresses")
	case afterLedger:
		size := ledgerSize(n.agent.Ledger())
		a.ready = n.when(ctx, func(ctx context.Context) error { return watchLedger(ctx, n.agent.Ledger(), size, answersRecorded) })
	case afterReply:
		select {
		case <-n.answered: // of an earlier round
		default:
		}
		a.ready = n.when(ctx, func(ctx context.Context) error {
			select {
			case <-n.answered:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	case linkMade:
		a.ready = n.when(ctx, func(ctx context.Context) error { return n.watchLinks(ctx, a) })
	}
	return a
}

// when closes the channel once wait has returned without an error. An error that is not the end of ctx fails the run.
func (n *node) when(ctx context.Context, wait func(context.Context) error) <-chan struct{} {
	ready := make(chan struct{})
	go func() {
		switch err := wait(ctx); {
		case err == nil:
			close(ready)
		case ctx.Err() == nil:
			n.ground.fail("%s: %v", n.name, err)
		}
	}()
	return ready
}

// layAtEC2 sets the gate's trap.
func (n *node) layAtEC2(a *ambush, action string, applied bool) {
	t := &trap{action: action, applied: applied, caught: make(chan struct{}), verdict: make(chan verdict, 1)}
	n.gate.set(t)
	cancel := a.clear
	released := false
	a.ready = t.caught
	a.release = func(v verdict) { released = true; t.verdict <- v }
	a.clear = func() {
		n.gate.set(nil)
		if !released { // the round failed: let go what may be in the trap
			t.verdict <- drop
		}
		cancel()
	}
}

// layAtAnswer waits until the agent has recorded EC2's answer.
func (n *node) layAtAnswer(ctx context.Context, a *ambush, action string) {
	var size int64
	t := &trap{action: action, caught: make(chan struct{})}
	t.entered = func() { size = ledgerSize(n.agent.Ledger()) }
	n.gate.set(t)
	cancel := a.clear
	a.clear = func() {
		n.gate.set(nil)
		cancel()
	}
	a.ready = n.when(ctx, func(ctx context.Context) error {
		select {
		case <-t.caught:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return watchLedger(ctx, n.agent.Ledger(), size, func([]byte) bool { return true })
	})
}

// anyADD chooses an ADD, or any call when there is no ADD.
func (n *node) anyADD(open []*stage.Call) *stage.Call {
	var adds []*stage.Call
	for _, c := range open {
		if c.Command == "ADD" {
			adds = append(adds, c)
		}
	}
	if len(adds) == 0 {
		adds = open
	}
	if len(adds) == 0 {
		return nil
	}
	return adds[rand.N(len(adds))] // the order of open is the scheduler's anyway
}
