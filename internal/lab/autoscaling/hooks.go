// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"cmp"
	"time"
)

// Hook holds instances that are launching or terminating.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutLifecycleHook.html
type Hook struct {
	Name       string
	Transition Transition
	// DefaultResult is what happens when the time is over; default ABANDON.
	DefaultResult Result
	// HeartbeatTimeout is how long an instance is held, and for how much longer after a heartbeat: 30 s to 2 h, default 1 h.
	HeartbeatTimeout     time.Duration
	NotificationMetadata string
}

// Transition is what a hook interrupts.
type Transition string

// Result is how a lifecycle action ends.
type Result string

// Transitions and results.
const (
	Launching Transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
	Leaving   Transition = "autoscaling:EC2_INSTANCE_TERMINATING"

	Continue Result = "CONTINUE"
	Abandon  Result = "ABANDON"
)

// Bounds of the waits.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutLifecycleHook.html (HeartbeatTimeout)
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_LifecycleHook.html (GlobalTimeout)
const (
	defaultHeartbeat = time.Hour
	minHeartbeat     = 30 * time.Second
	maxHeartbeat     = 2 * time.Hour
	maxHeartbeats    = 100
	maxWait          = 48 * time.Hour
	maxHooks         = 50 // per group: https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-quotas.html
)

// GlobalTimeout is the longest that heartbeats can hold an instance.
func (h Hook) GlobalTimeout() time.Duration { return min(maxWait, maxHeartbeats*h.HeartbeatTimeout) }

// action is one hook that holds one instance.
type action struct {
	token    string
	hook     Hook // as it was when the wait began
	deadline time.Time
	end      time.Time // which no heartbeat moves
}

func (a *action) due() time.Time {
	if a.end.Before(a.deadline) {
		return a.end
	}
	return a.deadline
}

func (g *group) putHook(h Hook) error {
	h.DefaultResult = cmp.Or(h.DefaultResult, Abandon)
	h.HeartbeatTimeout = cmp.Or(h.HeartbeatTimeout, defaultHeartbeat)
	switch {
	case h.Name == "":
		return invalid("The lifecycle hook needs a name")
	case h.Transition != Launching && h.Transition != Leaving:
		return invalid("Lifecycle hook transition must be one of %s", quoted([]string{string(Launching), string(Leaving)}))
	case h.DefaultResult != Continue && h.DefaultResult != Abandon:
		return invalid("Default result '%s' is invalid", h.DefaultResult)
	case h.HeartbeatTimeout < minHeartbeat || h.HeartbeatTimeout > maxHeartbeat:
		return invalid("Invalid HeartbeatTimeout: must be between 30 and 7200 seconds")
	}
	if _, replaces := g.hooks[h.Name]; !replaces && len(g.hooks) >= maxHooks {
		return &Error{Code: "LimitExceeded", Message: "You have already reached a limit for your Amazon EC2 Auto Scaling resources"}
	}
	g.hooks[h.Name] = h
	g.touched = true
	return nil
}

// PutHook adds a hook to a group or changes one. Instances that wait already are not affected.
func (s *Service) PutHook(now time.Time, groupName string, h Hook) error {
	return s.change(now, func() error {
		g, err := s.find(groupName)
		if err != nil {
			return err
		}
		old := g.hooks[h.Name] // what a change does not name stays
		h.Transition = cmp.Or(h.Transition, old.Transition)
		h.DefaultResult = cmp.Or(h.DefaultResult, old.DefaultResult)
		h.HeartbeatTimeout = cmp.Or(h.HeartbeatTimeout, old.HeartbeatTimeout)
		return g.putHook(h)
	})
}

// DeleteHook removes a hook and ends its waits: ABANDON for launching instances, CONTINUE for terminating ones.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DeleteLifecycleHook.html
func (s *Service) DeleteHook(now time.Time, groupName, hook string) error {
	return s.change(now, func() error {
		g, err := s.find(groupName)
		if err != nil {
			return err
		}
		h, ok := g.hooks[hook]
		if !ok {
			return invalid("No lifecycle hook found with name: %s", hook) // unverified: the wording
		}
		result := Continue
		if h.Transition == Launching {
			result = Abandon
		}
		for _, m := range g.members {
			if a := m.actions[hook]; a != nil {
				m.finish(a, result)
			}
		}
		delete(g.hooks, hook)
		g.touched = true
		return nil
	})
}

// ActionRef names a lifecycle action: by its token, or by the instance that it holds.
type ActionRef struct{ Group, Hook, Token, InstanceID string }

// CompleteAction ends a wait.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CompleteLifecycleAction.html
func (s *Service) CompleteAction(now time.Time, ref ActionRef, result Result) error {
	return s.change(now, func() error {
		if result != Continue && result != Abandon {
			return invalid("Lifecycle action result must be one of %s", quoted([]string{string(Continue), string(Abandon)}))
		}
		m, a, err := s.action(ref)
		if err != nil {
			return err
		}
		m.finish(a, result)
		return nil
	})
}

// Heartbeat makes a wait last its hook's timeout from now on, up to the global timeout.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_RecordLifecycleActionHeartbeat.html
func (s *Service) Heartbeat(now time.Time, ref ActionRef) error {
	return s.change(now, func() error {
		_, a, err := s.action(ref)
		if err != nil {
			return err
		}
		a.deadline = now.Add(a.hook.HeartbeatTimeout)
		return nil
	})
}

// action finds a wait that has not ended.
func (s *Service) action(ref ActionRef) (*member, *action, error) {
	g, err := s.find(ref.Group)
	if err != nil {
		return nil, nil, err
	}
	if ref.Token == "" && ref.InstanceID == "" {
		return nil, nil, invalid("Either a lifecycle action token or an instance ID must be specified") // unverified: the wording
	}
	for _, m := range g.members {
		a := m.actions[ref.Hook]
		if a == nil || (ref.InstanceID != "" && ref.InstanceID != m.ID) || (ref.Token != "" && ref.Token != a.token) {
			continue
		}
		return m, a, nil
	}
	// Both wordings as users report them, for waits that ended and such that never were:
	// https://github.com/spacelift-io/terraform-aws-spacelift-workerpool-on-ec2/pull/197
	// https://github.com/convox/rack/issues/2432
	if ref.Token != "" {
		return nil, nil, invalid("No active Lifecycle Action found with token %s", ref.Token)
	}
	return nil, nil, invalid("No active Lifecycle Action found with instance ID %s", ref.InstanceID)
}

// finish ends one wait. CONTINUE lets the other hooks of the instance complete, ABANDON ends them too.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/completing-lifecycle-hooks.html
func (m *member) finish(a *action, result Result) {
	delete(m.actions, a.hook.Name)
	if result == Abandon {
		m.abandon = true
		clear(m.actions)
	}
}
