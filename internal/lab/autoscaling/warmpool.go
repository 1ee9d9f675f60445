// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// WarmPool keeps instances ready beside a group. They pass the launching hooks twice: on their way into the pool, and on
// their way from there into the group. The lab's pools keep them running: its instances cannot be stopped.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-warm-pools.html
type WarmPool struct {
	MinSize int
	// MaxPrepared is how many instances group and pool have together at most; nil means the group's MaxSize.
	MaxPrepared *int
}

// size is how many instances the pool of a group has.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutWarmPool.html (MaxGroupPreparedCapacity)
func (w *WarmPool) size(g GroupSettings) int {
	if w == nil {
		return 0
	}
	prepared := g.MaxSize
	if w.MaxPrepared != nil {
		prepared = *w.MaxPrepared
	}
	return max(w.MinSize, prepared-g.DesiredCapacity)
}

// PutWarmPool gives a group a warm pool, or another one.
func (s *Service) PutWarmPool(now time.Time, groupName string, w WarmPool) error {
	return s.change(now, func() error {
		g, err := s.find(groupName)
		if err != nil {
			return err
		}
		if w.MinSize < 0 || (w.MaxPrepared != nil && *w.MaxPrepared < 0) {
			return invalid("The sizes of a warm pool must not be negative")
		}
		g.pool, g.touched = &w, true
		return nil
	})
}

// DeleteWarmPool takes a group's warm pool away: its instances leave through their hooks.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DeleteWarmPool.html
func (s *Service) DeleteWarmPool(now time.Time, groupName string) error {
	return s.change(now, func() error {
		g, err := s.find(groupName)
		if err != nil {
			return err
		}
		g.pool, g.touched = nil, true
		return nil
	})
}

// shown is the state that a describer sees: that of an instance in a warm pool is marked.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/warm-pool-instance-lifecycle.html
func (m *member) shown() State {
	switch {
	case !m.warm:
		return m.State
	case m.State == InService:
		return WarmedRunning
	}
	return "Warmed:" + m.State
}

// route says where a lifecycle action comes from and leads to.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/warm-pools-eventbridge-events.html
func (m *member) route(t Transition) (origin, destination string) {
	const ec2, pool, group = "EC2", "WarmPool", "AutoScalingGroup"
	switch {
	case t == Leaving && m.warm:
		return pool, ec2
	case t == Leaving:
		return group, ec2
	case m.warm:
		return ec2, pool
	case m.warmed:
		return pool, group
	}
	return ec2, group
}

// drawn moves an instance that is ready from the pool into the group, and reports whether there was one.
func (s *Service) drawn(g *group, now time.Time) bool {
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		if m := g.members[id]; m.warm && m.State == InService {
			m.warm, m.warmed, m.State = false, true, Pending
			g.touched = true
			s.step(now, g, m)
			return true
		}
	}
	return false
}

// fill launches what the pool lacks, or ends what it has too much, and reports whether it did anything.
func (s *Service) fill(g *group, now time.Time) (did bool) {
	var ready []*member
	have := 0
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		if m := g.members[id]; m.warm && !m.State.leaving() {
			have++
			if m.State == InService {
				ready = append(ready, m)
			}
		}
	}
	want := g.pool.size(g.GroupSettings)
	for ; have < want && g.retryAt.IsZero(); have++ {
		if !s.launch(g, now, true) {
			return did
		}
		did = true
	}
	for ; have > want && len(ready) > 0; have-- {
		s.leave(now, g, ready[0], fmt.Sprintf("a warm pool that shrinks to %d", want))
		ready, did = ready[1:], true
	}
	return did
}
