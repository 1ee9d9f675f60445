// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command bench compares vpcipam with the reference IPAM plugins in one run and prints one table: times of ADD and DEL,
// pods per second, what failed and what was given twice. `make bench` uses it. Every call is a process of its own for a
// container of its own, executed as a runtime does; vpcipam asks the real agent on a worker of the lab, which has stock.
// The plugins take turns round by round, so that a noisy machine is noisy for all of them: quote ratios, not times.
// At last it fills a worker with pods and prints what that cost in EC2 calls and in memory. It measures and judges nothing.
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
	"strconv"
	"strings"
	"syscall"
)

const usage = `usage: bench [flags]

Compares vpcipam with static and host-local: IPAM plugins alone, one process per call. Needs root.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// options is what the command line asks for.
type options struct {
	bin      string // folder of agent and vpcipam
	peers    string // folder of the reference plugins
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
	r, err := measure(ctx, o, stderr)
	if err == nil {
		err = r.write(stdout, o.output)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	o := options{parallel: []int{1, 8, 32, 110}}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); fs.PrintDefaults() }
	fs.StringVar(&o.bin, "bin", getenv("MULTUS_VPC_BIN"), "`folder` of agent and vpcipam (MULTUS_VPC_BIN)")
	fs.StringVar(&o.peers, "peers", getenv("MULTUS_VPC_PEERS"), "`folder` of the reference plugins (MULTUS_VPC_PEERS)")
	fs.StringVar(&o.idle, "idle", "", "`program` that does nothing; default: idle beside this one")
	fs.IntVar(&o.rounds, "rounds", 9, "how often every plugin has its turn")
	fs.IntVar(&o.batch, "batch", 32, "ADDs of a plugin in its turn, at least")
	fs.StringVar(&o.output, "o", "table", "output: table or json")
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
	check(o.rounds > 0, "-rounds %d: must be more than 0", o.rounds)
	check(o.batch > 0 && o.batch <= maxBatch, "-batch %d: must be 1 to %d", o.batch, maxBatch)
	for _, p := range o.parallel {
		check(p > 0 && p <= maxParallel, "-parallel %d: must be 1 to %d", p, maxParallel)
	}
	check(o.output == "table" || o.output == "json", "-o %q: must be table or json", o.output)
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
