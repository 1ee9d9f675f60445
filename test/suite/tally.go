// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
	Elapsed    float64
}

// test names one test of one package. A package's own events have no name.
type test struct{ pkg, name string }

func (t test) String() string {
	if t.name == "" {
		return t.pkg
	}
	return t.pkg + " " + t.name
}

func order(a, b test) int { return strings.Compare(a.String(), b.String()) }

// tally compares what was listed with what happened.
type tally struct {
	out      io.Writer
	verbose  bool
	expected map[test]bool   // listed tests
	ended    map[test]string // top-level tests → pass, fail or skip
	output   map[test][]string
	counts   map[string]int  // package → tests passed
	blamed   map[string]bool // packages with a failed test
	passed   int
	packages int
	problems []string
}

func newTally(out io.Writer, verbose bool) *tally {
	return &tally{
		out: out, verbose: verbose,
		expected: map[test]bool{}, ended: map[test]string{}, output: map[test][]string{}, counts: map[string]int{}, blamed: map[string]bool{},
	}
}

func (t *tally) add(phase *tally) {
	t.passed += phase.passed
	t.problems = append(t.problems, phase.problems...)
}

func (t *tally) listed() int { return len(t.expected) }

func (t *tally) expect(pkg string, names []string) {
	for _, name := range names {
		t.expected[test{pkg, name}] = true
	}
}

func (t *tally) fail(format string, args ...any) {
	t.problems = append(t.problems, fmt.Sprintf(format, args...))
}

// read follows a stream of events to its end.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(t.out, lines.Text()) // something wrote to the stream beside the tests
			continue
		}
		t.take(e)
	}
	return lines.Err()
}

func (t *tally) take(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		if t.verbose {
			fmt.Fprint(t.out, e.Output)
		}
		t.output[id] = append(t.output[id], e.Output)
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.endPackage(e)
			return
		}
		t.endTest(id, e.Action)
	}
}

func (t *tally) endTest(id test, action string) {
	top := !strings.Contains(id.name, "/")
	if top {
		t.ended[id] = action
	}
	switch {
	case action == "pass" && top:
		t.passed++
		t.counts[id.pkg]++
	case action == "skip":
		t.fail("%s was skipped: %s", id, strings.TrimSpace(strings.Join(t.output[id], " ")))
	case action == "fail":
		if top || !t.expected[id] {
			t.print(id)
		}
		if top {
			t.blamed[id.pkg] = true
			t.fail("%s failed", id)
		}
	}
	if action == "pass" {
		delete(t.output, id)
	}
}

func (t *tally) endPackage(e event) {
	id := test{pkg: e.Package}
	short := strings.TrimPrefix(e.Package, modulePrefix)
	switch n := t.counts[e.Package]; {
	case e.Action == "fail":
		fmt.Fprintf(t.out, "FAIL %s (%.1f s)\n", short, e.Elapsed)
		t.print(id)
		t.printUnfinished(e.Package)
		if !t.blamed[e.Package] { // a crash, a timeout, a failed build, or TestMain
			t.fail("%s failed", id)
		}
	case n > 0:
		t.packages++
		fmt.Fprintf(t.out, "ok   %-32s %4d tests %6.1f s\n", short, n, e.Elapsed)
	}
	delete(t.output, id)
}

// printUnfinished shows what tests and subtests wrote that a crash or a timeout cut off. The crash itself is among that of
// whichever ran last.
func (t *tally) printUnfinished(pkg string) {
	var ids []test
	for id := range t.output {
		if id.pkg == pkg && id.name != "" && t.ended[id] == "" {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, order)
	for _, id := range ids {
		t.print(id)
	}
}

func (t *tally) print(id test) {
	if !t.verbose {
		for _, line := range t.output[id] {
			if !strings.HasPrefix(line, "=== ") { // RUN, PAUSE, CONT
				fmt.Fprint(t.out, line)
			}
		}
	}
	delete(t.output, id)
}

// compare reports each listed test that did not end, and each that ended without being listed.
func (t *tally) compare() {
	for _, id := range slices.SortedFunc(maps.Keys(t.expected), order) {
		if t.ended[id] == "" {
			t.fail("%s is listed but did not run to its end", id)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(t.ended), order) {
		if !t.expected[id] {
			t.fail("%s ran but is not listed", id)
		}
	}
}
