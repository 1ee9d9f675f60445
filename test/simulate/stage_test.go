// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package simulate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// What the workers of a simulation have in the end.
const (
	firstStock = 14              // DefaultConfig's MinimumIPTarget, and all that an m5.2xlarge's ENI holds
	topUpPods  = 12              // of each worker in a top-up
	topUpStock = topUpPods + 5   // and DefaultConfig's WarmIPTarget
	topUpTime  = time.Minute     // in which these pods come, at random
	steadyPods = 5               // of each worker in the steady state
	steadyTime = 24 * time.Hour  // that is watched
	patience   = 4 * time.Hour   // of simulated time, for a fleet to be filled
	aftermath  = 3 * time.Minute // watched after the last worker is filled, for calls that nobody needed
)

// stage is one kind of event in a fleet's life.
type stage struct {
	name, what string
	run        func(size, full int, direct bool) (result, error)
}

// stages lists what can be simulated. Each runs in a synctest bubble of its own.
var stages = []stage{
	{"start-up", "all agents start at once into a reservation that is tagged for pools", startUp},
	{"lost-replies", "start-up while one reply of EC2 in fifty is lost", lostReplies},
	{"first-pod", "all agents start at once, each with its first pod", firstPod},
	{"top-up", "each worker of a running fleet gets 12 pods within a minute", topUp},
	{"scale-out", "a tenth more workers join a running fleet at once; figures per worker that joins", scaleOut},
	{"steady", "24 hours in which nothing happens to workers with 5 pods each", steady},
}

func stageOf(name string) (stage, error) {
	if i := slices.IndexFunc(stages, func(s stage) bool { return s.name == name }); i >= 0 {
		return stages[i], nil
	}
	return stage{}, fmt.Errorf("no scenario %q", name)
}

func startUp(size, full int, direct bool) (result, error) {
	f, err := newFleet(plan{workers: size, instanceType: "m5.2xlarge", perWorker: firstStock, full: full, tagged: true, direct: direct})
	if err != nil {
		return result{}, err
	}
	defer f.end()
	m := f.measure(f.workers)
	f.start(f.workers)
	return m.until(firstStock)
}

func lostReplies(size, full int, direct bool) (result, error) {
	const share = 0.02
	f, err := newFleet(plan{workers: size, instanceType: "m5.2xlarge", perWorker: firstStock, full: full, tagged: true, direct: direct, lost: share})
	if err != nil {
		return result{}, err
	}
	defer f.end()
	m := f.measure(f.workers)
	f.start(f.workers)
	return m.until(firstStock)
}

func firstPod(size, full int, direct bool) (result, error) {
	f, err := newFleet(plan{workers: size, instanceType: "m5.2xlarge", perWorker: firstStock, full: full, direct: direct})
	if err != nil {
		return result{}, err
	}
	defer f.end()
	m := f.measure(f.workers)
	f.start(f.workers)
	return m.until(firstStock, func() error { return m.pods(1, 0) })
}

func topUp(size, full int, direct bool) (result, error) {
	f, err := newFleet(plan{workers: size, instanceType: "m5.4xlarge", perWorker: topUpStock, full: full, tagged: true, direct: direct})
	if err != nil {
		return result{}, err
	}
	defer f.end()
	if err := f.run(f.workers); err != nil {
		return result{}, err
	}
	m := f.measure(f.workers)
	return m.until(topUpStock, func() error { return m.pods(topUpPods, topUpTime) })
}

func scaleOut(size, full int, direct bool) (result, error) {
	joiners := max(1, size/10)
	f, err := newFleet(plan{workers: size + joiners, instanceType: "m5.2xlarge", perWorker: firstStock, full: full, tagged: true, direct: direct})
	if err != nil {
		return result{}, err
	}
	defer f.end()
	// The joiners are of all clusters alike.
	rand.Shuffle(len(f.workers), func(i, j int) { f.workers[i], f.workers[j] = f.workers[j], f.workers[i] })
	if err := f.run(f.workers[:size]); err != nil {
		return result{}, err
	}
	m := f.measure(f.workers[size:])
	f.start(f.workers[size:])
	return m.until(firstStock)
}

func steady(size, full int, direct bool) (result, error) {
	f, err := newFleet(plan{workers: size, instanceType: "m5.2xlarge", perWorker: firstStock, full: full, tagged: true, direct: direct})
	if err != nil {
		return result{}, err
	}
	defer f.end()
	if err := f.run(f.workers); err != nil {
		return result{}, err
	}
	if err := f.measure(f.workers).pods(steadyPods, 0); err != nil {
		return result{}, err
	}
	rest(aftermath)
	m := f.measure(f.workers)
	rest(steadyTime)
	r := m.result()
	m.hourly(&r)
	return r, f.audit(f.workers)
}

// run starts the workers and waits until the fleet has its first stock and is quiet.
func (f *fleet) run(workers []*worker) error {
	m := f.measure(workers)
	f.start(workers)
	_, err := m.until(firstStock)
	return err
}

// rest lets simulated time pass.
func rest(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	<-ctx.Done()
}

// pods has each worker get n pods, spread over a time, and waits until all of them run.
func (m *measurement) pods(n int, spread time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all errgroup.Group
	for _, w := range m.workers {
		for i := range n {
			after := time.Duration(0)
			if spread > 0 {
				after = rand.N(spread)
			}
			all.Go(func() error {
				rest(after)
				took, failures, err := w.pod(ctx, fmt.Sprintf("pod-%d", i))
				m.podRuns(took, failures)
				return err
			})
		}
	}
	return all.Wait()
}

// until waits until each worker has n addresses and what happens meanwhile is over, and some time more.
func (m *measurement) until(n int, meanwhile ...func() error) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all errgroup.Group
	for _, do := range meanwhile {
		all.Go(do)
	}
	m.filled = make([]time.Duration, len(m.workers))
	for i, w := range m.workers {
		all.Go(func() error {
			at, err := w.filled(ctx, n)
			m.filled[i] = at.Sub(m.began)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return result{}, err
	}
	rest(aftermath)
	return m.result(), m.fleet.audit(m.workers)
}
