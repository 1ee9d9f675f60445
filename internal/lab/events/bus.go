// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package events

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Target takes an event. An error makes the bus deliver again.
type Target func(ctx context.Context, event []byte) error

// Rule sends events to targets: those that the pattern matches, or one at each turn of the schedule.
type Rule struct {
	Name     string
	Pattern  *Pattern
	Every    time.Duration // instead of a pattern
	Disabled bool
	Targets  []Target
}

// Mischief is how far the bus uses its right to deliver more than once and in any order. The zero Mischief delivers each
// event once, at once.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-bus-perf.html
type Mischief struct {
	// Duplicates is how many more times each event is delivered, at the same time as the first.
	Duplicates int `json:"duplicates"`
	// Delay is the longest that a delivery takes: each waits for a random part of it, so events overtake each other.
	Delay time.Duration `json:"delay"`
}

// The bus tries to deliver for a day, up to 185 times.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html
const (
	maxAge      = 24 * time.Hour
	maxAttempts = 1 + 185
	// unverified: how long the bus waits between attempts; the guide says exponential backoff with jitter.
	firstPause   = time.Second
	longestPause = 10 * time.Minute
)

// Bus carries events. Its methods are safe for concurrent use. It delivers while [Bus.Run] runs; what is put before
// waits.
type Bus struct {
	account, region string

	mu       sync.Mutex
	rules    map[string]*rule
	queue    []Event
	news     chan struct{} // holds one value while there is something new in queue or rules
	mischief Mischief
	rng      *rand.Rand
	serial   int
}

type rule struct {
	Rule
	due time.Time // of the next turn of the schedule; zero until Run has seen the rule
}

// Config makes a [Bus].
type Config struct {
	Account, Region string
	Mischief        Mischief
	Seed            uint64 // decides on delays
}

// New makes a bus without rules.
func New(c Config) *Bus {
	return &Bus{
		account: c.Account, region: c.Region, mischief: c.Mischief,
		rules: map[string]*rule{}, news: make(chan struct{}, 1), rng: rand.New(rand.NewPCG(c.Seed, 0x657665)),
	}
}

// PutRule makes or replaces a rule.
func (b *Bus) PutRule(r Rule) error {
	if r.Name == "" {
		return fmt.Errorf("put rule: it has no name")
	}
	if (r.Pattern == nil) == (r.Every == 0) || r.Every < 0 {
		return fmt.Errorf("put rule %s: it needs either a pattern or a schedule", r.Name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rules[r.Name] = &rule{Rule: r}
	b.wake()
	return nil
}

// RuleARN is the ARN that a rule of that name has.
func (b *Bus) RuleARN(name string) string {
	return fmt.Sprintf("arn:aws:events:%s:%s:rule/%s", b.region, b.account, name)
}

// Turn lets the turn of a rule's schedule come now; the next one is due a whole period later. An error is a rule without
// a schedule.
func (b *Bus) Turn(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.rules[name]
	if !ok || r.Every == 0 || r.Disabled {
		return fmt.Errorf("rule %s has no schedule that is enabled", name)
	}
	r.due = time.Unix(0, 0) // long ago
	b.wake()
	return nil
}

// DeleteRule removes a rule. Deliveries on their way still arrive. Deleting twice succeeds.
func (b *Bus) DeleteRule(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.rules, name)
}

// SetMischief changes how events that are put from now on are delivered.
func (b *Bus) SetMischief(m Mischief) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mischief = m
}

// Put accepts an event, and gives it an ID, the account and the Region where it has none.
func (b *Bus) Put(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.put(e)
}

func (b *Bus) put(e Event) {
	b.serial++
	if e.ID == "" {
		e.ID = fmt.Sprintf("%08x-0000-4000-8000-%012x", b.rng.Uint32(), b.serial)
	}
	if e.Account == "" {
		e.Account = b.account
	}
	if e.Region == "" {
		e.Region = b.region
	}
	b.queue = append(b.queue, e)
	b.wake()
}

func (b *Bus) wake() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends, and returns when no target is at work any more.
func (b *Bus) Run(ctx context.Context) {
	var deliveries sync.WaitGroup
	defer deliveries.Wait()
	for {
		out, next := b.dispatch(time.Now())
		for _, d := range out {
			deliveries.Go(func() { b.deliver(ctx, d) })
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-b.news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// delivery is one event on its way to one target.
type delivery struct {
	target Target
	event  []byte
	wait   time.Duration
}

// dispatch takes what is due, and says how long there is nothing more to do.
func (b *Bus) dispatch(now time.Time) (out []delivery, next time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next = time.Hour
	for _, name := range slices.Sorted(maps.Keys(b.rules)) {
		r := b.rules[name]
		if r.Every == 0 || r.Disabled {
			continue
		}
		if r.due.IsZero() {
			r.due = now.Add(r.Every)
		}
		if !now.Before(r.due) {
			out = append(out, b.deliveries(r, b.scheduled(r, now))...)
			r.due = now.Add(r.Every)
		}
		next = min(next, r.due.Sub(now))
	}
	for _, e := range b.queue {
		event, err := e.JSON()
		if err != nil {
			continue // its detail is no JSON, which EventBridge would have refused
		}
		for _, name := range slices.Sorted(maps.Keys(b.rules)) {
			if r := b.rules[name]; r.Pattern != nil && !r.Disabled && r.Pattern.Matches(event) {
				out = append(out, b.deliveries(r, event)...)
			}
		}
	}
	b.queue = nil
	return out, next
}

// scheduled is the event of a rule's schedule.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-run-lambda-schedule.html
func (b *Bus) scheduled(r *rule, now time.Time) []byte {
	b.serial++
	event, _ := Event{ // nothing in it can fail to encode
		ID: fmt.Sprintf("%08x-0000-4000-8000-%012x", b.rng.Uint32(), b.serial), DetailType: "Scheduled Event",
		Source: "aws.events", Account: b.account, Region: b.region, Time: now,
		Resources: []string{b.RuleARN(r.Name)},
	}.JSON()
	return event
}

func (b *Bus) deliveries(r *rule, event []byte) (out []delivery) {
	for _, t := range r.Targets {
		for range 1 + b.mischief.Duplicates {
			var wait time.Duration
			if b.mischief.Delay > 0 {
				wait = time.Duration(b.rng.Int64N(int64(b.mischief.Delay)))
			}
			out = append(out, delivery{target: t, event: event, wait: wait})
		}
	}
	return out
}

// deliver tries until the target took the event, the bus gives up or ctx ends.
func (b *Bus) deliver(ctx context.Context, d delivery) {
	start, pause := time.Now(), firstPause
	wait := d.wait
	for range maxAttempts {
		if !sleep(ctx, wait) || time.Since(start) > maxAge {
			return
		}
		if err := d.target(ctx, d.event); err == nil {
			return
		}
		b.mu.Lock()
		wait = pause/2 + time.Duration(b.rng.Int64N(int64(pause/2)))
		b.mu.Unlock()
		pause = min(2*pause, longestPause)
	}
}

// sleep reports whether it lasted to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
