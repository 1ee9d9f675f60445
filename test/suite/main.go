// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command suite runs all tests and counts them. `make test` uses it. It runs the tests of this host with -race and
// -shuffle, and those behind the build tag ipvlan by the runner in test/vm, all in one machine. A test that
// `go test -list` would name and that did not pass is a failure: failed, skipped, or never run, and so is one that ran
// without being listed. Silence is no success. What the tests need (bin/, the programs of others) is built before,
// and reaches them by MULTUS_VPC_BIN, MULTUS_VPC_PEERS, MULTUS_VPC_STACK and, for the chart on this host, MULTUS_VPC_HELM; what tests mean is
// none of its business.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const usage = `usage: suite [-v] [host | ipvlan] [PACKAGE…]

Runs and counts the tests of this host and those that need ipvlan (both by default).
`

func main() {
	if len(os.Args) == 3 && os.Args[1] == insideArg {
		os.Exit(inside(os.Args[2], os.Stdout, os.Stderr))
	}
	if len(os.Args) > 3 && os.Args[1] == listingArg {
		os.Exit(listing(os.Args[2], os.Args[3:], os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// options is what the command line asks for.
type options struct {
	verbose      bool
	host, ipvlan bool
	packages     []string
	runner       string // the program of test/vm
	ship         []string
	self         string
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parse(args, getenv)
	if err != nil {
		fmt.Fprintf(stderr, "suite: %v\n%s", err, usage)
		return 2
	}
	var total tally
	for _, phase := range []struct {
		name string
		on   bool
		run  func(context.Context, options, *tally, io.Writer) error
	}{
		{"on this host, with -race -shuffle=on", o.host, runHost},
		{"behind the tag ipvlan", o.ipvlan, runIPVlan},
	} {
		if !phase.on {
			continue
		}
		start := time.Now()
		t := newTally(stdout, o.verbose)
		fmt.Fprintf(stdout, "── tests %s\n", phase.name)
		if err := phase.run(ctx, o, t, stderr); err != nil {
			t.fail("the run itself: %v", err)
		}
		t.compare()
		fmt.Fprintf(stdout, "── %d tests of %d listed passed in %d packages, %v\n", t.passed, t.listed(), t.packages, time.Since(start).Round(time.Second))
		total.add(t)
	}
	for _, problem := range total.problems {
		fmt.Fprintln(stdout, "✗", problem)
	}
	fmt.Fprintf(stdout, "%d passed, %d failed\n", total.passed, len(total.problems))
	if len(total.problems) > 0 || total.passed == 0 {
		return 1
	}
	return 0
}

func parse(args []string, getenv func(string) string) (options, error) {
	o := options{host: true, ipvlan: true}
	if len(args) > 0 && args[0] == "-v" {
		o.verbose, args = true, args[1:]
	}
	if len(args) > 0 && (args[0] == "host" || args[0] == "ipvlan") {
		o.host, o.ipvlan = args[0] == "host", args[0] == "ipvlan"
		args = args[1:]
	}
	o.packages = args
	if len(args) == 0 {
		o.packages = []string{"./..."}
	}
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	o.self = self
	o.runner = filepath.Join(filepath.Dir(self), "vm")
	for _, name := range []string{"MULTUS_VPC_BIN", "MULTUS_VPC_PEERS", "MULTUS_VPC_STACK"} {
		dir := getenv(name)
		if !filepath.IsAbs(dir) {
			return o, errors.New(name + " must name a folder absolutely (make test-unit and make test-vm set it)")
		}
		o.ship = append(o.ship, dir)
	}
	examples, err := filepath.Abs("examples") // what tests read beside their own packages
	if err != nil {
		return o, err
	}
	o.ship = append(o.ship, examples)
	return o, nil
}
