// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeRunner stands for the runner and the demo: a script that tells what it is given.
func fakeRunner(t *testing.T, script string) hunt {
	t.Helper()
	dir := t.TempDir()
	runner, text := filepath.Join(dir, "vm"), filepath.Join(dir, "vm.sh")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"+script), 0o600); err != nil {
		t.Fatal(err)
	}
	// Another process makes the executable: one that we had open for writing could not be started while a parallel test's
	// child still has a copy of the descriptor (ETXTBSY, https://github.com/golang/go/issues/22315).
	if out, err := exec.CommandContext(t.Context(), "install", "-m", "755", text, runner).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return hunt{bin: dir, runner: runner, work: dir}
}

func TestDemoMustFailAtTheNamedLine(t *testing.T) {
	t.Parallel()
	fault := mutant{name: "fault", file: "x.go", noticed: "first pod"}
	for _, tc := range []struct {
		name    string
		m       mutant
		script  string
		verdict string
		problem string
	}{
		{name: "noticed", m: fault, script: "echo '  ✓ a'; echo '  ✗ first pod c: timeout'; exit 1", verdict: "noticed: ✗ first pod c: timeout"},
		{name: "the first failure counts", m: fault, script: "echo '✗ agent'; echo '✗ first pod'; exit 1", problem: `fails at "✗ agent"`},
		{name: "the rest is not waited for", m: fault, script: "echo '✗ first pod'; exec sleep 600", verdict: "noticed"},
		{name: "survived", m: fault, script: "echo '✓ a'", problem: "no line of the demo failed"},
		{name: "crashed", m: fault, script: "echo oh >&2; exit 125", problem: "oh"},
		{name: "whole story", m: mutant{name: "none"}, script: "echo '✓ a'; echo '✓ b'", verdict: "2 lines"},
		{name: "broken without a fault", m: mutant{name: "none"}, script: "echo '✓ a'; echo '✗ b'; exit 1", problem: "without any fault: ✗ b"},
		{name: "silence is no success", m: mutant{name: "none"}, script: "exit 0", problem: "no line"},
		{name: "failed at the end", m: mutant{name: "none"}, script: "echo '✓ a'; exit 3", problem: "exit status 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := fakeRunner(t, tc.script)
			verdict, err := h.judgeByDemo(t.Context(), tc.m, h.bin)
			if tc.problem == "" && (err != nil || !strings.Contains(verdict, tc.verdict)) {
				t.Errorf("got %q, %v, want %q", verdict, err, tc.verdict)
			}
			if tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)) {
				t.Errorf("got %q, %v, want an error with %q", verdict, err, tc.problem)
			}
		})
	}
}

// TestTableIsFresh: each fault still applies to the source.
func TestTableIsFresh(t *testing.T) {
	t.Parallel()
	for _, m := range table {
		if m.file == "" {
			continue
		}
		m.file = filepath.Join("..", "..", m.file)
		if _, err := m.overlay(t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if m.noticed == "" || (m.test == "") != (m.pkg == "") {
			t.Errorf("%s: incomplete", m.name)
		}
	}
}

func TestStaleMutantIsAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.go")
	if err := os.WriteFile(file, []byte("twice twice"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, old := range []string{"twice", "never"} {
		_, err := mutant{file: file, old: old, new: "x"}.overlay(t.TempDir())
		if err == nil || !strings.Contains(err.Error(), "stale") {
			t.Errorf("%s: got %v, want an error", old, err)
		}
	}
}
