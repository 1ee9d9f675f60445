// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command vpclab is a VPC on one machine: EC2 and instance metadata endpoints with EC2's rules, limits, errors and
// delays, for trying the suite and for its tests. It reads the command line and a scenario file, opens sockets, and says
// where they are; what the VPC does is in internal/lab.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitOK      = 0 // done, or stopped by SIGTERM or SIGINT
	exitFailure = 1 // the machine did not let us, or an assertion of the demo failed
	exitUsage   = 2 // the command line or the scenario is wrong
)

// door is what the process was given. The commands are its methods.
type door struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	d := &door{getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "vpclab",
		Short: "A VPC on one machine",
		Long: `A VPC on one machine: EC2 and instance metadata endpoints with EC2's rules, limits,
errors and delays. No AWS account is needed, and none is touched.

Exit status: 0 done or stopped, 1 failed, 2 the command line or the scenario is wrong.`,
		Args:              noArguments,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{err: err, hints: []string{"see " + c.CommandPath() + " -h"}}
	})
	root.AddCommand(d.commands()...)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return d.report(root.ExecuteContext(ctx))
}

// commands are the subcommands.
func (d *door) commands() []*cobra.Command {
	return []*cobra.Command{
		d.serveCommand(),
		d.upCommand(),
		d.demoCommand(),
		d.workersCommand(),
	}
}

// usageError is a mistake of who called us; hints say what to do about it.
type usageError struct {
	err   error
	hints []string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &usageError{
		err:   fmt.Errorf("%s: unexpected argument %q", c.CommandPath(), args[0]),
		hints: []string{"see " + c.CommandPath() + " -h"},
	}
}

// report tells the user of an error and returns the exit status.
func (d *door) report(err error) int {
	if err == nil {
		return exitOK
	}
	var b strings.Builder
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(&b, "vpclab: %s\n", strings.TrimSuffix(line, "\n"))
	}
	usage, isUsage := errors.AsType[*usageError](err)
	if isUsage {
		for _, h := range usage.hints {
			fmt.Fprintf(&b, "hint: %s\n", h)
		}
	}
	_, _ = io.WriteString(d.stderr, b.String()) // nowhere left to complain
	if isUsage {
		return exitUsage
	}
	return exitFailure
}

// scenarioErrors makes every problem of a scenario file a line with the file's name.
func scenarioErrors(file string, err error) error {
	wrong, ok := errors.AsType[*strictyaml.Error](err)
	if !ok {
		return fmt.Errorf("%s: %w", file, err)
	}
	lines := make([]error, len(wrong.Problems))
	for i, p := range wrong.Problems {
		lines[i] = fmt.Errorf("%s: %s", file, p)
	}
	return &usageError{err: errors.Join(lines...), hints: []string{"vpclab serve -h explains the scenario file"}}
}
