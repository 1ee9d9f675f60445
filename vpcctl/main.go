// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command vpcctl is the operator's command line: what the agent of this worker knows, and which addresses are registered for
// pods that are gone, what replaces networks of upstream's plugins. It reads the command line, asks the agent's socket, or EC2
// and Kubernetes, and prints. It changes nothing without being told to by --yes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	colour := isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" // https://no-color.org
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr, colour)
	stop()
	os.Exit(code)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Exit statuses.
const (
	exitOK       = 0
	exitFailure  = 1 // no answer, from an agent, EC2 or Kubernetes
	exitUsage    = 2 // the command line is wrong
	exitProblems = 3 // with --fail: problems, or orphans, were found
)

// door is what the process was given. The commands are its methods.
type door struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	colour         bool
}

func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer, colour bool) int {
	d := &door{getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr, colour: colour}
	root := &cobra.Command{
		Use:   "vpcctl",
		Short: "See what multus-vpc does, clean up, and migrate",
		Long: `See what multus-vpc does on a worker, and clean up what pods left behind.

Exit status: 0 done, 1 no answer from an agent, EC2 or Kubernetes, 2 the command line is wrong, 3 something was found (with --fail).`,
		Args:              noArguments,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &problem{status: exitUsage, err: err, hint: "see " + c.CommandPath() + " -h"}
	})
	root.AddCommand(d.statusCommand(), d.sweepCommand(), d.migrateCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return d.report(root.ExecuteContext(ctx))
}

// problem is an error with its exit status and what to do about it.
type problem struct {
	status int
	err    error
	hint   string // none when empty
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// errProblems has been told by the table itself.
var errProblems = errors.New("problems were found")

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return &problem{
		status: exitUsage, err: fmt.Errorf("%s: unexpected argument %q", c.CommandPath(), args[0]), hint: "see " + c.CommandPath() + " -h",
	}
}

// report tells the user of an error and returns the exit status.
func (d *door) report(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errProblems):
		return exitProblems
	}
	text, status := "vpcctl: "+err.Error()+"\n", exitFailure
	if p, ok := errors.AsType[*problem](err); ok {
		status = p.status
		if p.hint != "" {
			text += "hint: " + strings.ReplaceAll(p.hint, "\n", "\nhint: ") + "\n"
		}
	}
	_, _ = io.WriteString(d.stderr, text) // nowhere left to complain
	return status
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
