// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// insideArg makes this program run a plan: one after the other, in whatever place the runner chose.
const insideArg = "inside"

// step is one package's tests in the plan.
type step struct {
	Package string
	Dir     string
	Binary  string
	Tests   []string
}

// plan is the file that tells the program inside what to run.
type plan struct {
	Converter string // the program test2json
	Steps     []step
}

// runIPVlan compiles the packages that have files behind the tag ipvlan and runs exactly the tests which that tag
// adds: the others of those packages run on the host.
func runIPVlan(ctx context.Context, o options, t *tally, stderr io.Writer) (err error) {
	steps, err := tagged(ctx, o.packages)
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		return errors.New("no package has tests behind the tag ipvlan")
	}
	work, err := os.MkdirTemp("", "multus-vpc-suite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	p := plan{Converter: filepath.Join(work, "test2json"), Steps: steps}
	if err = compile(ctx, p, work); err != nil {
		return err
	}
	if err = p.choose(ctx, stderr); err != nil {
		return err
	}
	ship := slices.Concat(o.ship, []string{work, o.self})
	for _, s := range p.Steps {
		t.expect(s.Package, s.Tests)
		ship = append(ship, s.Dir)
	}
	file := filepath.Join(work, "plan.json")
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	args := []string{"-timeout", "25m", "-memory", "3072", "-cpus", fmt.Sprint(min(runtime.NumCPU(), 4))}
	for _, path := range ship {
		args = append(args, "-ship", path)
	}
	return stream(ctx, t, stderr, exec.CommandContext(ctx, o.runner, append(args, o.self, insideArg, file)...))
}

// tagged finds the packages to which the tag adds test files.
func tagged(ctx context.Context, packages []string) ([]step, error) {
	without, err := testFiles(ctx, packages)
	if err != nil {
		return nil, err
	}
	with, err := testFiles(ctx, packages, "-tags=ipvlan")
	if err != nil {
		return nil, err
	}
	var steps []step
	for path, p := range with {
		if len(p.files()) > len(without[path].files()) {
			steps = append(steps, step{Package: path, Dir: p.Dir})
		}
	}
	slices.SortFunc(steps, func(a, b step) int { return strings.Compare(a.Package, b.Package) })
	return steps, nil
}

// listedPackage is what `go list -json` says of a package.
type listedPackage struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
}

func (p listedPackage) files() []string { return slices.Concat(p.TestGoFiles, p.XTestGoFiles) }

func testFiles(ctx context.Context, packages []string, flags ...string) (map[string]listedPackage, error) {
	args := slices.Concat([]string{"list", "-e", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, flags, packages)
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	result := map[string]listedPackage{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return result, nil
		} else if err != nil {
			return nil, err
		}
		result[p.ImportPath] = p
	}
}

// compile builds the converter and one static test program per step.
func compile(ctx context.Context, p plan, work string) error {
	builds := [][]string{{"build", "-o", p.Converter, "cmd/test2json"}}
	for i := range p.Steps {
		s := &p.Steps[i]
		s.Binary = filepath.Join(work, strings.ReplaceAll(strings.TrimPrefix(s.Package, modulePrefix), "/", "_")+".test")
		builds = append(builds, []string{"test", "-c", "-vet=off", "-tags=ipvlan", "-o", s.Binary, s.Package})
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2) // each already compiles in parallel
	for _, args := range builds {
		group.Go(func() error {
			cmd := exec.CommandContext(ctx, "go", args...)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
			}
			return nil
		})
	}
	return group.Wait()
}

// choose lists the tests of each step and keeps those that exist only behind the tag.
func (p plan) choose(ctx context.Context, stderr io.Writer) error {
	var packages []string
	for _, s := range p.Steps {
		packages = append(packages, s.Package)
	}
	without, err := list(ctx, packages, stderr)
	if err != nil {
		return err
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		with, err := testsOf(ctx, s.Binary, s.Dir)
		if err != nil {
			return fmt.Errorf("list the tests of %s: %w", s.Package, err)
		}
		for _, name := range with {
			if !slices.Contains(without[s.Package], name) {
				s.Tests = append(s.Tests, name)
			}
		}
		if len(s.Tests) == 0 {
			return fmt.Errorf("%s: files behind the tag ipvlan, but no tests in them", s.Package)
		}
	}
	return nil
}

// list asks Go which tests the packages have.
func list(ctx context.Context, packages []string, stderr io.Writer) (map[string][]string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-list", listed, "-vet=off"}, packages...)...)
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
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

// inside runs the plan. Events go to stdout; the caller judges by them.
func inside(file string, stdout, stderr io.Writer) int {
	data, err := os.ReadFile(file)
	if err != nil {
		fmt.Fprintln(stderr, "suite: inside:", err)
		return 2
	}
	var p plan
	if err := json.Unmarshal(data, &p); err != nil {
		fmt.Fprintln(stderr, "suite: inside:", err)
		return 2
	}
	for _, s := range p.Steps {
		cmd := exec.Command(p.Converter, "-t", "-p", s.Package, s.Binary, "-test.v=test2json", "-test.shuffle=on",
			"-test.timeout=15m", "-test.run=^("+strings.Join(s.Tests, "|")+")$")
		cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, stdout, stderr
		if err := cmd.Run(); err != nil {
			if _, ok := errors.AsType[*exec.ExitError](err); !ok { // a failed test is in the events
				fmt.Fprintln(stderr, "suite: inside:", err)
				return 2
			}
		}
	}
	return 0
}
