// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/test/stage"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// TestKilledAgentsAndIPAMPluginsLoseNothing runs on every kernel.
func TestKilledAgentsAndIPAMPluginsLoseNothing(t *testing.T) {
	campaign{
		wiring: stage.VPCIPAM(),
		perWorker: map[round]int{
			{beforeAssign, theAgent}:   13,
			{lateAssign, theAgent}:     6,
			{afterAssign, theAgent}:    14,
			{beforeUnassign, theAgent}: 3,
			{lateUnassign, theAgent}:   2,
			{afterUnassign, theAgent}:  3,
			{unassigned, theAgent}:     4,
			{afterLedger, theAgent}:    13,
			{afterReply, theAgent}:     11,
			{beforeAssign, thePlugin}:  4,
			{afterAssign, thePlugin}:   3,
			{afterLedger, thePlugin}:   6,
			{beforeAssign, both}:       2,
			{afterAssign, both}:        2,
			{afterLedger, both}:        2,
		},
		batch: 17,
		kills: 160, inFlight: 150,
		steps: []step{beforeAssign, lateAssign, afterAssign, beforeUnassign, lateUnassign, afterUnassign, afterLedger, afterReply},
	}.run(t)
}

// campaign is a run with what it has to reach.
type campaign struct {
	wiring    stage.Wiring
	perWorker map[round]int
	batch     int // rounds between two audits
	// What it must come to: processes killed, of these with a request in flight, and steps each of which was met.
	kills, inFlight int
	steps           []step
}

func (c campaign) run(t *testing.T) {
	seed := seedOf(t)
	t.Logf("MULTUS_VPC_SEED=%d", seed)
	g := up(t, c.wiring, os.Getenv("MULTUS_VPC_BIN"), seed)
	links := g.links()
	var counted tally
	t.Cleanup(func() {
		t.Logf("%s", &counted)
		if t.Failed() {
			g.report()
		}
	})
	began := time.Now()
	plans := make([][]round, len(g.nodes))
	for i, n := range g.nodes {
		plans[i] = schedule(c.perWorker, n.rng)
	}
	for at := 0; at < len(plans[0]); at += c.batch {
		g.batch(plans, at, at+c.batch, &counted)
		g.audit(false)
		if g.ctx.Err() != nil {
			return
		}
		t.Logf("%v: %d rounds on each worker, %+v", time.Since(began).Round(time.Second), min(at+c.batch, len(plans[0])), counted.total())
	}
	g.audit(true)
	g.closeBooks()
	if got := g.links(); !slices.Equal(links, got) {
		t.Errorf("links of the workers before %q and after %q", links, got)
	}
	c.judge(t, &counted)
}

// batch runs a part of both workers' plans at the same time.
func (g *ground) batch(plans [][]round, from, to int, counted *tally) {
	var wg sync.WaitGroup
	for i, n := range g.nodes {
		wg.Go(func() {
			for _, r := range plans[i][from:min(to, len(plans[i]))] {
				began := time.Now()
				for g.ctx.Err() == nil && n.run(r, counted) == 0 {
					if time.Since(began) > patience {
						g.fail("%s on %s: there was no process to kill in %v", r, n.name, patience)
					}
				}
			}
		})
	}
	wg.Wait()
}

// judge demands what the campaign is for.
func (c campaign) judge(t *testing.T, counted *tally) {
	t.Helper()
	if sum := counted.total(); sum.kills < c.kills || sum.inFlight < c.inFlight {
		t.Errorf("%d kills, %d with a request in flight; want %d and %d", sum.kills, sum.inFlight, c.kills, c.inFlight)
	}
	for _, s := range c.steps {
		if counted.of(s).inFlight == 0 {
			t.Errorf("no kill %s met a request in flight", s)
		}
	}
}

// links lists the links of the workers' namespaces.
func (g *ground) links() (all []string) {
	for _, n := range g.nodes {
		indexes, err := pod.LinkIndexes(n.netns)
		if err != nil {
			g.fail("%v", err)
		}
		for name := range indexes {
			all = append(all, n.name+" "+name)
		}
	}
	slices.Sort(all)
	return all
}

// report prints what a failure is understood by.
func (g *ground) report() {
	const lines = 150
	g.notes.Lock()
	defer g.notes.Unlock()
	for _, line := range g.log {
		g.t.Log(line)
	}
	for _, n := range g.nodes {
		log, err := os.ReadFile(n.agent.LogFile())
		if err != nil {
			g.t.Log(err)
			continue
		}
		all := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
		g.t.Logf("the last of %d lines of the agent's log on %s:\n%s", len(all), n.name, bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
	}
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("MULTUS_VPC_SEED")
	if text == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("MULTUS_VPC_SEED: %v", err)
	}
	return seed
}

// TestMain keeps the first thread as [stage] demands.
func TestMain(m *testing.M) {
	runtime.LockOSThread() // the main goroutine still runs on the first thread
	os.Exit(run(m))
}

// run has the programs for the tests.
func run(m *testing.M) int {
	bin, remove, err := worker.Programs()
	if err == nil {
		err = os.Setenv("MULTUS_VPC_BIN", bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		return 1
	}
	code := m.Run()
	if err := remove(); err != nil {
		fmt.Fprintln(os.Stderr, "kill:", err)
		return 1
	}
	return code
}
