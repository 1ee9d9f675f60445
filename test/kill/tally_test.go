// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// step is the point of the work at which a process is killed.
type step int

const (
	beforeAssign   step = iota // EC2 has not seen the AssignPrivateIpAddresses, and never will
	lateAssign                 // EC2 sees it after the agent's next life has begun
	afterAssign                // EC2 has done it, and nobody got the answer
	beforeUnassign             // as above
	lateUnassign
	afterUnassign
	unassigned  // the agent got the answer: it may ask for the same addresses in its next life
	afterLedger // the answer to an ADD or DEL is recorded
	afterReply  // an ADD has returned, others are waiting
	linkMade    // the interface is in the pod's namespace under its temporary name
	numSteps
)

func (s step) String() string {
	return [...]string{
		"before assign", "before assign, applied late", "after assign",
		"before unassign", "before unassign, applied late", "after unassign", "unassigned",
		"after ledger write", "after reply", "link made",
	}[s]
}

// victim is who is killed.
type victim int

const (
	theAgent victim = iota
	thePlugin
	both
	numVictims
)

func (v victim) String() string { return [...]string{"agent", "plugin", "both"}[v] }

// count is a line of the table.
type count struct{ kills, inFlight int }

// tally counts the kills.
type tally struct {
	mu    sync.Mutex
	count [numVictims][numSteps]count
}

// add counts one process that was killed, and whether a request was in flight.
func (c *tally) add(v victim, s step, inFlight bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[v][s].kills++
	if inFlight {
		c.count[v][s].inFlight++
	}
}

func (c *tally) total() (sum count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, steps := range c.count {
		for _, x := range steps {
			sum.kills += x.kills
			sum.inFlight += x.inFlight
		}
	}
	return sum
}

// of sums one step over the victims.
func (c *tally) of(s step) (sum count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, steps := range c.count {
		sum.kills += steps[s].kills
		sum.inFlight += steps[s].inFlight
	}
	return sum
}

func (c *tally) String() string {
	sum := c.total()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "killed\tstep\tkills\trequest in flight\t")
	c.mu.Lock()
	defer c.mu.Unlock()
	for v := range numVictims {
		for s := range numSteps {
			if x := c.count[v][s]; x.kills > 0 {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t\n", v, s, x.kills, x.inFlight)
			}
		}
	}
	fmt.Fprintf(w, "all\t\t%d\t%d\t\n", sum.kills, sum.inFlight)
	_ = w.Flush() // a Builder takes everything
	return text.String()
}

func TestTheTableAddsUp(t *testing.T) {
	t.Parallel()
	var c tally
	c.add(theAgent, afterReply, true)
	c.add(theAgent, afterReply, false)
	c.add(thePlugin, linkMade, true)
	if got, want := c.total(), (count{3, 2}); got != want {
		t.Errorf("total %+v, want %+v", got, want)
	}
	if got, want := c.of(afterReply), (count{2, 1}); got != want {
		t.Errorf("after reply %+v, want %+v", got, want)
	}
	lines := slices.Collect(strings.Lines(c.String()))
	if len(lines) != 4 || !strings.Contains(lines[2], "link made") {
		t.Errorf("table:\n%s", &c)
	}
}
