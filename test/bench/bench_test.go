// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/test/stack"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// TestMain lets the test's program be a starter.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == starterArg {
		os.Exit(serveCalls(os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// TestEveryCallIsCounted runs a small benchmark with the real programs.
func TestEveryCallIsCounted(t *testing.T) {
	bin, remove, err := worker.Programs()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if removeErr := remove(); removeErr != nil {
			t.Error(removeErr)
		}
	})
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	args := []string{"-bin", bin, "-rounds", "2", "-batch", "3", "-parallel", "1,4", "-stack", programs, "-idle", "/bin/true", "-o", "json"}
	if code := run(t.Context(), args, os.Getenv, &stdout, &stderr); code != 0 {
		t.Fatalf("exit status %d: %s", code, &stderr)
	}
	var got report
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &stdout)
	}
	// Every ENI of the burst asks once at least, and nothing in memory is smaller than a MiB.
	if n := got.Node; n.BurstCalls < burstENIs || n.Resident < 1<<20 || n.Peak < n.Resident {
		t.Errorf("the whole worker: %+v", n)
	}
	if len(got.Rows) != 10 || got.Interfaces != nil {
		t.Errorf("%d rows, want 5 programs at 2 sizes; and interfaces: %v", len(got.Rows), got.Interfaces)
	}
	for _, r := range got.Rows {
		want := 2 * 2 * max(3, r.Parallel) // rounds, ADD and DEL, containers
		if r.Plugin == "whereabouts" {     // what of its calls fails is not for us to say
			want = 2*whereaboutsRounds*max(3, r.Parallel) - r.Failed
			r.Failed, r.Twice, r.Left = 0, 0, 0
		}
		if r.Calls != want || r.Failed != 0 || r.Twice != 0 || r.Left != 0 {
			t.Errorf("%s, %d at a time: %d calls, %d failed, %d addresses given twice, %d left; want %d, 0, 0, 0 (%s)",
				r.Plugin, r.Parallel, r.Calls, r.Failed, r.Twice, r.Left, want, got.Failures)
		}
	}
}

func TestStatusBytes(t *testing.T) {
	resident, peak, err := statusBytes([]byte("Name:\tagent\nVmHWM:\t   40960 kB\nVmRSS:\t   20480 kB\nThreads:\t9\n"))
	if resident != 20<<20 || peak != 40<<20 || err != nil {
		t.Errorf("got %d, %d, %v; want 20 MiB and 40 MiB", resident, peak, err)
	}
	if _, _, err := statusBytes([]byte("Name:\tagent\nState:\tZ (zombie)\n")); err == nil {
		t.Error("a process that has ended has a size")
	}
}

func TestAnAddressGivenTwiceAndAFailureAreCounted(t *testing.T) {
	given := func(addr string) answer {
		return answer{took: time.Millisecond, stdout: []byte(`{"ips":[{"address":"` + addr + `/24"}]}`)}
	}
	failed := given("10.0.0.9")
	failed.err = errors.New("exit status 1")
	var r round
	r.count(plugin{name: "p", gives: true},
		[]answer{given("10.0.0.1"), given("10.0.0.2"), given("10.0.0.1"), given("10.0.0.1"), failed, {stdout: []byte("{}")}},
		[]answer{{took: time.Millisecond}, failed})
	if r.twice != 1 || len(r.failures) != 3 || len(r.add) != 4 || len(r.del) != 1 {
		t.Errorf("given twice %d, failures %v, ADDs %d, DELs %d; want 1, three, 4, 1", r.twice, r.failures, len(r.add), len(r.del))
	}
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	rounds := func(ms ...int) (list []round) {
		for _, m := range ms {
			took := []time.Duration{time.Duration(m) * time.Millisecond}
			list = append(list, round{add: took, del: took, adding: time.Second})
		}
		return list
	}
	// The machine is ten times slower in the second round, for both.
	r := newTable(options{rounds: 3}, reference, []cell{
		{plugin: reference, parallel: 1, rounds: rounds(2, 20, 2)},
		{plugin: "vpcipam", parallel: 1, rounds: rounds(1, 10, 1)},
	})
	want := times{P50: 1, P99: 10, Ratio: 0.5}
	if diff := cmp.Diff(want, r.Rows[1].ADD); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWhatWasNotMeasuredIsNoFigure(t *testing.T) {
	broken := round{failures: []error{errors.New("no agent")}, adding: time.Second}
	r := report{table: newTable(options{rounds: 1}, reference, []cell{
		{plugin: reference, parallel: 8, rounds: []round{{add: []time.Duration{1}, del: []time.Duration{1}, adding: time.Second}}},
		{plugin: "vpcipam", parallel: 8, rounds: []round{broken}},
	})}
	var text, js, md strings.Builder
	if err := errors.Join(r.write(&text, "table"), r.write(&js, "json"), r.write(&md, "markdown")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"vpcipam", "–", "the first failure: no agent"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &text)
		}
	}
	if !strings.Contains(md.String(), "| 8 | vpcipam | – | – | – |") {
		t.Errorf("the Markdown lacks the row without figures:\n%s", &md)
	}
	if !strings.Contains(js.String(), `"p50ms": null`) {
		t.Errorf("the JSON lacks a null:\n%s", &js)
	}
}

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		name string
		list []float64
		q    float64
		want float64
	}{
		{"median of odd", []float64{3, 1, 2}, 0.5, 2},
		{"median of even is the lower", []float64{4, 1, 2, 3}, 0.5, 2},
		{"p99 of few is the largest", []float64{1, 5, 3}, 0.99, 5},
		{"one value", []float64{7}, 0.01, 7},
		{"not a number does not count", []float64{math.NaN(), 2}, 0.5, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := quantile(tt.list, tt.q); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("of nothing: %v, want NaN", got)
	}
}

func TestBadOptionsAreAllNamed(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"-rounds", "0", "-batch", "1000", "-parallel", "0,500", "-o", "xml", "more"},
		func(string) string { return "relative" }, &stdout, &stderr)
	if code != 2 {
		t.Errorf("exit status %d, want 2", code)
	}
	for _, want := range []string{"-rounds 0", "-batch 1000", "-parallel 0", "-parallel 500", `-o "xml"`, "-bin", "-peers", "more"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("the message lacks %q:\n%s", want, &stderr)
		}
	}
}
