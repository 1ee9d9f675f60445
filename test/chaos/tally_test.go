// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally counts what a run was made of.
type tally struct {
	mu       sync.Mutex
	kills    int // processes that SIGKILL ended
	inFlight int // of these, with a request of the worker in flight
	counts   map[string]int
	adds     []time.Duration // of those that succeeded
	quiets   []time.Duration // until all agreed
}

func (c *tally) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = map[string]int{}
	}
	c.counts[what]++
}

func (c *tally) killed(who string, busy bool) {
	c.count(who + " killed")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kills++
	if busy {
		c.inFlight++
	}
}

func (c *tally) refused(command string, code uint) {
	c.count(fmt.Sprintf("%s refused with %d", command, code))
}

func (c *tally) added(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adds = append(c.adds, took)
}

func (c *tally) settled(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quiets = append(c.quiets, took)
}

func (c *tally) killsSoFar() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kills
}

func (c *tally) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var text strings.Builder
	fmt.Fprintf(&text, "%d kills, %d with a request in flight\n", c.kills, c.inFlight)
	for _, what := range slices.Sorted(maps.Keys(c.counts)) {
		fmt.Fprintf(&text, "%6d %s\n", c.counts[what], what)
	}
	fmt.Fprintf(&text, "%6d ADD, %s\n", len(c.adds), quantiles(c.adds))
	fmt.Fprintf(&text, "%6d epochs, agreement after %s\n", len(c.quiets), quantiles(c.quiets))
	return text.String()
}

func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	d = slices.Sorted(slices.Values(d))
	at := func(q int) time.Duration { return d[(len(d)-1)*q/100].Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, max %v", at(50), at(99), at(100))
}

// diary keeps what happened lately, for the reader of a failure.
type diary struct {
	mu    sync.Mutex
	lines []string
}

// note writes into the diary.
func (s *scene) note(who, format string, args ...any) {
	line := fmt.Sprintf("%s %s: %s", time.Now().UTC().Format("15:04:05.000"), who, fmt.Sprintf(format, args...))
	const keep = 4000
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	if len(s.diary.lines) >= keep {
		s.diary.lines = slices.Delete(s.diary.lines, 0, keep/2)
	}
	s.diary.lines = append(s.diary.lines, line)
}

// last are the latest lines.
func (d *diary) last(n int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines[max(0, len(d.lines)-n):])
}
