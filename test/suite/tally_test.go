// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTallyTakesOnlyAPassForAPass(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		listed   []string
		events   []event
		passed   int
		problems []string
	}{
		{
			name:   "all passed",
			listed: []string{"TestA", "TestB"},
			events: []event{{Action: "pass", Test: "TestA"}, {Action: "pass", Test: "TestB/case"}, {Action: "pass", Test: "TestB"}, {Action: "pass"}},
			passed: 2,
		},
		{
			name:     "failed",
			listed:   []string{"TestA"},
			events:   []event{{Action: "fail", Test: "TestA/case"}, {Action: "fail", Test: "TestA"}, {Action: "fail"}},
			problems: []string{"p TestA failed"},
		},
		{
			name:     "skipped with its reason",
			listed:   []string{"TestA"},
			events:   []event{{Action: "output", Test: "TestA", Output: "no luck\n"}, {Action: "skip", Test: "TestA"}, {Action: "pass"}},
			problems: []string{"p TestA was skipped: no luck"},
		},
		{
			name:     "a skipped subtest counts too",
			listed:   []string{"TestA"},
			events:   []event{{Action: "skip", Test: "TestA/case"}, {Action: "pass", Test: "TestA"}, {Action: "pass"}},
			passed:   1,
			problems: []string{"p TestA/case was skipped: "},
		},
		{
			name:     "cut off by a crash",
			listed:   []string{"TestA", "TestB"},
			events:   []event{{Action: "pass", Test: "TestA"}, {Action: "output", Test: "TestB", Output: "panic: oh\n"}, {Action: "fail"}},
			passed:   1,
			problems: []string{"p failed", "p TestB is listed but did not run to its end"},
		},
		{
			name:     "cut off by a crash of a subtest",
			listed:   []string{"TestA"},
			events:   []event{{Action: "output", Test: "TestA", Output: "=== RUN   TestA\n"}, {Action: "output", Test: "TestA/case", Output: "panic: oh\n"}, {Action: "fail"}},
			problems: []string{"p failed", "p TestA is listed but did not run to its end"},
		},
		{
			name:     "never started",
			listed:   []string{"TestA"},
			problems: []string{"p TestA is listed but did not run to its end"},
		},
		{
			name:     "not listed",
			events:   []event{{Action: "pass", Test: "TestX"}, {Action: "pass"}},
			passed:   1,
			problems: []string{"p TestX ran but is not listed"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var stream bytes.Buffer
			for _, e := range tc.events {
				e.Package = "p"
				if err := json.NewEncoder(&stream).Encode(e); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			tally := newTally(&out, false)
			tally.expect("p", tc.listed)
			if err := tally.read(&stream); err != nil {
				t.Fatal(err)
			}
			tally.compare()
			if tally.passed != tc.passed {
				t.Errorf("passed: got %d, want %d", tally.passed, tc.passed)
			}
			if diff := cmp.Diff(tc.problems, tally.problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if strings.HasPrefix(tc.name, "cut off by a crash") && !strings.Contains(out.String(), "panic: oh") {
				t.Errorf("the crash is not shown: %q", &out)
			}
		})
	}
}

func TestParseListKnowsPackages(t *testing.T) {
	t.Parallel()
	got, failed := parseList("TestA\nFuzzB\nok  \texample.com/a\t0.01s\n?   \texample.com/none\t[no test files]\nFAIL\texample.com/b [build failed]\nExampleC\nok  \texample.com/c\t(cached)\n")
	want := map[string][]string{"example.com/a": {"TestA", "FuzzB"}, "example.com/c": {"ExampleC"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"example.com/b [build failed]"}, failed); diff != "" {
		t.Errorf("failed (-want +got):\n%s", diff)
	}
}

func TestTaggedFindsTheRunnersOwnProof(t *testing.T) {
	t.Parallel()
	steps, err := tagged(t.Context(), []string{"../..."})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(steps, func(s step) bool { return s.Package == modulePrefix+"test/vm" }) {
		t.Errorf("test/vm has a file behind the tag, found only %v", steps)
	}
	if slices.ContainsFunc(steps, func(s step) bool { return s.Package == modulePrefix+"test/suite" }) {
		t.Error("test/suite has no file behind the tag")
	}
}

func TestLongestFirst(t *testing.T) {
	t.Parallel()
	packages := map[string]listedPackage{}
	for _, name := range []string{"test/kill", "agent", "internal/pool", "vpcctl"} {
		packages[modulePrefix+name] = listedPackage{}
	}
	var got []string
	for _, path := range longestFirst(packages) {
		got = append(got, strings.TrimPrefix(path, modulePrefix))
	}
	if diff := cmp.Diff([]string{"internal/pool", "test/kill", "agent", "vpcctl"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	known, err := testFiles(t.Context(), []string{"../../..."})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range longest {
		if len(known[modulePrefix+name].files()) == 0 {
			t.Errorf("there is no package %s with tests", name)
		}
	}
}

func TestAPackageWhoseTestsWereNeverListedFails(t *testing.T) {
	t.Parallel()
	folder, tally := t.TempDir(), newTally(io.Discard, false)
	packages := map[string]listedPackage{
		"p/listed": {Dir: "/p/listed", TestGoFiles: []string{"a_test.go"}},
		"p/not":    {Dir: "/p/not", XTestGoFiles: []string{"a_test.go"}},
		"p/none":   {Dir: "/p/none"},
	}
	if err := os.WriteFile(filepath.Join(folder, url.PathEscape("/p/listed")), []byte("TestA\nFuzzB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := expectListed(folder, packages, tally); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"p/not has test files, and its tests were never listed"}, tally.problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[test]bool{{"p/listed", "TestA"}: true, {"p/listed", "FuzzB"}: true}, tally.expected); diff != "" {
		t.Errorf("expected (-want +got):\n%s", diff)
	}
}
