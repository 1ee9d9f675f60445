// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package simulate

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
)

// measurement is what happens to some workers of a fleet from a moment on.
type measurement struct {
	fleet   *fleet
	workers []*worker
	began   time.Time
	before  map[front.Call]int
	filled  []time.Duration

	mu       sync.Mutex
	podTimes []time.Duration
	failures int
}

func (f *fleet) measure(workers []*worker) *measurement {
	return &measurement{fleet: f, workers: workers, began: time.Now(), before: f.account.calls()}
}

func (m *measurement) podRuns(took time.Duration, failures int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.podTimes = append(m.podTimes, took)
	m.failures += failures
}

// result is one row of figures.
type result struct {
	Scenario string `json:"scenario"`
	Fleet    int    `json:"fleet"`   // workers in all before anybody joins
	Workers  int    `json:"workers"` // to whom it happened; the figures are per each of these
	Full     int    `json:"full"`    // percentage of the reservation that is taken in the end
	// Calls per worker that the rate limits let through, those that EC2 refused included, by action.
	Calls map[string]float64 `json:"calls"`
	// Conflicts per worker: Assign calls that EC2 refused because another ENI has an address.
	Conflicts float64 `json:"conflicts"`
	// Throttled calls per worker, by action.
	Throttled map[string]float64 `json:"throttled"`
	// Filled is when a worker had its stock, in seconds.
	Filled *spread `json:"filledSeconds,omitempty"`
	// Pods is how long it took until a pod ran, in seconds.
	Pods *spread `json:"podSeconds,omitempty"`
	// FailedADDs per worker: the runtime tried again.
	FailedADDs float64 `json:"failedADDs"`
	// Reads per worker and hour, and those of the worker that read most. Only of the steady state.
	Reads    float64 `json:"readsPerHour,omitempty"`
	MostRead float64 `json:"mostReadsPerHour,omitempty"`
}

// spread is a distribution in short.
type spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func spreadOf(ds []time.Duration) *spread {
	if len(ds) == 0 {
		return nil
	}
	ds = slices.Sorted(slices.Values(ds))
	at := func(q float64) float64 { return ds[int(q*float64(len(ds)-1))].Seconds() }
	return &spread{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// The results of calls that are counted apart: without tokens, and "[…] assigned, but move is not allowed".
const (
	throttledResult = "RequestLimitExceeded"
	refusedResult   = "InvalidParameterValue"
)

// result counts what was called since the measurement began. A fleet's other workers are quiet then, and counted too.
func (m *measurement) result() result {
	calls, throttled, conflicts := map[string]int{}, map[string]int{}, 0
	for call, n := range m.fleet.account.calls() {
		n -= m.before[call]
		if call.Result == throttledResult {
			throttled[call.Action] += n
		} else {
			calls[call.Action] += n
		}
		if call.Action == actionAssign && call.Result == refusedResult {
			conflicts += n
		}
	}
	return result{
		Workers: len(m.workers), Calls: m.each(calls), Conflicts: m.share(conflicts), Throttled: m.each(throttled),
		Filled: spreadOf(m.filled), Pods: spreadOf(m.podTimes), FailedADDs: m.share(m.failures),
	}
}

// hourly adds how often the workers read EC2, throttled calls included.
func (m *measurement) hourly(r *result) {
	reads := map[string]int{}
	for call, n := range m.fleet.account.calls() {
		if strings.HasPrefix(call.Action, "Describe") || strings.HasPrefix(call.Action, "Get") {
			reads[call.Caller] += n - m.before[call]
		}
	}
	hours := time.Since(m.began).Hours()
	for _, n := range reads {
		r.Reads += m.share(n) / hours
		r.MostRead = max(r.MostRead, float64(n)/hours)
	}
}

// share is n per worker.
func (m *measurement) share(n int) float64 { return float64(n) / float64(len(m.workers)) }

func (m *measurement) each(counts map[string]int) map[string]float64 {
	shares := map[string]float64{}
	for action, n := range counts {
		shares[action] = m.share(n)
	}
	return shares
}

// printReport writes the results as a table or, for programs, as JSON.
func printReport(w io.Writer, format string, results []result) error {
	switch format {
	case "json":
		return printJSON(w, results)
	case "table":
		return printTable(w, results)
	}
	return fmt.Errorf("no output format %q", format)
}

// columns of the table, with the actions that they count.
var columns = []struct{ head, action string }{
	{"assign", actionAssign},
	{"unassign", actionUnassign},
	{"interfaces", actionInterfaces},
	{"types", actionTypes},
	{"subnets", actionSubnets},
	{"reserv.", actionReservations},
}

// printTable writes the results for people. What did not happen is left out.
func printTable(w io.Writer, results []result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") } // Flush has the error
	head := []string{"scenario", "fleet", "full"}
	for _, c := range columns {
		head = append(head, c.head)
	}
	line(append(head, "conflicts", "throttled", "of assign", "filled p50", "p99", "last", "pod p50", "p99", "failed ADDs", "reads/h", "most")...)
	for _, r := range results {
		cells := []string{r.Scenario, fmt.Sprint(r.Fleet), fmt.Sprintf("%d %%", r.Full)}
		for _, c := range columns {
			cells = append(cells, number(r.Calls[c.action]))
		}
		throttled := 0.0
		for _, n := range r.Throttled {
			throttled += n
		}
		cells = append(cells, number(r.Conflicts), number(throttled), number(r.Throttled[actionAssign]))
		if r.Filled != nil {
			cells = append(cells, seconds(r.Filled.P50), seconds(r.Filled.P99), seconds(r.Filled.Max))
		} else {
			cells = append(cells, "", "", "")
		}
		if r.Pods != nil {
			cells = append(cells, seconds(r.Pods.P50), seconds(r.Pods.P99), number(r.FailedADDs))
		} else {
			cells = append(cells, "", "", "")
		}
		if r.Scenario == "steady" {
			cells = append(cells, number(r.Reads), number(r.MostRead))
		} else {
			cells = append(cells, "", "")
		}
		line(cells...)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nCalls, conflicts, throttled calls and failed ADDs per worker; calls are those that the rate limits let through.")
	return err
}

func number(x float64) string {
	if x == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2f", x)
}

func seconds(x float64) string { return fmt.Sprintf("%.0f s", x) }

// printJSON writes the results for programs.
func printJSON(w io.Writer, results []result) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"scenarios": descriptions(), "results": results})
}

func descriptions() map[string]string {
	return maps.Collect(func(yield func(string, string) bool) {
		for _, s := range stages {
			if !yield(s.name, s.what) {
				return
			}
		}
	})
}
