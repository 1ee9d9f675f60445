// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package autoscaling is the lab's EC2 Auto Scaling: groups that keep their desired number of instances in the lab's VPC,
// and lifecycle hooks that hold instances while somebody prepares or empties them.
//
// Package asgapi speaks its protocol; stacks and tests call it directly. It promises the lifecycle that AWS documents:
// what waits, for how long, what ends the wait, and what happens then. Instances are launched and terminated through
// package vpc under EC2's rules, so a launch that EC2 refuses is refused here, and tried again.
//
// It has no goroutine and no clock: whoever calls says what time it is. After each change [Service.Advance] does what is
// due; [Service.Run] does that for a lab in real or a synctest bubble's time. Scaling policies, health checks of load
// balancers and refreshes do not belong here. Where a rule comes from stands beside the rule; what nobody
// could verify on AWS is marked "unverified:".
package autoscaling

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Config makes a [Service].
type Config struct {
	Cloud *vpc.Cloud
	// Publish gets the events of the groups, never two at the same time; nil drops them. It must not call the service.
	Publish func(events.Event)
	// Seed makes tokens and choices reproducible.
	Seed uint64
}

// Service is Auto Scaling in one account and Region. Its methods are safe for concurrent use, and return [*Error]s.
//
// Methods that change something take the time of the change, and do at once what follows from it.
type Service struct {
	cloud   *vpc.Cloud
	publish func(events.Event)

	mu      sync.Mutex
	rng     *rand.Rand
	groups  map[string]*group
	changed chan struct{} // closed and replaced by every change
	outbox  []events.Event
}

// New makes a service without groups.
func New(c Config) *Service {
	if c.Publish == nil {
		c.Publish = func(events.Event) {}
	}
	return &Service{
		cloud: c.Cloud, publish: c.Publish, groups: map[string]*group{}, changed: make(chan struct{}),
		rng: rand.New(rand.NewPCG(c.Seed, 0x617367)),
	}
}

// Changed returns a channel that is closed at the next change of any group. Take it before looking.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Advance does what is due at now: it launches, terminates, lets waits end and notices instances that are gone.
func (s *Service) Advance(now time.Time) {
	_ = s.change(now, func() error { return nil }) // nothing that could fail
}

// Next returns when [Service.Advance] will have something to do, if time alone brings it.
func (s *Service) Next() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next time.Time
	for _, g := range s.groups {
		for _, due := range g.dues() {
			if next.IsZero() || due.Before(next) {
				next = due
			}
		}
	}
	return next, !next.IsZero()
}

// Run advances the groups whenever something is due, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	for {
		gone := s.cloud.Changed() // before looking, so that nothing falls in between
		changed := s.Changed()
		s.Advance(time.Now())
		wait := time.Hour
		if next, ok := s.Next(); ok {
			wait = time.Until(next)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-gone:
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// change runs one call under the lock, then everything that follows from it.
func (s *Service) change(now time.Time, call func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := call()
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		g := s.groups[name]
		s.settle(g, now)
		if g.deleting && len(g.members) == 0 {
			delete(s.groups, name)
			g.touched = true
		}
		if g.touched {
			g.touched = false
			close(s.changed)
			s.changed = make(chan struct{})
		}
	}
	for _, e := range s.outbox {
		s.publish(e)
	}
	s.outbox = nil
	return err
}

// find returns a group that is not on its way out.
func (s *Service) find(name string) (*group, error) {
	if name == "" {
		return nil, invalid("1 validation error detected: Value at 'autoScalingGroupName' failed to satisfy constraint: " +
			"Member must have length greater than or equal to 1")
	}
	g, ok := s.groups[name]
	if !ok {
		// https://github.com/hashicorp/terraform-provider-aws/issues/8270
		return nil, invalid("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
	}
	return g, nil
}

// view is the account with every change that was made so far. Calls overtake one another on their way here, so some of
// those changes may have a later time than this call.
func (s *Service) view(now time.Time) vpc.View { return s.cloud.View(now.Add(time.Minute)) }

// uuid makes a token in the form that AWS uses.
func (s *Service) uuid() string {
	a, b := s.rng.Uint64(), s.rng.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>52, b&0xffffffffffff)
}

// emit puts an event of a group into the outbox.
func (s *Service) emit(now time.Time, g *group, detailType string, detail map[string]any, resources ...string) {
	maps.DeleteFunc(detail, func(_ string, v any) bool { return v == "" })
	text, err := json.Marshal(detail)
	if err != nil {
		panic(err) // maps of strings always encode
	}
	s.outbox = append(s.outbox, events.Event{
		DetailType: detailType, Source: "aws.autoscaling", Time: now, Resources: append([]string{g.ARN}, resources...), Detail: text,
	})
}

// Error is what Auto Scaling answers to a call that it refuses.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// invalid is Auto Scaling's code for nearly everything.
func invalid(format string, args ...any) *Error {
	return &Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

func quoted(list []string) string { return "'" + strings.Join(list, "', '") + "'" }
