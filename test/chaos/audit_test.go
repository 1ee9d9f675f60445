// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
	"github.com/multus-vpc/multus-vpc/internal/tombstone"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// watch holds what must be true at every moment, from one change of the VPC to the next: no stranger loses an address,
// no ENI of a worker gets one that is not for pods, and no pod loses its own.
func (s *scene) watch(ctx context.Context) {
	for {
		changed := s.lab.Cloud.Changed()
		s.inspect()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *scene) inspect() {
	if gone := s.robbed(); len(gone) > 0 {
		s.fail("stolen from the stranger: %v", gone)
	}
	workers := s.all()
	before := s.judge.Carriers()
	view := s.lab.Cloud.View(time.Now())
	has := map[string][]netip.Addr{}
	for _, w := range workers {
		e, ok := view.ENI(w.eni)
		if !ok {
			continue // its worker is being lost
		}
		has[w.eni] = e.Addresses()
		for _, a := range has[w.eni] {
			if a != e.Primary && !forPods(a) {
				s.fail("%s has %s, which is not for pods", w.name, a)
			}
		}
	}
	after := s.judge.Carriers()
	for addr, c := range before {
		addrs, there := has[c.ENI]
		if after[addr] == c && there && !slices.Contains(addrs, addr) {
			s.fail("%s of %s on %s is no longer on its ENI", addr, c.ID, c.Worker)
		}
	}
}

// audit waits until agents, EC2 and the network namespaces agree, and then has every pod reach the others. In the end
// there are no pods, and nothing that they had is left.
func (s *scene) audit(end bool) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, s.weather.settle, fmt.Errorf("not settled within %v", s.weather.settle))
	defer cancel()
	began := time.Now()
	s.thin(ctx, end)
	if !end {
		s.probe(ctx)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var differences []string
	for {
		now := s.differences(ctx, end)
		if len(now) == 0 {
			break
		}
		if ctx.Err() == nil {
			differences = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.fail("%v:\n\t%s", context.Cause(ctx), strings.Join(differences, "\n\t"))
			return
		}
	}
	s.tally.settled(time.Since(began))
	s.note("audit", "settled after %v, the last was %.200q", time.Since(began).Round(time.Millisecond), differences)
	for _, w := range s.all() {
		for _, line := range w.grumble() {
			s.fail("%s: an agent said: %s", w.name, line)
		}
	}
	s.checkAll(ctx)
	s.reachEachOther(ctx)
}

// thin ends half of the pods of each worker, or all.
func (s *scene) thin(ctx context.Context, end bool) {
	var wg sync.WaitGroup
	for _, w := range s.all() {
		leave := min(len(w.livePods())/2, crowd/3)
		if end {
			leave = 0
		}
		own := rand.New(rand.NewPCG(s.rng.Uint64(), 0))
		wg.Go(func() {
			for ctx.Err() == nil && len(w.livePods()) > leave {
				w.remove(ctx, own, w.takeLive(own), ending(own.IntN(int(remade))))
			}
		})
	}
	wg.Wait()
}

// probe has each worker make a pod: ADD works again.
func (s *scene) probe(ctx context.Context) {
	var wg sync.WaitGroup
	for _, w := range s.all() {
		own := rand.New(rand.NewPCG(s.rng.Uint64(), 0))
		wg.Go(func() {
			for !w.add(ctx, own, w.runtime.PodName(), "") {
				if !s.pause(ctx, 100*time.Millisecond) {
					s.fail("%s: ADD does not work again: %v", w.name, context.Cause(ctx))
					return
				}
			}
		})
	}
	wg.Wait()
}

// differences says where ledger (as the agents report it), EC2 and the namespaces do not agree, and what is not settled.
func (s *scene) differences(ctx context.Context, end bool) (all []string) {
	var places []*stage.Place
	for _, w := range s.all() {
		places = append(places, w.place)
	}
	carried := s.judge.Look(places...)
	for _, w := range s.all() {
		for _, d := range w.differences(ctx, carried, end) {
			all = append(all, w.name+": "+d)
		}
	}
	if len(carried) > 0 {
		all = append(all, fmt.Sprintf("in namespaces, and held by no agent: %v", carried))
	}
	return all
}

// differences compares one worker. What it has accounted for is removed from carried.
func (w *node) differences(ctx context.Context, carried map[netip.Addr]string, end bool) (all []string) {
	differs := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	status, err := w.agent.Status(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range status.Problems {
		differs("problem: %s", p)
	}
	held := map[netip.Addr]bool{}
	known := map[netip.Addr]bool{}
	for _, a := range w.pool(status).Addresses {
		known[a.Addr] = true
		switch a.State {
		case ownership.Held.String():
			held[a.Addr] = true
		case ownership.Free.String():
		default:
			differs("%s is %s", a.Addr, a.State)
		}
	}
	if diff := cmp.Diff(w.inEC2(), addresses(known), cmp.Comparer(sameAddr)); diff != "" {
		differs("EC2 (-) and the agent (+) know different addresses:\n%s", diff)
	}
	live := w.livePods()
	for _, s := range live {
		where := carried[s.Addr]
		delete(carried, s.Addr)
		switch {
		case where != s.Path:
			differs("%s of %s is in namespace %q", s.Addr, s.ID, where)
		case !held[s.Addr]:
			differs("%s of %s is not held", s.Addr, s.ID)
		}
		delete(held, s.Addr)
		if dev, err := w.scene.routes.Of(s.Addr); err != nil || dev != w.dev {
			differs("%s of %s is routed to %q, not %s (%v)", s.Addr, s.ID, dev, w.dev, err)
		}
	}
	if len(held) > 0 {
		differs("held, and in no pod's namespace: %v", addresses(held))
	}
	if got, want := len(status.Attachments), len(live); got != want {
		differs("%d attachments for %d pods: %+v", got, want, status.Attachments)
	}
	if notes, damaged, err := tombstone.Dir(w.agent.Tombstones()).List(); err != nil || len(notes)+damaged > 0 {
		differs("tombstones: %v, %d damaged (%v)", notes, damaged, err)
	}
	if diff, err := w.bookDiffers(live); err != nil || diff != "" {
		differs("EC2 and pods (-) and the ledger (+): %v\n%s", err, diff)
	}
	if stock := len(known); end && stock > max(warmTarget, minTarget) {
		differs("%d addresses are kept, wanted are %d", stock, max(warmTarget, minTarget))
	}
	return all
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// addresses lists a map's keys in order.
func addresses[V any](m map[netip.Addr]V) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}

// checkAll demands that CHECK finds every pod in order.
func (s *scene) checkAll(ctx context.Context) {
	for _, w := range s.all() {
		for _, p := range w.livePods() {
			config := w.config(s.rng)
			config["prevResult"] = json.RawMessage(p.Result)
			if _, err := w.runtime.Exec(ctx, "CHECK", p, config); err != nil {
				s.fail("%v", err)
			}
		}
	}
}

// reachEachOther has every pod ping the next one, over the VPC when that is on another worker.
func (s *scene) reachEachOther(ctx context.Context) {
	var pods []*stage.Sandbox
	for _, w := range s.all() {
		pods = append(pods, w.livePods()...)
	}
	s.rng.Shuffle(len(pods), func(i, k int) { pods[i], pods[k] = pods[k], pods[i] })
	for i, p := range pods {
		to := pods[(i+1)%len(pods)]
		began := time.Now()
		if _, err := pod.Ping(ctx, p.Path, to.Addr); err != nil {
			s.fail("%s (%s) to %s (%s): %v", p.ID, p.Addr, to.ID, to.Addr, err)
		}
		if took := time.Since(began); took > time.Second {
			s.note("audit", "%s (%s) reaches %s (%s) after %v", p.ID, p.Addr, to.ID, to.Addr, took.Round(time.Millisecond))
		}
	}
}
