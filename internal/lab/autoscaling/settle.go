// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Pauses after launches that failed or were abandoned.
// unverified: how long they are; that repeated failures are tried less often is documented at
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html (administrative suspension).
const (
	firstPause   = 5 * time.Second
	longestPause = 5 * time.Minute

	// terminateRetry is how long a termination waits that EC2 refused.
	terminateRetry = time.Second
)

// dues lists when something ends by itself.
func (g *group) dues() []time.Time {
	var out []time.Time
	for _, m := range g.members {
		for _, a := range m.actions {
			out = append(out, a.due())
		}
		if !m.retryAt.IsZero() {
			out = append(out, m.retryAt)
		}
	}
	if !g.retryAt.IsZero() {
		out = append(out, g.retryAt)
	}
	return out
}

// settle makes a group what it shall be at now, as far as nothing holds it.
func (s *Service) settle(g *group, now time.Time) {
	for {
		g.expire(now)
		s.notice(g, now)
		for _, id := range slices.Sorted(maps.Keys(g.members)) {
			s.step(now, g, g.members[id])
		}
		if !s.scale(g, now) {
			break
		}
	}
}

// expire ends the waits whose time is over.
func (g *group) expire(now time.Time) {
	for _, m := range g.members {
		for _, name := range slices.Sorted(maps.Keys(m.actions)) {
			if a := m.actions[name]; a != nil && !now.Before(a.due()) {
				m.finish(a, a.hook.DefaultResult)
			}
		}
	}
}

// notice takes out instances that somebody else has ended. They go through the terminating hooks like any other.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-health-checks.html
func (s *Service) notice(g *group, now time.Time) {
	view := s.view(now)
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		if i, ok := view.Instance(id); ok && i.State != vpc.StateTerminated {
			continue
		}
		m.Healthy = false
		if !m.State.leaving() {
			s.leave(now, g, m, "an EC2 health check indicating it has been terminated or stopped")
		}
	}
}

// step moves one instance on until it has to wait.
func (s *Service) step(now time.Time, g *group, m *member) {
	for before := State(""); before != m.State; {
		before = m.State
		switch m.State {
		case Pending:
			m.State = PendingProceed
			if s.hold(now, g, m, Launching) {
				m.State = PendingWait
			}
		case PendingWait:
			switch {
			case m.abandon:
				// Whether terminating hooks see an instance that was abandoned at its launch is not in the guide.
				// unverified: that they do.
				g.backOff(now)
				s.leave(now, g, m, "a lifecycle hook that was abandoned")
				return
			case len(m.actions) == 0:
				m.State = PendingProceed
			}
		case PendingProceed:
			m.State = InService
			g.failures = 0
			origin, destination := m.route(Launching)
			s.note(g, now, "Successful", fmt.Sprintf("Launching a new EC2 instance: %s", m.ID), "")
			s.emit(now, g, "EC2 Instance Launch Successful", map[string]any{
				"AutoScalingGroupName": g.Name, "EC2InstanceId": m.ID, "StatusCode": "InProgress",
				"Origin": origin, "Destination": destination,
			}, s.instanceARN(m.ID))
		case TerminatingWait:
			if len(m.actions) == 0 { // both results end in termination
				m.State = TerminatingProceed
			}
		case Terminating:
			m.State = TerminatingProceed
			if s.hold(now, g, m, Leaving) {
				m.State = TerminatingWait
			}
		case TerminatingProceed:
			s.end(now, g, m)
			return
		}
		g.touched = g.touched || before != m.State
	}
}

// leave starts the end of an instance.
func (s *Service) leave(now time.Time, g *group, m *member, cause string) {
	clear(m.actions)
	m.abandon = false
	m.State, m.cause = Terminating, cause
	g.touched = true
	s.step(now, g, m)
}

// end terminates the instance and forgets it.
func (s *Service) end(now time.Time, g *group, m *member) {
	if _, err := s.cloud.TerminateInstances(now, []string{m.ID}); err != nil && m.Healthy {
		m.retryAt = now.Add(terminateRetry) // EC2 does not know the new instance everywhere yet
		return
	}
	delete(g.members, m.ID)
	g.touched = true
	origin, destination := m.route(Leaving)
	s.note(g, now, "Successful", "Terminating EC2 instance: "+m.ID, "At "+stamp(now)+" an instance was taken out of service in response to "+m.cause+".")
	s.emit(now, g, "EC2 Instance Terminate Successful", map[string]any{
		"AutoScalingGroupName": g.Name, "EC2InstanceId": m.ID, "StatusCode": "InProgress",
		"Origin": origin, "Destination": destination,
	}, s.instanceARN(m.ID))
}

// hold starts the hooks of a transition, and reports whether there are any.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
func (s *Service) hold(now time.Time, g *group, m *member, t Transition) bool {
	kind := "EC2 Instance-launch Lifecycle Action"
	if t == Leaving {
		kind = "EC2 Instance-terminate Lifecycle Action"
	}
	origin, destination := m.route(t)
	for _, name := range slices.Sorted(maps.Keys(g.hooks)) {
		h := g.hooks[name]
		if h.Transition != t {
			continue
		}
		a := &action{token: s.uuid(), hook: h, deadline: now.Add(h.HeartbeatTimeout), end: now.Add(h.GlobalTimeout())}
		m.actions[name] = a
		// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-event-reference.html
		s.emit(now, g, kind, map[string]any{
			"LifecycleActionToken": a.token, "AutoScalingGroupName": g.Name, "LifecycleHookName": h.Name,
			"EC2InstanceId": m.ID, "LifecycleTransition": string(t), "NotificationMetadata": h.NotificationMetadata,
			"Origin": origin, "Destination": destination,
		})
	}
	return len(m.actions) > 0
}

// scale launches what is missing or picks what is too much, and reports whether it did anything.
func (s *Service) scale(g *group, now time.Time) (did bool) {
	alive := 0
	for _, m := range g.members {
		if !m.warm && !m.State.leaving() {
			alive++
		}
	}
	if !now.Before(g.retryAt) {
		g.retryAt = time.Time{}
	}
	if g.deleting {
		return false
	}
	for ; alive < g.DesiredCapacity; alive++ {
		if !s.drawn(g, now) && (!g.retryAt.IsZero() || !s.launch(g, now, false)) {
			return did
		}
		did = true
	}
	for ; alive > g.DesiredCapacity; alive-- {
		m := g.surplus()
		if m == nil {
			break
		}
		s.leave(now, g, m, fmt.Sprintf("a difference between desired and actual capacity, shrinking the capacity to %d", g.DesiredCapacity))
		did = true
	}
	return s.fill(g, now) || did
}

// surplus picks the instance to terminate: in the zone with most instances, from the oldest version of the template, the
// one launched first. Instances that are not in service yet are left until they are, protected ones for ever.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-termination-policies.html
// unverified: the last criterion, which is the end of the billing hour; and what happens to pending instances.
func (g *group) surplus() *member {
	count := g.perZone()
	var best *member
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		if m.warm || m.State != InService || m.ProtectedFromScaleIn {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(count[best.AZ], count[m.AZ]), cmp.Compare(m.version(), best.version()),
			m.launched.Compare(best.launched)) < 0 {
			best = m
		}
	}
	return best
}

func (m *member) version() int {
	n, _ := strconv.Atoi(m.Template.Version) // always a number
	return n
}

// perZone counts the instances that stay, by availability zone.
func (g *group) perZone() map[string]int {
	count := map[string]int{}
	for _, m := range g.members {
		if !m.State.leaving() {
			count[m.AZ]++
		}
	}
	return count
}

// backOff puts the next launch off, for longer each time.
func (g *group) backOff(now time.Time) {
	pause := longestPause
	if shift := g.failures; shift < bits.Len(uint(longestPause/firstPause)) {
		pause = min(firstPause<<shift, longestPause)
	}
	g.failures++
	g.retryAt = now.Add(pause)
}
