// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const modulePrefix = "github.com/multus-vpc/multus-vpc/"

// listed is what counts as a test: what runs without -bench and -fuzz.
const listed = "^(Test|Fuzz|Example)"

// testTimeout bounds one package's tests, far above what the longest needs on two cores.
const testTimeout = "-timeout=20m"

// runHost runs the tests that need nothing but this host. The list comes from the same kind of build, so the second
// one only links.
func runHost(ctx context.Context, o options, t *tally, stderr io.Writer) error {
	names, err := list(ctx, o.packages, stderr, []string{"-race"})
	if err != nil && len(names) == 0 {
		return err
	}
	if err != nil {
		t.fail("%v", err) // a package that does not build: the others still say what they know
	}
	for pkg, tests := range names {
		t.expect(pkg, tests)
	}
	args := append([]string{"test", "-json", "-race", "-shuffle=on", "-vet=off", testTimeout}, o.packages...)
	return stream(ctx, t, stderr, exec.CommandContext(ctx, "go", args...))
}

// stream runs a command that writes test events. Its own status says no more than the events do, unless there are
// none.
func stream(ctx context.Context, t *tally, stderr io.Writer, cmd *exec.Cmd) error {
	cmd.Stderr = stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err = cmd.Start(); err != nil {
		return err
	}
	err = errors.Join(t.read(out), cmd.Wait())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && len(t.problems) == 0 {
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return nil
}

// list asks Go which tests the packages have.
func list(ctx context.Context, packages []string, stderr io.Writer, flags []string) (map[string][]string, error) {
	args := slices.Concat([]string{"test", "-list", listed, "-vet=off"}, flags, packages)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = stderr
	if !slices.Contains(flags, "-race") {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	out, err := cmd.Output()
	names, failed := parseList(string(out))
	if err != nil {
		return names, fmt.Errorf("go test -list: %w: %s", err, strings.Join(failed, ", "))
	}
	return names, nil
}

// parseList reads the output of `go test -list`: names, and after them the line of their package, or FAIL and one that
// could not be listed.
func parseList(out string) (result map[string][]string, failed []string) {
	result = map[string][]string{}
	var names []string
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 1:
			names = append(names, fields[0])
		case len(fields) > 1 && fields[0] == "ok":
			result[fields[1]], names = names, nil
		case len(fields) > 1 && fields[0] == "FAIL":
			failed, names = append(failed, strings.Join(fields[1:], " ")), nil
		}
	}
	return result, failed
}
