// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// blind is how long a move may take until everybody reaches the address again, on a busy emulated machine: above the route lag, and
// below the 20 to 40 s that a stale neighbour entry lasts.
const blind = 15 * time.Second

// TestFloatingAddresses has all that a floating address goes through happen at the same time, for what must not happen takes a
// minute to be sure of.
func TestFloatingAddresses(t *testing.T) {
	g := up(t)
	for _, n := range g.nodes {
		n.startAgent(t, syncConfig())
	}
	t.Run("moves", func(t *testing.T) {
		t.Parallel()
		for i, w := range ways() { // one after the other: they are measured
			t.Run(w.name, func(t *testing.T) { bout{g, w, i}.backAndForth(t) })
		}
	})
	for i, w := range ways() {
		t.Run("between two pods of one worker, "+w.name, func(t *testing.T) { t.Parallel(); bout{g, w, i}.handover(t) })
		t.Run("split brain, "+w.name, func(t *testing.T) { t.Parallel(); bout{g, w, i}.splitBrain(t) })
	}
}

// backAndForth has four addresses go from a pod to its standby on the other worker and back, while siblings on both ENIs use them.
func (b bout) backAndForth(t *testing.T) {
	floating := slices.Concat(b.floating(0, false), b.floating(1, true))
	pods := []*aPod{b.kept(t, "worker-1", 1, "active"), b.kept(t, "worker-2", 2, "standby")}
	siblings := []*aPod{b.pod(t, "worker-1", 3, "left"), b.pod(t, "worker-2", 4, "right")}
	for _, a := range floating {
		pods[0].add(t, a)
	}
	await(t, "the first owner", func() error { return b.ownedBy(floating, "worker-1") })
	for _, a := range floating {
		for _, s := range siblings {
			s.reaches(t, a.Addr()) // so that everybody has a neighbour entry
		}
	}
	m := measured{where: map[string]*samples{"the old ENI": {}, "the new ENI": {}}}
	rounds := b.way.moves(t)
	for round := range rounds {
		b.move(t, pods[round%2], pods[(round+1)%2], siblings, floating, &m)
		if t.Failed() {
			t.Fatalf("at move %d", round)
		}
	}
	t.Logf("%d moves, %s: from the address to EC2's call %s", rounds*len(floating), b.way.name, &m.called)
	for where, s := range m.where {
		t.Logf("out of reach for a sibling on %s: %s", where, s)
		if worst := s.max(); worst > blind {
			t.Errorf("a sibling on %s did not reach the address for %v, want at most %v", where, worst, blind)
		}
	}
}

// measured is what moves took.
type measured struct {
	called samples             // from the address appearing to the call leaving
	where  map[string]*samples // from the address going to the first reply, by where who asks is
}

// move moves addresses once.
func (b bout) move(t *testing.T, from, to *aPod, siblings []*aPod, floating []netip.Prefix, m *measured) {
	t.Helper()
	began := time.Now()
	for _, a := range floating {
		from.remove(t, a)
	}
	appeared := map[netip.Addr]time.Time{}
	for _, a := range floating {
		appeared[a.Addr()] = time.Now()
		to.add(t, a)
	}
	var all sync.WaitGroup
	for _, s := range siblings {
		where := m.where[map[bool]string{true: "the old ENI", false: "the new ENI"}[s.node == from.node]]
		for _, a := range floating {
			all.Go(func() {
				if s.sees(t, a.Addr()) {
					where.add(time.Since(began))
				}
			})
		}
	}
	all.Wait()
	if err := b.ownedBy(floating, to.node.name); err != nil {
		t.Error(err)
	}
	for _, a := range floating {
		at, ok := b.log.first(appeared[a.Addr()], a.Addr(), claims())
		if !ok {
			t.Errorf("no call of EC2 names %s", a)
			continue
		}
		m.called.add(at.Sub(appeared[a.Addr()]))
	}
}

// sees waits for an answer from an address, and says whether it came.
func (p *aPod) sees(t *testing.T, to netip.Addr) bool {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := pod.Ping(ctx, p.Netns, to)
	if err != nil {
		t.Errorf("from %s on %s: %v", p.Name, p.node.name, err)
	}
	return err == nil
}

// ownedBy is nil when the worker alone has each of the addresses.
func (g *ground) ownedBy(addrs []netip.Prefix, worker string) error {
	for _, a := range addrs {
		if owners := g.owners(a.Addr()); !slices.Equal(owners, []string{worker}) {
			return fmt.Errorf("%s is on %v, want on %s alone", a, owners, worker)
		}
	}
	return nil
}

// handover is between two pods on one ENI: EC2 need not know of it. What the first pod's side keeps an address for is over meanwhile.
func (b bout) handover(t *testing.T) {
	const grace = 30 * time.Second
	floating := b.floating(2, true)
	first, second := b.kept(t, "worker-1", 5, "first"), b.kept(t, "worker-1", 6, "second")
	client := b.pod(t, "worker-2", 7, "client")
	for _, a := range floating {
		first.add(t, a)
	}
	await(t, "the first owner", func() error { return b.ownedBy(floating, "worker-1") })
	var histories []*history
	for _, a := range floating {
		histories = append(histories, b.watch(t, a.Addr()))
	}
	for _, a := range floating {
		first.remove(t, a)
		second.add(t, a)
	}
	for _, a := range floating {
		client.reaches(t, a.Addr())
	}
	after(t, grace+5*time.Second)
	for i, h := range histories {
		if seen := h.end(); len(seen) != 1 {
			t.Errorf("%s had the owners %v one after another, want worker-1 all the time", floating[i], seen)
		}
		client.reaches(t, floating[i].Addr())
	}
}

// splitBrain has two pods carry the same addresses for a minute.
func (b bout) splitBrain(t *testing.T) {
	const lasts, often = time.Minute, "MULTUS_VPC_CHECK_INTERVAL=5s"
	floating := b.floating(3, true)
	pods := []*aPod{b.kept(t, "worker-1", 8, "one", often), b.kept(t, "worker-2", 9, "other", often)}
	var histories []*history
	for _, a := range floating {
		histories = append(histories, b.watch(t, a.Addr()))
	}
	for _, a := range floating {
		for _, p := range pods {
			p.add(t, a)
		}
	}
	after(t, lasts)
	for i, h := range histories {
		seen := h.end()
		if last := seen[len(seen)-1]; len(last) != 1 {
			t.Errorf("%s is on %v after a minute, want one owner", floating[i], last)
		}
		// For IPv6, a moment without an owner lies between two.
		moves := slices.DeleteFunc(slices.Clone(seen), func(owners []string) bool { return len(owners) == 0 })
		if len(moves) > 2 {
			t.Errorf("%s moved: %v, want at most two moves", floating[i], seen)
		}
		t.Logf("%s: %v", floating[i], seen)
	}
	await(t, "the contest is reported", func() error { return b.contested(t, pods) })
}
