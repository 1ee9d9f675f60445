// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/stage"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

var (
	seedFlag  = flag.Uint64("chaos.seed", 0, "repeats the schedule of a run; 0 draws one (CHAOS_SEED)")
	killsFlag = flag.Int("chaos.kills", 0, "processes to kill; 0 is a short run (CHAOS_KILLS)")
	keepFlag  = flag.String("chaos.keep", "", "folder to keep the diary and the agents' logs in (CHAOS_KEEP)")
)

// TestMain keeps the first thread as [stage] demands.
func TestMain(m *testing.M) {
	runtime.LockOSThread() // the main goroutine still runs on the first thread
	os.Exit(run(m))
}

// run has the programs for the tests.
func run(m *testing.M) int {
	flag.Parse()
	bin, remove, err := worker.Programs()
	if err == nil {
		err = os.Setenv("MULTUS_VPC_BIN", bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	code := m.Run()
	if err := remove(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return code
}

// TestChaos runs on every kernel, in two weathers at the same time.
func TestChaos(t *testing.T) {
	brisk := campaign{
		weather: weather{name: "brisk", lags: lags(100*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond), cut: 5 * time.Second, settle: time.Minute},
		wiring:  stage.VPCIPAM(), kills: 16, epochs: 2,
	}
	slow := campaign{
		weather: weather{name: "slow", lags: lags(time.Second, 4*time.Second, 6*time.Second), cut: 5 * time.Second, settle: 2 * time.Minute},
		wiring:  stage.VPCIPAM(), kills: 6, epochs: 1,
	}
	if kills := int(number(t, "CHAOS_KILLS", uint64(*killsFlag))); kills > 0 {
		slow.lags = lags(time.Second, 11*time.Second, 12*time.Second) // beyond what the agent takes for settled
		slow.kills, brisk.kills = kills/5, kills-kills/5
		for _, c := range []*campaign{&brisk, &slow} {
			c.epochs, c.cut, c.settle = (c.kills+11)/12, 24*time.Second, 6*time.Minute
		}
	}
	for _, c := range []campaign{brisk, slow} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t)
		})
	}
}

func lags(route, imds, describe time.Duration) scenario.Propagation {
	return scenario.Propagation{Route: route, IMDS: imds, Describe: describe}
}

// campaign is a run through one weather.
type campaign struct {
	weather
	wiring stage.Wiring
	kills  int // processes to kill at least
	epochs int // into how many epochs they are divided at least
}

func (c campaign) run(t *testing.T) {
	seed := number(t, "CHAOS_SEED", *seedFlag)
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("CHAOS_SEED=%d", seed)
	s := up(t, c.wiring, c.weather, seed)
	t.Cleanup(func() {
		t.Logf("CHAOS_SEED=%d, %s:\n%s", seed, c.name, &s.tally)
		s.keep()
		if t.Failed() {
			s.report()
		}
	})
	watching, stop := context.WithCancel(s.ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { s.watch(watching) })
	defer watcher.Wait()
	defer stop()
	began := time.Now()
	deck := newDeck(s.rng)
	for epoch := 1; s.ctx.Err() == nil && (epoch <= c.epochs || s.tally.killsSoFar() < c.kills); epoch++ {
		s.epoch(epoch, deck, max((c.kills+c.epochs-1)/c.epochs, 4))
		s.audit(false)
		t.Logf("%v: epoch %d, %d kills", time.Since(began).Round(time.Second), epoch, s.tally.killsSoFar())
	}
	if s.ctx.Err() == nil {
		s.audit(true)
	}
}

// deck deals the calamities, each once before any comes again.
type deck struct {
	rng  *rand.Rand
	left []calamity
}

func newDeck(rng *rand.Rand) *deck { return &deck{rng: rng} }

func (d *deck) deal() calamity {
	if len(d.left) == 0 {
		d.left = calamities()
		d.rng.Shuffle(len(d.left), func(i, k int) { d.left[i], d.left[k] = d.left[k], d.left[i] })
	}
	c := d.left[0]
	d.left = d.left[1:]
	return c
}

// epoch is load, kills and a few calamities at the same time, and ends when they are over and the kubelets rest.
func (s *scene) epoch(number int, deck *deck, kills int) {
	const calamities = 3
	loading, rest := context.WithCancel(s.ctx)
	var kubelets, doom sync.WaitGroup
	for i := range s.all() {
		own := s.fork()
		kubelets.Go(func() { s.load(loading, i, own) })
	}
	for i := range s.all() {
		own, mine := s.fork(), kills/len(s.all())
		if i < kills%len(s.all()) {
			mine++
		}
		doom.Go(func() { s.snipe(i, own, mine) })
	}
	order := s.rng.Perm(len(s.all()))
	for i := range calamities {
		c, own, on := deck.deal(), s.fork(), order[i%len(order)]
		s.tally.count("calamity: " + c.name)
		doom.Go(func() {
			if s.pause(s.ctx, between(own, 100*time.Millisecond, 2*time.Second)) {
				w := s.all()[on]
				s.note("epoch", "%d: %s on %s", number, c.name, w.name)
				c.on(s.ctx, w, own)
			}
		})
	}
	doom.Wait()
	s.note("epoch", "%d: the calamities are over", number)
	rest()
	kubelets.Wait()
	s.note("epoch", "%d: the kubelets rest", number)
}

func (s *scene) fork() *rand.Rand { return rand.New(rand.NewPCG(s.rng.Uint64(), 0)) }

// load keeps kubelets at work on a worker, and on the one that takes its place.
func (s *scene) load(ctx context.Context, at int, rng *rand.Rand) {
	for ctx.Err() == nil {
		now := s.all()[at]
		alive, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(now.powered(), cancel)
		now.kubelets(alive, rng)
		stop()
		cancel()
		s.pause(ctx, 50*time.Millisecond) // the worker is off
	}
}

// snipe kills processes of a worker at random moments.
func (s *scene) snipe(at int, rng *rand.Rand, kills int) {
	const tries = 20
	for range kills {
		for range tries {
			if !s.pause(s.ctx, between(rng, 10*time.Millisecond, 900*time.Millisecond)) {
				return
			}
			w := s.all()[at]
			if rng.IntN(5) < 2 && killPlugin(w, rng) || killAgent(s.ctx, w, rng) {
				break
			}
		}
	}
}

// report prints what a failure is understood by.
func (s *scene) report() {
	const events, lines = 150, 60
	s.t.Logf("CHAOS_SEED=%d: the last events:\n%s", s.seed, strings.Join(s.diary.last(events), "\n"))
	for _, w := range s.all() {
		log, err := os.ReadFile(w.agent.LogFile())
		if err != nil {
			s.t.Log(err)
			continue
		}
		all := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
		s.t.Logf("the last of %d lines of the agent's log on %s (%s):\n%s", len(all), w.name, w.eni, bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
	}
}

// keep copies the diary and the agents' logs to where the run is asked to.
func (s *scene) keep() {
	dir := *keepFlag
	if dir == "" {
		dir = os.Getenv("CHAOS_KEEP")
	}
	if dir == "" {
		return
	}
	err := os.WriteFile(filepath.Join(dir, s.weather.name+".diary"), []byte(strings.Join(s.diary.last(1<<20), "\n")), 0o644)
	for _, w := range s.all() {
		log, readErr := os.ReadFile(w.agent.LogFile())
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(dir, s.weather.name+"."+w.name+".log"), log, 0o644))
	}
	if err != nil {
		s.t.Error(err)
	}
}

// number is the value of a flag, or of its variable.
func number(t *testing.T, variable string, given uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if given != 0 || text == "" {
		return given
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}
