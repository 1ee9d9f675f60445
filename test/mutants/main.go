// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command mutants breaks the agent, the init container and the sidecar on purpose, one fault at a time, and demands that somebody notices. `make mutants`
// uses it. Each fault is a change of the source that is laid over it for one build (go build -overlay), so the tree is
// not touched. The demo, or one test, must then fail, at the line that the table names: failing somewhere else would
// only show that something is broken. The demo without a fault must pass. Equivalent or stale mutants are errors.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// demoTimeout is far above what a demo takes on two slow processors: faults make it wait for what does not come.
const demoTimeout = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("mutants", flag.ContinueOnError)
	fs.SetOutput(stderr)
	bin := fs.String("bin", "bin", "folder of the programs without faults")
	runner := fs.String("runner", ".cache/vm", "the program of test/vm")
	only := fs.String("run", "", "only mutants whose name matches this expression")
	parallel := fs.Int("parallel", max(1, runtime.NumCPU()/2), "mutants at a time")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 2
	}
	work, err := os.MkdirTemp("", "multus-vpc-mutants-")
	if err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 2
	}
	defer os.RemoveAll(work)

	h := hunt{bin: *bin, runner: *runner, work: work}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(*parallel)
	var mu sync.Mutex
	survived, total := 0, 0
	for _, m := range table {
		if !pattern.MatchString(m.name) {
			continue
		}
		total++
		group.Go(func() error {
			start := time.Now()
			verdict, err := h.judge(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			mark := "✓"
			if err != nil {
				mark, verdict = "✗", err.Error()
				survived++
			}
			fmt.Fprintf(stdout, "%s %-44s %s (%v)\n", mark, m.name, verdict, time.Since(start).Round(time.Second))
			return context.Cause(ctx)
		})
	}
	if err := group.Wait(); err != nil {
		fmt.Fprintln(stderr, "mutants:", err)
		return 1
	}
	if total == 0 {
		fmt.Fprintln(stderr, "mutants: no mutant has such a name")
		return 2
	}
	fmt.Fprintf(stdout, "%d of %d as they must be\n", total-survived, total)
	return min(survived, 1)
}

// hunt is one run over the table.
type hunt struct {
	bin, runner, work string
}

// judge returns how the fault was noticed, or an error when it was not, or not there.
func (h hunt) judge(ctx context.Context, m mutant) (string, error) {
	dir := filepath.Join(h.work, m.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	if m.test != "" {
		return h.judgeByTest(ctx, m, overlay)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.CopyFS(bin, os.DirFS(h.bin)); err != nil {
		return "", err
	}
	if overlay != "" {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-overlay", overlay, "-o", bin+"/", "./agent", "./initcontainer", "./sidecar")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, buildErr := build.CombinedOutput(); buildErr != nil {
			return "", fmt.Errorf("build: %w\n%s", buildErr, out)
		}
	}
	return h.judgeByDemo(ctx, m, bin)
}

// overlay writes the changed file and the overlay that puts it in place; "" for the table's row without a fault.
func (m mutant) overlay(dir string) (string, error) {
	if m.file == "" {
		return "", nil
	}
	source, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(data), m.old); n != 1 {
		return "", fmt.Errorf("stale: %s contains the text to change %d times, want once", m.file, n)
	}
	changed := filepath.Join(dir, "changed.go")
	if err = os.WriteFile(changed, []byte(strings.Replace(string(data), m.old, m.new, 1)), 0o644); err != nil {
		return "", err
	}
	spec, err := json.Marshal(map[string]map[string]string{"Replace": {source: changed}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, spec, 0o644)
}

// judgeByTest runs one test over the fault. Programs that the test builds have it too.
func (h hunt) judgeByTest(ctx context.Context, m mutant, overlay string) (string, error) {
	test := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-run", "^"+m.test+"$", m.pkg)
	test.Env = append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)
	out, err := test.CombinedOutput()
	if err == nil {
		return "", fmt.Errorf("%s of %s passes all the same", m.test, m.pkg)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "--- FAIL: "+m.test) {
			if !strings.Contains(string(out), m.noticed) {
				return "", fmt.Errorf("%s of %s fails without the line %q:\n%s", m.test, m.pkg, m.noticed, out)
			}
			return fmt.Sprintf("noticed by %s: %s", m.test, m.noticed), nil
		}
	}
	return "", fmt.Errorf("%s of %s did not run: %w\n%s", m.test, m.pkg, err, out)
}
