// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command bench compares the plugins with those of others in one run: times of ADD and DEL, pods per second, what failed,
// what was given twice and what was left behind. `make bench` uses it, docs/benchmarks.md explains it. Every call is a
// process of its own for a container of its own, executed as a runtime does; vpcipam and vpcipvlan ask the real agent on
// a worker of the lab, which has stock; whereabouts asks a real API server. The plugins take turns round by round, so that
// a noisy machine is noisy for all of them: quote ratios, not times. Those that make interfaces are compared where ipvlan
// works, in a virtual machine if need be. At last it fills a worker with pods and prints what that cost in EC2 calls and
// in memory. It measures and judges nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const usage = `usage: bench [flags]

Compares vpcipam with static, host-local and whereabouts, and vpcipvlan with ipvlan: one process per call. Needs root.

`

func main() {
	if len(os.Args) == 2 && os.Args[1] == starterArg {
		os.Exit(serveCalls(os.Stdin, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// options is what the command line asks for.
type options struct {
	bin      string // folder of agent, vpcipam and vpcipvlan
	peers    string // folder of the reference plugins
	stack    string // folder of etcd, kube-apiserver and whereabouts; empty: without them
	vm       string // the program that runs others where ipvlan works; empty: without ipvlan
	inside   bool   // compare interface plugins, here
	idle     string // the program that does nothing
	parallel []int  // processes at a time
	rounds   int
	batch    int // ADDs in a round, at least
	output   string
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	if err := compare(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// compare measures and reports.
func compare(ctx context.Context, o options, stdout, stderr io.Writer) error {
	if o.inside {
		t, err := measureInterfaces(ctx, o, stderr)
		if err != nil {
			return err
		}
		return writeJSON(stdout, t)
	}
	r, err := measure(ctx, o, stderr)
	if err != nil {
		return err
	}
	return r.write(stdout, o.output)
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{parallel: []int{1, 8, 32, 110}}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); fs.PrintDefaults() }
	fs.StringVar(&o.bin, "bin", getenv("MULTUS_VPC_BIN"), "`folder` of agent, vpcipam and vpcipvlan (MULTUS_VPC_BIN)")
	fs.StringVar(&o.peers, "peers", getenv("MULTUS_VPC_PEERS"), "`folder` of the reference plugins (MULTUS_VPC_PEERS)")
	fs.StringVar(&o.stack, "stack", getenv("MULTUS_VPC_STACK"), "`folder` of etcd, kube-apiserver and whereabouts (MULTUS_VPC_STACK); empty: without whereabouts")
	fs.StringVar(&o.vm, "vm", "", "`program` that runs others where ipvlan works (test/vm); empty: without the interface plugins")
	fs.BoolVar(&o.inside, "interfaces", false, "compare the interface plugins alone, on this kernel, and print JSON")
	fs.StringVar(&o.idle, "idle", "", "`program` that does nothing; default: idle beside this one")
	fs.IntVar(&o.rounds, "rounds", 9, "how often every plugin has its turn")
	fs.IntVar(&o.batch, "batch", 32, "ADDs of a plugin in its turn, at least")
	fs.StringVar(&o.output, "o", "table", "output: table, markdown or json")
	fs.Func("parallel", "`numbers` of processes at a time (default 1,8,32,110)", func(s string) (err error) {
		o.parallel, err = numbers(s)
		return err
	})
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.idle == "" {
		self, err := os.Executable()
		if err != nil {
			return o, err
		}
		o.idle = filepath.Join(filepath.Dir(self), "idle")
	}
	return o, o.validate(fs.Args())
}

// maxParallel and maxBatch are what the worker has stock for, even while all of a round's addresses cool.
const maxParallel, maxBatch = 128, 128

func (o options) validate(rest []string) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(len(rest) == 0, "unexpected argument %q", rest)
	check(filepath.IsAbs(o.bin), "-bin %q: must name a folder absolutely", o.bin)
	check(filepath.IsAbs(o.peers), "-peers %q: must name a folder absolutely", o.peers)
	check(o.stack == "" || filepath.IsAbs(o.stack), "-stack %q: must name a folder absolutely", o.stack)
	check(o.rounds > 0, "-rounds %d: must be more than 0", o.rounds)
	check(o.batch > 0 && o.batch <= maxBatch, "-batch %d: must be 1 to %d", o.batch, maxBatch)
	for _, p := range o.parallel {
		check(p > 0 && p <= maxParallel, "-parallel %d: must be 1 to %d", p, maxParallel)
	}
	check(slices.Contains([]string{"table", "markdown", "json"}, o.output), "-o %q: must be table, markdown or json", o.output)
	return errors.Join(errs...)
}

func numbers(s string) ([]int, error) {
	var list []int
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", word)
		}
		list = append(list, n)
	}
	return list, nil
}
