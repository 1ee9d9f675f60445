// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const modulePrefix = "github.com/multus-vpc/multus-vpc/"

// listed is what counts as a test: what runs without -bench and -fuzz.
const listed = "^(Test|Fuzz|Example)"

// testTimeout bounds one package's tests, far above what the longest needs on two cores.
const testTimeout = "-timeout=20m"

// listingArg makes this program what `go test -exec` starts in the place of a test program: it lists the tests and becomes that program.
const listingArg = "listing"

// longest are the packages whose tests take minutes: they start first, so that the others run beside them and not before.
var longest = []string{"internal/pool", "test/kill", "test/chart", "internal/workereni", "internal/workerhook"}

// runHost runs the tests that need nothing but this host. Each test program is linked once: it lists its tests, which is what
// `go test -list` prints, before it runs them. Linking takes longer than most of them run.
func runHost(ctx context.Context, o options, t *tally, stderr io.Writer) (err error) {
	packages, err := testFiles(ctx, o.packages)
	if err != nil {
		return err
	}
	lists, err := os.MkdirTemp("", "multus-vpc-lists-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(lists)) }()
	program := fmt.Sprintf("'%s' %s '%s'", o.self, listingArg, lists)
	args := []string{"test", "-json", "-race", "-shuffle=on", "-vet=off", testTimeout, "-exec", program}
	err = stream(ctx, t, stderr, exec.CommandContext(ctx, "go", append(args, longestFirst(packages)...)...))
	return errors.Join(err, expectListed(lists, packages, t))
}

// longestFirst sorts the import paths.
func longestFirst(packages map[string]listedPackage) []string {
	place := func(path string) int {
		if i := slices.Index(longest, strings.TrimPrefix(path, modulePrefix)); i >= 0 {
			return i
		}
		return len(longest)
	}
	return slices.SortedFunc(maps.Keys(packages), func(a, b string) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a, b))
	})
}

// listing writes the list of a test program's tests to a file named after the package's folder, in which it is started, and becomes that
// program.
func listing(folder string, program []string, stderr io.Writer) int {
	dir, err := os.Getwd()
	if err == nil {
		var names []string
		if names, err = testsOf(context.Background(), program[0], dir); err == nil {
			err = os.WriteFile(filepath.Join(folder, url.PathEscape(dir)), []byte(strings.Join(names, "\n")), 0o600)
		}
	}
	if err != nil { // the program says itself what is wrong with it; that it was not listed is noticed
		fmt.Fprintf(stderr, "suite: list the tests of %s: %v\n", program[0], err)
	}
	fmt.Fprintf(stderr, "suite: run %s: %v\n", program[0], syscall.Exec(program[0], program, os.Environ()))
	return 2
}

// testsOf asks a test program for its tests, as `go test -list` does.
func testsOf(ctx context.Context, program, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, program, "-test.list", listed)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // a second, by default: https://go.dev/doc/articles/race_detector
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return strings.Fields(string(out)), err
}

// expectListed has the tally expect what was listed. A package with tests whose program never came to list them is a failure.
func expectListed(folder string, packages map[string]listedPackage, t *tally) error {
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		if len(packages[path].files()) == 0 {
			continue
		}
		names, err := os.ReadFile(filepath.Join(folder, url.PathEscape(packages[path].Dir)))
		if errors.Is(err, fs.ErrNotExist) {
			t.fail("%s has test files, and its tests were never listed", path)
			continue
		}
		if err != nil {
			return err
		}
		t.expect(path, strings.Fields(string(names)))
	}
	return nil
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
