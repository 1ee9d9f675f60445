// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

const killSignal = syscall.SIGKILL

// round is one planned kill.
type round struct {
	step   step
	victim victim
}

func (r round) String() string { return fmt.Sprintf("kill of %s %s", r.victim, r.step) }

// schedule repeats each round as often as the plan says, in an order that the generator chooses.
func schedule(plan map[round]int, rng *rand.Rand) []round {
	var all []round
	for v := range numVictims { // not over the map: its order is nobody's seed
		for s := range numSteps {
			for range plan[round{s, v}] {
				all = append(all, round{s, v})
			}
		}
	}
	rng.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	return all
}

// Bounds of the load.
const (
	crowd    = 9                // more pods than this are thinned out
	calm     = 3                // to so many
	patience = 90 * time.Second // for what must happen on a machine that is busy with other tests
)

// operations are the runtime's doings of one round.
type operations struct{ wg sync.WaitGroup }

// done is closed when all of them have ended.
func (o *operations) done() <-chan struct{} {
	c := make(chan struct{})
	go func() { o.wg.Wait(); close(c) }()
	return c
}

func (n *node) begin(o *operations, creations, removals int) {
	n.end(o, removals, numEndings)
	for range creations {
		name := n.runtime.PodName()
		o.wg.Go(func() { n.create(n.ground.ctx, name) })
	}
}

// end ends pods in ways of which there are so many.
func (n *node) end(o *operations, pods int, ways ending) {
	for range pods {
		if s := n.takeLive(); s != nil {
			how := ending(n.rng.IntN(int(ways)))
			o.wg.Go(func() { n.remove(n.ground.ctx, s, how) })
		}
	}
}

// run does one round: load, kill at the step, next life, and wait until the runtime is done with it all. It says how
// many processes it killed: a plugin may end by itself in the last moment.
func (n *node) run(r round, c *tally) (kills int) {
	ctx, cancel := context.WithTimeoutCause(n.ground.ctx, patience, fmt.Errorf("%s on %s is not over after %v", r, n.name, patience))
	defer cancel()
	var ops operations
	defer ops.wg.Wait()
	n.shrink(ctx)
	t := n.lay(ctx, r.step)
	defer t.clear()
	if !n.lure(ctx, r.step, t, &ops) {
		n.ground.fail("%s on %s: the step was not reached: %v", r, n.name, context.Cause(ctx))
		return 0
	}
	if r.step == unassigned { // the next life needs addresses while everybody still shows the old ones
		n.begin(&ops, crowd/2, 0)
	}
	hits := n.strike(r, t)
	if !n.recover(ctx, r, t) {
		return 0
	}
	select {
	case <-ops.done():
	case <-ctx.Done():
		n.ground.fail("%s on %s: calls that do not end: %v", r, n.name, context.Cause(ctx))
		return 0
	}
	for _, h := range hits {
		if h.count(r, c) {
			kills++
		}
	}
	n.ground.judge.Look(n.ground.places()...)
	n.thin(ctx)
	return kills
}

// shrink lets the agent live long enough to give surplus back, when there is so much that nothing would be assigned: a
// cooldown starts over with each life.
func (n *node) shrink(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*cooldown)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(n.inEC2())-n.liveCount() > crowd {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return // then the load uses it up
		}
	}
}

// lure loads the worker until the step is reached.
func (n *node) lure(ctx context.Context, s step, t *ambush, ops *operations) bool {
	const tries = 12
	for range tries {
		again := n.load(s, ops)
		select {
		case <-t.ready:
			return true
		case <-again:
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// load begins what leads to the step, and says when more of it is needed.
func (n *node) load(s step, ops *operations) <-chan struct{} {
	switch s {
	case beforeUnassign, lateUnassign, afterUnassign, unassigned:
		// Stock is surplus when it has been so for a cooldown, after it has cooled.
		if n.liveCount() > 1 {
			n.begin(ops, 0, n.liveCount()-1)
		} else {
			n.begin(ops, crowd/2, 0)
			return ops.done()
		}
		return after(5 * cooldown)
	default:
		n.begin(ops, 2+n.rng.IntN(3), n.rng.IntN(2))
		return ops.done()
	}
}

func after(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// hit is one process that was killed, with what was going on.
type hit struct {
	victim   victim
	ec2      bool          // an EC2 call was open
	calls    []*stage.Call // in flight at the kill
	shot     *stage.Call   // the plugin that was killed; nil for the agent
	nextLife *time.Time
}

// count adds the kill to the tally, if it met a living process. A request was in flight when EC2 had not answered, or a
// plugin outlived the agent to ask the next one.
func (h hit) count(r round, c *tally) bool {
	if h.shot != nil {
		<-h.shot.Done
		if h.shot.Shot {
			c.add(r.victim, r.step, true)
		}
		return h.shot.Shot
	}
	waiting := h.ec2
	for _, x := range h.calls {
		select {
		case <-x.Done:
			waiting = waiting || x.Ended.After(*h.nextLife)
		default:
			waiting = true
		}
	}
	c.add(r.victim, r.step, waiting)
	return true
}

// strike kills the victims at once.
func (n *node) strike(r round, t *ambush) (hits []hit) {
	open := n.runtime.InFlight()
	if r.victim != theAgent {
		if c := t.prey(open); c != nil {
			c.Shoot()
			hits = append(hits, hit{victim: r.victim, shot: c})
		}
	}
	if r.victim != thePlugin {
		ec2 := n.gate.inFlight() > 0
		if n.agent.End(killSignal) {
			hits = append(hits, hit{victim: r.victim, ec2: ec2, calls: open, nextLife: &t.nextLife})
		}
	}
	return hits
}

// recover lets the trapped request go its way and begins the agent's next life, if it was killed.
func (n *node) recover(ctx context.Context, r round, t *ambush) bool {
	if r.victim == thePlugin {
		t.release(pass)
		return true
	}
	late := r.step == lateAssign || r.step == lateUnassign
	if !late {
		t.release(drop)
	}
	n.absence()
	t.nextLife = time.Now()
	if err := n.agent.Start(); err != nil {
		n.ground.fail("%s: %v", n.name, err)
		return false
	}
	if late {
		if _, err := n.agent.Status(ctx); err != nil {
			n.ground.fail("%s: the agent does not come back: %v", n.name, err)
			return false
		}
		t.release(pass)
	}
	return true
}

// absence is what happens while there is no agent: now and then a pod ends, which leaves a tombstone.
func (n *node) absence() {
	if n.rng.IntN(6) != 0 {
		return
	}
	var gone operations
	n.end(&gone, 1, remade) // what follows would wait for an agent
	gone.wg.Wait()
}

// thin ends pods when there are too many.
func (n *node) thin(ctx context.Context) {
	if n.liveCount() <= crowd {
		return
	}
	var ops operations
	n.begin(&ops, 0, n.liveCount()-calm)
	select {
	case <-ops.done():
	case <-ctx.Done():
		n.ground.fail("%s: pods that do not end: %v", n.name, context.Cause(ctx))
	}
}
