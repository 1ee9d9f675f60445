// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
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
}

// cell is a plugin at a number of processes at a time.
type cell struct {
	plugin   string
	parallel int
	rounds   []round
}

// measure runs everything.
func measure(ctx context.Context, o options, stderr io.Writer) (report, error) {
	cells, err := measureCalls(ctx, o, stderr)
	if err != nil {
		return report{}, err
	}
	fmt.Fprintf(stderr, "bench: fill a worker with %d pods\n", fullPods)
	n, err := measureNode(ctx, o.bin, stderr)
	if err != nil {
		return report{}, fmt.Errorf("fill a worker: %w", err)
	}
	r := newReport(o, cells)
	r.Node = n
	return r, nil
}

// measureCalls has the plugins take turns.
func measureCalls(ctx context.Context, o options, stderr io.Writer) (_ []cell, err error) {
	containers := max(o.batch, slices.Max(o.parallel))
	g, err := raise(ctx, o.bin, containers, stderr)
	defer func() {
		if err != nil && g.worker != nil {
			err = fmt.Errorf("%w\nthe agent said:\n%s", err, g.worker.Log())
		}
		err = errors.Join(err, g.close())
	}()
	if err != nil {
		return nil, err
	}
	plugins := g.plugins(o)
	cells := make([]cell, 0, len(o.parallel)*len(plugins))
	for _, parallel := range o.parallel {
		for _, p := range plugins {
			cells = append(cells, cell{plugin: p.name, parallel: parallel})
		}
	}
	for n := range o.rounds {
		fmt.Fprintf(stderr, "bench: round %d of %d\n", n+1, o.rounds)
		for i, parallel := range o.parallel {
			for j := range plugins {
				k := (n + j) % len(plugins) // another one begins each time
				r, turnErr := g.turn(ctx, plugins[k], fmt.Sprintf("%d-%d", n, parallel), parallel, max(o.batch, parallel))
				if turnErr != nil {
					return nil, turnErr
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
		calls[i] = call{program: p.program, id: fmt.Sprintf("%s-%d", id, i), netns: netns.Path(g.netns[i]), config: config}
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

// call is a container's call of a plugin.
type call struct {
	program, id, netns string
	config             []byte
}

// answer is what came of it.
type answer struct {
	took   time.Duration
	stdout []byte
	err    error
}

// all runs the calls, a number at a time, in the worker's network namespace.
func (g *ground) all(ctx context.Context, command string, calls []call, parallel int) ([]answer, error) {
	answers := make([]answer, len(calls))
	next := make(chan int, len(calls))
	for i := range calls {
		next <- i
	}
	close(next)
	var group errgroup.Group
	for range min(parallel, len(calls)) {
		group.Go(func() error {
			return netns.Do(g.worker.Netns, func() error {
				for i := range next {
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					var err error
					if answers[i], err = calls[i].run(ctx, command); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	return answers, group.Wait()
}

// run executes the plugin as a runtime does, but with files instead of pipes: nothing of this process takes part. The
// error is that it could not be run.
func (c call) run(ctx context.Context, command string) (a answer, err error) {
	stdin, err := scratch(c.config)
	if err != nil {
		return a, err
	}
	defer stdin.Close()
	stdout, err := scratch(nil)
	if err != nil {
		return a, err
	}
	defer stdout.Close()
	cmd := exec.CommandContext(ctx, c.program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stdout
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=/nonexistent", "CNI_COMMAND=" + command,
		"CNI_CONTAINERID=" + c.id, "CNI_NETNS=" + c.netns, "CNI_IFNAME=net1",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	err = cmd.Run()
	a.took = time.Since(start)
	if ctx.Err() != nil {
		return a, context.Cause(ctx)
	}
	a.stdout, a.err = contents(stdout)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		a.err = fmt.Errorf("%w: %s", exit, bytes.TrimSpace(a.stdout))
		err = nil
	}
	return a, err
}

// contents are what was written to a scratch file.
func contents(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}
