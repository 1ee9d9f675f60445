// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// round is one turn of a plugin: a number of containers come, and go.
type round struct {
	add, del []time.Duration // of the calls that succeeded
	adding   time.Duration   // from the first ADD's start to the last one's end
	failures []error
	twice    int // addresses that more than one container got
	left     int // addresses that are still taken when every container was deleted
}

// cell is a plugin at a number of processes at a time.
type cell struct {
	plugin   string
	version  string // of a program that is not this project's
	parallel int
	rounds   []round
}

// measure runs everything.
func measure(ctx context.Context, o options, stderr io.Writer) (r report, err error) {
	if r.table, err = measureIPAM(ctx, o, stderr); err != nil {
		return r, err
	}
	if o.vm != "" {
		if r.Interfaces, err = askVM(ctx, o, stderr); err != nil {
			return r, fmt.Errorf("interface plugins: %w", err)
		}
	}
	fmt.Fprintf(stderr, "bench: fill a worker with %d pods\n", fullPods)
	if r.Node, err = measureNode(ctx, o.bin, stderr); err != nil {
		return r, fmt.Errorf("fill a worker: %w", err)
	}
	return r, nil
}

// measureIPAM compares IPAM plugins.
func measureIPAM(ctx context.Context, o options, stderr io.Writer) (_ table, err error) {
	g := &ground{enis: podENIs, perENI: perENI}
	defer func() { err = g.closeAfter(err) }()
	if err = g.raise(ctx, o.bin, o.containers(), stderr); err != nil {
		return table{}, err
	}
	plugins := g.ipamPlugins(o)
	if o.stack == "" {
		fmt.Fprintln(stderr, "bench: without whereabouts, for which -stack was not given")
	} else {
		var c *control
		if c, err = startControl(ctx, o.stack); err != nil {
			return table{}, err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		plugins = append(plugins, c.plugin(o, g))
	}
	cells, err := g.compare(ctx, o, plugins, stderr)
	return newTable(o, reference, cells), err
}

// measureInterfaces compares chains of interface and IPAM plugins.
func measureInterfaces(ctx context.Context, o options, stderr io.Writer) (_ table, err error) {
	g := &ground{enis: interfaceENIs, perENI: interfaceStock}
	defer func() { err = g.closeAfter(err) }()
	if err = g.raise(ctx, o.bin, o.containers(), stderr); err != nil {
		return table{}, err
	}
	cells, err := g.compare(ctx, o, g.interfacePlugins(o), stderr)
	return newTable(o, interfaceReference, cells), err
}

// containers that a turn needs at most.
func (o options) containers() int { return max(o.batch, slices.Max(o.parallel)) }

// compare has the plugins take turns.
func (g *ground) compare(ctx context.Context, o options, plugins []plugin, stderr io.Writer) ([]cell, error) {
	cells := make([]cell, 0, len(o.parallel)*len(plugins))
	for _, parallel := range o.parallel {
		for _, p := range plugins {
			cells = append(cells, cell{plugin: p.name, version: p.version(), parallel: parallel})
		}
	}
	for n := range o.rounds {
		fmt.Fprintf(stderr, "bench: round %d of %d\n", n+1, o.rounds)
		for i, parallel := range o.parallel {
			for j := range plugins {
				k := (n + j) % len(plugins) // another one begins each time
				p := plugins[k]
				if p.rounds > 0 && n >= p.rounds {
					continue
				}
				r, err := g.turn(ctx, p, fmt.Sprintf("%d-%d", n, parallel), parallel, max(cmp.Or(p.batch, o.batch), parallel))
				if err != nil {
					return nil, err
				}
				c := &cells[i*len(plugins)+k]
				c.rounds = append(c.rounds, r)
			}
		}
	}
	return cells, nil
}

// turn is one round of a plugin: all ADDs, then all DELs.
func (g *ground) turn(ctx context.Context, p plugin, id string, parallel, size int) (round, error) {
	if p.ready != nil {
		if err := p.ready(ctx); err != nil {
			return round{}, err
		}
	}
	calls := make([]call, size)
	for i := range calls {
		config, err := p.config(i)
		if err != nil {
			return round{}, err
		}
		calls[i] = call{Program: p.program, Path: p.path, ID: fmt.Sprintf("%s-%d", id, i), Netns: netns.Path(g.netns[i]), Config: config}
		if !p.outside {
			calls[i].From = g.worker.Netns
		}
	}
	runtime.GC() // not in the middle
	var r round
	start := time.Now()
	added, err := g.all(ctx, "ADD", calls, parallel)
	if err != nil {
		return r, err
	}
	r.adding = time.Since(start)
	deleted, err := g.all(ctx, "DEL", calls, parallel)
	if err != nil {
		return r, err
	}
	r.count(p, added, deleted)
	if p.left != nil {
		if r.left, err = p.left(ctx); err != nil {
			return r, fmt.Errorf("count what %s left: %w", p.name, err)
		}
	}
	return r, nil
}

func (r *round) count(p plugin, added, deleted []answer) {
	given := map[netip.Addr]int{}
	for _, a := range added {
		addr, err := netip.Addr{}, a.err
		if err == nil && p.gives {
			addr, err = addressIn(a.stdout)
		}
		if err != nil {
			r.failures = append(r.failures, fmt.Errorf("%s ADD: %w", p.name, err))
			continue
		}
		r.add = append(r.add, a.took)
		if given[addr]++; p.gives && given[addr] == 2 {
			r.twice++
		}
	}
	for _, a := range deleted {
		if a.err != nil {
			r.failures = append(r.failures, fmt.Errorf("%s DEL: %w", p.name, a.err))
			continue
		}
		r.del = append(r.del, a.took)
	}
}

// all runs the calls, a number at a time.
func (g *ground) all(ctx context.Context, command string, calls []call, parallel int) ([]answer, error) {
	answers := make([]answer, len(calls))
	next := make(chan int, len(calls))
	for i := range calls {
		calls[i].Command = command
		next <- i
	}
	close(next)
	parallel = min(parallel, len(calls))
	for len(g.starters) < parallel {
		s, err := newStarter()
		if err != nil {
			return nil, err
		}
		g.starters = append(g.starters, s)
	}
	var group errgroup.Group
	for _, s := range g.starters[:parallel] {
		group.Go(func() error {
			for i := range next {
				var err error
				if answers[i], err = s.run(ctx, calls[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return answers, group.Wait()
}
