// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package simulate

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The flags of `make simulate`. Without -simulate.workers only the tests run.
var (
	flagWorkers = flag.String("simulate.workers", "", "fleet `sizes` to simulate, separated by commas")
	flagFull    = flag.String("simulate.full", "50,90,99", "`percentages` of the reservation that are taken in the end")
	flagStages  = flag.String("simulate.scenarios", "start-up,lost-replies,first-pod,top-up,scale-out,steady", "`scenarios` to simulate")
	flagOutput  = flag.String("simulate.o", "table", "output `format`: table or json")
)

// standardOutput is for the report alone: TestMain sends what package testing has to say to the standard error.
var standardOutput = os.Stdout

// TestMain parts the report from the rest.
func TestMain(m *testing.M) {
	flag.Parse()
	if *flagWorkers != "" {
		os.Stdout = os.Stderr
	}
	os.Exit(m.Run())
}

// quietFleet is as many workers as the steady state is watched of at most: they do not meet.
const quietFleet = 50

// TestSimulate runs what the flags ask for and prints the figures, and runs all scenarios with a small fleet without flags.
func TestSimulate(t *testing.T) {
	sizes, shares := numbers(t, *flagWorkers), numbers(t, *flagFull)
	if *flagWorkers == "" {
		sizes, shares = []int{20}, []int{90}
	}
	var results []result
	for name := range strings.SplitSeq(*flagStages, ",") {
		s, err := stageOf(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range sizes {
			for _, full := range shares {
				if s.name == "steady" && (size != sizes[0] || full != shares[0]) {
					continue // what a quiet worker reads does not depend on the others
				}
				if s.name == "steady" {
					size = min(size, quietFleet)
				}
				began := time.Now()
				results = append(results, simulate(t, s, size, full, true))
				t.Logf("%s, %d workers, %d %%: computed in %s", s.name, size, full, time.Since(began).Round(time.Millisecond))
			}
		}
	}
	if *flagWorkers == "" {
		return
	}
	if err := printReport(standardOutput, *flagOutput, results); err != nil {
		t.Error(err)
	}
}

// What the suite promises of 500 workers that start at once into a reservation that ends 90 % full.
func TestFleetStartsWithinItsGoals(t *testing.T) {
	s, err := stageOf("start-up")
	if err != nil {
		t.Fatal(err)
	}
	r := simulate(t, s, 500, 90, true)
	if got := r.Calls[actionAssign]; got < 1 || got > 1.3 {
		t.Errorf("%.2f Assign calls per worker, want at most 1.3", got)
	}
	if r.Filled == nil || r.Filled.Max > 180 {
		t.Errorf("filled after %+v s, want at most 180", r.Filled)
	}
}

// What the suite promises of a fleet to which nothing happens: a read an hour, and one for the pool's subnet.
func TestQuietFleetKeepsToItsBudget(t *testing.T) {
	s, err := stageOf("steady")
	if err != nil {
		t.Fatal(err)
	}
	r := simulate(t, s, 20, 90, true)
	if r.MostRead > 2 || r.Reads == 0 {
		t.Errorf("a worker made %.2f reads an hour, want at most 2", r.MostRead)
	}
	if writes := r.Calls[actionAssign] + r.Calls[actionUnassign]; writes != 0 {
		t.Errorf("%.2f writes per quiet worker", writes)
	}
}

// The short cut around the SDK and the wire changes nothing: the same fleet through the client of the product makes the
// same calls, but for chance.
func TestBothPathsAgree(t *testing.T) {
	s, err := stageOf("start-up")
	if err != nil {
		t.Fatal(err)
	}
	const workers, full = 50, 90
	short, real := simulate(t, s, workers, full, true), simulate(t, s, workers, full, false)
	for _, action := range []string{actionTypes, actionSubnets, actionReservations} {
		if short.Calls[action] != 1 || real.Calls[action] != 1 {
			t.Errorf("%s: %v and %v per worker, want 1", action, short.Calls[action], real.Calls[action])
		}
	}
	// Of five runs each, both had 1.3 to 1.6 Assign calls and 2.7 to 3.1 reads of ENIs per worker.
	for _, action := range []string{actionAssign, actionInterfaces} {
		if a, b := short.Calls[action], real.Calls[action]; math.Abs(a-b) > 0.5 {
			t.Errorf("%s: %.2f per worker, %.2f through the SDK", action, a, b)
		}
	}
}

// simulate runs a stage in a bubble.
func simulate(t *testing.T, s stage, size, full int, direct bool) (r result) {
	t.Helper()
	t.Run(fmt.Sprintf("%s/%d/%d", s.name, size, full), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var err error
			if r, err = s.run(size, full, direct); err != nil {
				t.Error(err)
			}
		})
	})
	r.Scenario, r.Fleet, r.Full = s.name, size, full
	return r
}

func numbers(t *testing.T, list string) (ns []int) {
	t.Helper()
	if list == "" {
		return nil
	}
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("%q is not a list of numbers", list)
		}
		ns = append(ns, n)
	}
	return ns
}
