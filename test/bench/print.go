// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// write writes the report in the form that was asked for.
func (r report) write(w io.Writer, form string) error {
	var text string
	switch form {
	case "json":
		return writeJSON(w, r)
	case "markdown":
		text = r.markdown()
	default:
		text = r.text()
	}
	_, err := io.WriteString(w, text)
	return err
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// text is the report for people.
func (r report) text() string {
	var text strings.Builder
	fmt.Fprintf(&text, "IPAM plugins alone: one process per call, one container each.\n")
	r.table.write(&text)
	if t := r.Interfaces; t != nil {
		fmt.Fprintf(&text, "\nInterface and IPAM plugins: the same, where ipvlan works.\n")
		t.write(&text)
	}
	fmt.Fprintf(&text, "\n%s", r.Node)
	return text.String()
}

func (n node) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("EC2 calls that change something, %d pods at once on a cold c5.18xlarge (%d ENIs): %d, or %.2f a pod\n",
		n.BurstPods, n.BurstENIs, n.BurstCalls, n.callsPerPod()) +
		fmt.Sprintf("the agent's memory with %d pods on it: %.1f MiB resident, %.1f MiB at most\n",
			n.FullPods, float64(n.Resident)/mib, float64(n.Peak)/mib)
}

// write writes the table for people.
func (t table) write(text *strings.Builder) {
	fmt.Fprintf(text, "Linux %s, %d × %s, %s.\n", t.Kernel, t.CPUs, t.CPU, t.Go)
	fmt.Fprintf(text, "%d rounds by turns. p50 in ms and pods/s are medians of the rounds, p99 is of all calls;\n", t.Rounds)
	fmt.Fprintf(text, "× is the median of the ratios to %s within a round.\n\n", t.Reference)
	const head, line = "%9s  %-30s %9s %8s %7s  %9s %8s %7s  %7s %6s %6s %5s %4s\n", "%9s  %-30s %9s %8s %7s  %9s %8s %7s  %7.0f %6d %6d %5d %4d\n"
	fmt.Fprintf(text, head, "at a time", "plugin", "ADD p50", "p99", "×", "DEL p50", "p99", "×", "pods/s", "calls", "failed", "twice", "left")
	last := 0
	for _, x := range t.Rows {
		at := ""
		if x.Parallel != last {
			at = strconv.Itoa(x.Parallel)
		}
		last = x.Parallel
		fmt.Fprintf(text, line, at, x.Plugin,
			x.ADD.P50, x.ADD.P99, x.ADD.Ratio, x.DEL.P50, x.DEL.P99, x.DEL.Ratio, x.PodsPerSecond, x.Calls, x.Failed, x.Twice, x.Left)
	}
	fmt.Fprintln(text)
	for _, name := range slices.Sorted(maps.Keys(t.Versions)) {
		fmt.Fprintf(text, "%s: %s\n", name, t.Versions[name])
	}
	for _, name := range slices.Sorted(maps.Keys(t.Failures)) {
		fmt.Fprintf(text, "\nthe first failure: %s\n", t.Failures[name])
	}
}

// markdown is the report for docs/benchmarks.md.
func (r report) markdown() string {
	var text strings.Builder
	tables := []table{r.table}
	if r.Interfaces != nil {
		tables = append(tables, *r.Interfaces)
	}
	for _, t := range tables {
		fmt.Fprintf(&text, "Linux %s, %d × %s, %s; %d rounds; × is the ratio to %s.\n\n", t.Kernel, t.CPUs, t.CPU, t.Go, t.Rounds, t.Reference)
		text.WriteString("| at a time | plugin | ADD p50 | p99 | × | DEL p50 | p99 | × | pods/s | calls | failed | twice | left |\n")
		text.WriteString("|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, x := range t.Rows {
			fmt.Fprintf(&text, "| %d | %s | %s | %s | %s | %s | %s | %s | %.0f | %d | %d | %d | %d |\n", x.Parallel, x.Plugin,
				x.ADD.P50, x.ADD.P99, x.ADD.Ratio, x.DEL.P50, x.DEL.P99, x.DEL.Ratio, x.PodsPerSecond, x.Calls, x.Failed, x.Twice, x.Left)
		}
		text.WriteString("\n")
	}
	for line := range strings.Lines(r.Node.String()) {
		fmt.Fprintf(&text, "- %s", line)
	}
	return text.String()
}
