// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// way is how floating addresses come to EC2.
type way struct {
	name string
	// keep starts what keeps a pod's addresses registered.
	keep func(t *testing.T, p *aPod, log *ec2Log, floating string, more ...string) *program
}

func ways() []way {
	return []way{
		{"sidecar without agent", func(t *testing.T, p *aPod, log *ec2Log, floating string, more ...string) *program {
			s := p.static(t, "sidecar", log, append(more, "MULTUS_VPC_FLOATING="+floating, "MULTUS_VPC_VIA=ec2", "MULTUS_VPC_LOG_LEVEL=debug")...)
			s.ready(t)
			return s
		}},
	}
}

// Moves of floating addresses.
const (
	// rounds of moves, each of all four addresses.
	rounds = 25
	// blind is how long a move may take until everybody reaches the address again, on an emulated machine: well above the route
	// lag, and below the 20 to 40 s that a stale neighbour entry lasts.
	blind = 10 * time.Second
)

// TestFloatingAddresses has all that a floating address goes through happen at the same time, for what must not happen takes a
// minute to be sure of.
func TestFloatingAddresses(t *testing.T) {
	g := up(t)
	log := &ec2Log{ec2: g.lab.Front}
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			t.Run("100 moves between workers", func(t *testing.T) { t.Parallel(); g.moves(t, w, log) })
			t.Run("between two pods of one worker", func(t *testing.T) { t.Parallel(); g.handover(t, w, log) })
			t.Run("split brain", func(t *testing.T) { t.Parallel(); g.splitBrain(t, w, log) })
		})
	}
}

// moves has four addresses go from a pod to its standby on the other worker and back, while siblings on both ENIs use them.
func (g *ground) moves(t *testing.T, w way, log *ec2Log) {
	const ranges = "10.10.1.90-10.10.1.91,2001:db8:10:1::90-2001:db8:10:1::91"
	floating := prefixes("10.10.1.90/24", "10.10.1.91/32", "2001:db8:10:1::90/64", "2001:db8:10:1::91/128")
	pods := []*aPod{
		g.nodes["worker-1"].attachKnown(t, "active", prefixes("10.10.1.101/24", "2001:db8:10:1::101/64")...),
		g.nodes["worker-2"].attachKnown(t, "standby", prefixes("10.10.1.102/24", "2001:db8:10:1::102/64")...),
	}
	siblings := []*aPod{
		g.nodes["worker-1"].attachKnown(t, "sibling-1", prefixes("10.10.1.103/24", "2001:db8:10:1::103/64")...),
		g.nodes["worker-2"].attachKnown(t, "sibling-2", prefixes("10.10.1.104/24", "2001:db8:10:1::104/64")...),
	}
	for _, p := range pods {
		w.keep(t, p, log, ranges)
	}
	for _, a := range floating {
		pods[0].add(t, a)
	}
	var called, outage samples
	blindest := map[string]*samples{"the old ENI": {}, "the new ENI": {}}
	await(t, "the first owner", func() error { return g.ownedBy(floating, "worker-1") })
	for _, a := range floating {
		for _, s := range siblings {
			s.reaches(t, a.Addr()) // so that everybody has a neighbour entry
		}
	}
	for round := range rounds {
		from, to := pods[round%2], pods[(round+1)%2]
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
		for i, s := range siblings {
			where := blindest[map[bool]string{true: "the old ENI", false: "the new ENI"}[i == round%2]]
			for _, a := range floating {
				all.Go(func() {
					if s.sees(t, a.Addr()) {
						where.add(time.Since(began))
						outage.add(time.Since(began))
					}
				})
			}
		}
		all.Wait()
		if err := g.ownedBy(floating, to.node.name); err != nil {
			t.Fatalf("move %d: %v", round, err)
		}
		for _, a := range floating {
			at, ok := log.first(appeared[a.Addr()], a.Addr(), claims())
			if !ok {
				t.Fatalf("move %d: no call of EC2 names %s", round, a)
			}
			called.add(at.Sub(appeared[a.Addr()]))
		}
	}
	t.Logf("%d moves, %s: address appears to EC2 call: %s", rounds*len(floating), w.name, &called)
	t.Logf("outage: %s", &outage)
	for where, s := range blindest {
		t.Logf("for a sibling on %s: %s", where, s)
		if worst := s.max(); worst > blind {
			t.Errorf("a sibling on %s did not reach the address for %v, want at most %v", where, worst, blind)
		}
	}
}

// sees waits for an answer from an address, and says how it went.
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

// handover is between two pods on one ENI: EC2 need not know of it. The first pod's sidecar ends its own grace meanwhile.
func (g *ground) handover(t *testing.T, w way, log *ec2Log) {
	const ranges, grace = "10.10.1.94,2001:db8:10:1::94", 30 * time.Second
	floating := prefixes("10.10.1.94/32", "2001:db8:10:1::94/128")
	first := g.nodes["worker-1"].attachKnown(t, "first", prefixes("10.10.1.105/24", "2001:db8:10:1::105/64")...)
	second := g.nodes["worker-1"].attachKnown(t, "second", prefixes("10.10.1.106/24", "2001:db8:10:1::106/64")...)
	client := g.nodes["worker-2"].attachKnown(t, "client", prefixes("10.10.1.107/24", "2001:db8:10:1::107/64")...)
	w.keep(t, first, log, ranges)
	w.keep(t, second, log, ranges)
	for _, a := range floating {
		first.add(t, a)
	}
	await(t, "the first owner", func() error { return g.ownedBy(floating, "worker-1") })
	var histories []*history
	for _, a := range floating {
		histories = append(histories, g.watch(t, a.Addr()))
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
func (g *ground) splitBrain(t *testing.T, w way, log *ec2Log) {
	const ranges, lasts = "10.10.1.95,2001:db8:10:1::95", time.Minute
	floating := prefixes("10.10.1.95/32", "2001:db8:10:1::95/128")
	pods := []*aPod{
		g.nodes["worker-1"].attachKnown(t, "left", prefixes("10.10.1.108/24", "2001:db8:10:1::108/64")...),
		g.nodes["worker-2"].attachKnown(t, "right", prefixes("10.10.1.109/24", "2001:db8:10:1::109/64")...),
	}
	var keepers []*program
	for _, p := range pods {
		keepers = append(keepers, w.keep(t, p, log, ranges, "MULTUS_VPC_CHECK_INTERVAL=5s"))
	}
	var histories []*history
	for _, a := range floating {
		histories = append(histories, g.watch(t, a.Addr()))
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
		const nobodyAndTwo = 3 // for IPv6, one moment without an owner lies between two
		moves := slices.DeleteFunc(slices.Clone(seen), func(owners []string) bool { return len(owners) == 0 })
		if len(moves) > nobodyAndTwo-1 {
			t.Errorf("%s moved: %v, want at most two moves", floating[i], seen)
		}
		t.Logf("%s: %v", floating[i], seen)
	}
	contested := 0
	for i, k := range keepers {
		text, err := pods[i].get(t.Context(), "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, `multusvpc_sync_addresses{state="contested"} 0`) {
			continue
		}
		contested++
		if !strings.Contains(k.log.String(), "contested") {
			t.Errorf("the sidecar of %s says nothing of a contest", pods[i].Name)
		}
	}
	if contested == 0 {
		t.Error("no sidecar reports an address as contested")
	}
}

// after returns when so much time has passed.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}
