// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCostOfASidecar measures what a sidecar takes of a node, which has one for each pod. `make bench` prints it.
func TestCostOfASidecar(t *testing.T) {
	const window, floating = 10 * time.Second, "10.10.1.239/32" // of allFloating
	g := up(t)
	p := g.nodes["worker-1"].attachKnown(t, "priced", prefixes("10.10.1.101/24")...)
	ways()[0].keep(t, p)
	s, log := p.sidecar, g.log

	calls := log.count()
	rest := s.measure(t, window, func() {})
	if more := log.count() - calls; more > 0 {
		t.Errorf("%d EC2 calls in %v at rest", more, window)
	}
	calls = log.count()
	busy := s.measure(t, window, func() {
		for i := range int(window / time.Second) {
			if i%2 == 0 {
				p.add(t, prefixes(floating)[0])
			} else {
				p.remove(t, prefixes(floating)[0])
			}
			after(t, time.Second)
		}
	})
	if changes := log.count() - calls; changes == 0 {
		t.Error("nothing came of the changes")
	}
	t.Logf("a sidecar at rest: %s", rest)
	t.Logf("a sidecar at one change a second: %s, %d EC2 calls", busy, log.count()-calls)
}

// cost is what a process took.
type cost struct {
	cpu, over time.Duration
	resident  int64 // bytes, at the end
}

func (c cost) String() string {
	return fmt.Sprintf("%.1f MiB resident, %.2f %% of a processor", float64(c.resident)/(1<<20), 100*c.cpu.Seconds()/c.over.Seconds())
}

// measure measures the program while something happens, for so long at least.
func (c *program) measure(t *testing.T, window time.Duration, happens func()) cost {
	t.Helper()
	began, before := time.Now(), c.cpu(t)
	happens()
	after(t, window-time.Since(began))
	return cost{c.cpu(t) - before, time.Since(began), c.resident(t)}
}

// cpu is the time that the program's threads have run (proc_pid_schedstat): in nanoseconds, where proc_pid_stat(5) has ticks.
// https://www.kernel.org/doc/html/latest/scheduler/sched-stats.html
func (c *program) cpu(t *testing.T) (sum time.Duration) {
	t.Helper()
	tasks := fmt.Sprintf("/proc/%d/task", c.cmd.Process.Pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		text, err := os.ReadFile(tasks + "/" + thread.Name() + "/schedstat")
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// resident is VmRSS (proc_pid_status(5)).
func (c *program) resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nVmRSS:")
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[1] != "kB" {
		t.Fatalf("VmRSS of %d is not in kB", c.cmd.Process.Pid)
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// count is how many calls there were.
func (l *ec2Log) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.calls)
}
