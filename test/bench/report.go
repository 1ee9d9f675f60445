// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// report is the outcome of a run.
type report struct {
	table             // of IPAM plugins alone
	Interfaces *table `json:"interfaces,omitempty"` // nil when they were not compared
	Node       node   `json:"node"`
}

// table is one comparison, on one machine.
type table struct {
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	CPU       string `json:"cpu"` // as it calls itself: QEMU TCG is an emulated one
	CPUs      int    `json:"cpus"`
	Rounds    int    `json:"rounds"`
	Reference string `json:"reference"` // the plugin that the ratios are to
	Rows      []row  `json:"rows"`
	// Versions are what the plugins of others were built from: module and version.
	Versions map[string]string `json:"versions"`
	// Failures are the first one of each plugin, in words.
	Failures map[string]string `json:"failures,omitempty"`
}

// row is a cell in figures.
type row struct {
	Plugin   string `json:"plugin"`
	Parallel int    `json:"parallel"` // processes at a time
	ADD      times  `json:"add"`
	DEL      times  `json:"del"`
	// PodsPerSecond that were ADDed, median over the rounds.
	PodsPerSecond float64 `json:"podsPerSecond"`
	Calls         int     `json:"calls"` // that succeeded
	Failed        int     `json:"failed"`
	Twice         int     `json:"twice"` // addresses that more than one container had at a time
	Left          int     `json:"left"`  // addresses that were still taken when all containers were deleted
}

// times of one command, in milliseconds.
type times struct {
	P50 figure `json:"p50ms"` // median over the rounds of each round's median
	P99 figure `json:"p99ms"` // of all calls
	// Ratio to the reference is the median over the rounds of the ratio within a round.
	Ratio figure `json:"ratio"`
}

// figure may be NaN where nothing was measured, which is null in JSON.
type figure float64

// MarshalJSON implements [json.Marshaler].
func (f figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

func (f figure) String() string {
	if math.IsNaN(float64(f)) {
		return "–"
	}
	return strconv.FormatFloat(float64(f), 'f', 2, 64)
}

// newTable makes figures out of measurements.
func newTable(o options, reference string, cells []cell) table {
	r := table{Kernel: kernel(), Go: runtime.Version(), CPU: cpu(), CPUs: runtime.NumCPU(), Rounds: o.rounds, Reference: reference, Versions: map[string]string{}, Failures: map[string]string{}}
	for _, c := range cells {
		i := slices.IndexFunc(cells, func(x cell) bool { return x.plugin == reference && x.parallel == c.parallel })
		line := row{
			Plugin: c.plugin, Parallel: c.parallel,
			ADD: timesOf(c, cells[i], func(r round) []time.Duration { return r.add }),
			DEL: timesOf(c, cells[i], func(r round) []time.Duration { return r.del }),
		}
		if c.version != "" {
			r.Versions[c.plugin] = c.version
		}
		var rates []float64
		for _, one := range c.rounds {
			rates = append(rates, float64(len(one.add))/one.adding.Seconds())
			line.Calls += len(one.add) + len(one.del)
			line.Failed += len(one.failures)
			line.Twice += one.twice
			line.Left += one.left
			if len(one.failures) > 0 && r.Failures[c.plugin] == "" {
				r.Failures[c.plugin] = one.failures[0].Error()
			}
		}
		line.PodsPerSecond = quantile(rates, 0.5)
		r.Rows = append(r.Rows, line)
	}
	return r
}

// timesOf compares the calls that of picks with those of the reference, round by round.
func timesOf(c, reference cell, of func(round) []time.Duration) times {
	var all, medians, ratios []float64
	for i, one := range c.rounds {
		took := milliseconds(of(one))
		all = append(all, took...)
		median := quantile(took, 0.5)
		medians = append(medians, median)
		ratios = append(ratios, median/quantile(milliseconds(of(reference.rounds[i])), 0.5))
	}
	return times{P50: figure(quantile(medians, 0.5)), P99: figure(quantile(all, 0.99)), Ratio: figure(quantile(ratios, 0.5))}
}

func milliseconds(list []time.Duration) []float64 {
	ms := make([]float64, len(list))
	for i, d := range list {
		ms[i] = float64(d) / float64(time.Millisecond)
	}
	return ms
}

// quantile is the smallest value that at least a share q of the list does not exceed; values that are not numbers do not
// count, and of none it is NaN.
func quantile(list []float64, q float64) float64 {
	sorted := slices.DeleteFunc(slices.Clone(list), math.IsNaN)
	if len(sorted) == 0 {
		return math.NaN()
	}
	slices.Sort(sorted)
	return sorted[max(int(math.Ceil(q*float64(len(sorted)))), 1)-1]
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// cpu is the model name of the first processor that has one.
func cpu() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown" // not on arm64
}
