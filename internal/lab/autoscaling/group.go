// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Group is an Auto Scaling group as its describer sees it.
type Group struct {
	Name      string
	ARN       string
	CreatedAt time.Time
	Status    string // empty, or "Delete in progress"
	GroupSettings
	Instances []Instance // sorted by ID
	Hooks     []Hook     // sorted by name
	Pool      *WarmPool  // nil without
	Warm      []Instance // those in the warm pool, sorted by ID
}

// GroupSettings are what a group is made with and can be given later.
type GroupSettings struct {
	MinSize, MaxSize                 int
	DesiredCapacity                  int
	Template                         TemplateRef
	Subnets                          []string // IDs; the availability zones are theirs
	Tags                             []Tag
	NewInstancesProtectedFromScaleIn bool
}

// TemplateRef names a launch template and its version.
type TemplateRef struct {
	ID, Name string // one is enough
	Version  string // a number, $Latest or $Default, which is the default
}

// Tag is a tag of a group.
type Tag struct {
	Key, Value        string
	PropagateAtLaunch bool
}

// Instance is a member of a group.
type Instance struct {
	ID, Type, AZ         string
	State                State
	Healthy              bool
	Template             TemplateRef // with the version as a number
	ProtectedFromScaleIn bool
}

// State is an instance's place in the lifecycle.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
type State string

// States that the lab knows.
const (
	Pending            State = "Pending"
	PendingWait        State = "Pending:Wait"
	PendingProceed     State = "Pending:Proceed"
	InService          State = "InService"
	Terminating        State = "Terminating"
	TerminatingWait    State = "Terminating:Wait"
	TerminatingProceed State = "Terminating:Proceed"
	WarmedRunning      State = "Warmed:Running" // and the others with Warmed: in front
)

// leaving reports whether the instance no longer counts.
func (s State) leaving() bool {
	return s == Terminating || s == TerminatingWait || s == TerminatingProceed
}

// group is a group with what its describer does not see.
type group struct {
	Group
	members  map[string]*member
	hooks    map[string]Hook
	pool     *WarmPool
	deleting bool
	touched  bool // since the last change of the service was announced
	failures int  // launches that failed one after the other
	retryAt  time.Time
	log      []Activity
}

// member is an instance with the hooks that hold it.
type member struct {
	Instance
	launched time.Time
	warm     bool               // in the warm pool
	warmed   bool               // came out of it
	actions  map[string]*action // by hook
	abandon  bool               // an action ended so
	cause    string             // why it is terminating
	retryAt  time.Time          // of a termination that EC2 refused
}

// CreateGroup makes a group with its hooks, which hold the first instances too.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html
func (s *Service) CreateGroup(now time.Time, name string, settings GroupSettings, hooks []Hook) error {
	return s.change(now, func() error {
		if name == "" {
			return invalid("The group needs a name")
		}
		if _, taken := s.groups[name]; taken {
			return &Error{Code: "AlreadyExists", Message: "AutoScalingGroup by this name already exists - A group with the name " + name + " already exists"}
		}
		g := &group{members: map[string]*member{}, hooks: map[string]Hook{}, touched: true}
		g.Name, g.CreatedAt = name, now
		g.ARN = fmt.Sprintf("arn:aws:autoscaling:%s:%s:autoScalingGroup:%s:autoScalingGroupName/%s",
			s.cloud.Region(), s.cloud.AccountID(), s.uuid(), name)
		if err := s.set(now, g, settings); err != nil {
			return err
		}
		for _, h := range hooks {
			if err := g.putHook(h); err != nil {
				return err
			}
		}
		s.groups[name] = g
		return nil
	})
}

// UpdateGroup gives a group new settings; instances that run stay as they are. The desired capacity follows limits that
// it would be outside of.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_UpdateAutoScalingGroup.html
func (s *Service) UpdateGroup(now time.Time, name string, edit func(*GroupSettings)) error {
	return s.change(now, func() error {
		g, err := s.find(name)
		if err != nil {
			return err
		}
		settings := g.GroupSettings
		before := settings.DesiredCapacity
		edit(&settings)
		if settings.DesiredCapacity == before && settings.MinSize <= settings.MaxSize {
			settings.DesiredCapacity = min(max(before, settings.MinSize), settings.MaxSize)
		}
		return s.set(now, g, settings)
	})
}

// set checks settings and gives them to a group.
func (s *Service) set(now time.Time, g *group, in GroupSettings) error {
	switch {
	case in.MinSize < 0 || in.MaxSize < in.MinSize:
		return invalid("Max bound, %d, must be greater than or equal to min bound, %d", in.MaxSize, in.MinSize)
	case in.DesiredCapacity < in.MinSize:
		return invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", in.DesiredCapacity, in.MinSize, in.MaxSize)
	case in.DesiredCapacity > in.MaxSize:
		return invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", in.DesiredCapacity, in.MinSize, in.MaxSize)
	case len(in.Subnets) == 0:
		return invalid("At least one Availability Zone or VPC Subnet is required.")
	}
	view := s.view(now)
	for _, id := range in.Subnets {
		if _, ok := view.Subnet(id); !ok {
			return invalid("The subnet ID '%s' does not exist", id)
		}
	}
	t, version, _, err := template(view, in.Template)
	if err != nil {
		return err
	}
	if version == 0 {
		return invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	}
	in.Template.ID, in.Template.Name = t.ID, t.Name
	in.Subnets, in.Tags = slices.Clone(in.Subnets), slices.Clone(in.Tags)
	g.GroupSettings = in
	g.retryAt, g.failures = time.Time{}, 0
	g.touched = true
	return nil
}

// template finds the version that a group names. Without a name it returns version 0.
func template(view vpc.View, ref TemplateRef) (vpc.LaunchTemplate, int, vpc.LaunchTemplateData, error) {
	name := cmp.Or(ref.ID, ref.Name)
	if name == "" {
		return vpc.LaunchTemplate{}, 0, vpc.LaunchTemplateData{}, nil
	}
	t, err := view.LaunchTemplate(name)
	if err != nil {
		return t, 0, vpc.LaunchTemplateData{}, invalid("%v", err)
	}
	version, data, err := t.Version(ref.Version)
	if err != nil {
		return t, 0, data, invalid("%v", err)
	}
	return t, version, data, nil
}

// DeleteGroup removes a group. One with instances is refused unless force is set: then they are terminated at once,
// without their hooks.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DeleteAutoScalingGroup.html
func (s *Service) DeleteGroup(now time.Time, name string, force bool) error {
	return s.change(now, func() error {
		g, err := s.find(name)
		if err != nil {
			return err
		}
		if len(g.members) > 0 && !force {
			return &Error{Code: "ResourceInUse", Message: "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group."}
		}
		g.deleting, g.touched = true, true
		g.MinSize, g.DesiredCapacity, g.Status = 0, 0, "Delete in progress"
		for _, m := range g.members {
			clear(m.actions)
			m.State = TerminatingProceed
		}
		return nil
	})
}

// SetDesiredCapacity says how many instances the group shall have.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_SetDesiredCapacity.html
func (s *Service) SetDesiredCapacity(now time.Time, name string, n int) error {
	return s.change(now, func() error {
		g, err := s.find(name)
		if err != nil {
			return err
		}
		// The wordings: https://github.com/kubernetes/autoscaler/issues/2276 and unverified for the lower bound.
		if n > g.MaxSize {
			return invalid("New SetDesiredCapacity value %d is above max value %d for the AutoScalingGroup.", n, g.MaxSize)
		}
		if n < g.MinSize {
			return invalid("New SetDesiredCapacity value %d is below min value %d for the AutoScalingGroup.", n, g.MinSize)
		}
		g.DesiredCapacity, g.touched = n, true
		g.retryAt, g.failures = time.Time{}, 0
		return nil
	})
}

// TerminateInstance takes an instance out of its group through its hooks. With decrement the group shrinks, otherwise the
// instance is replaced.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_TerminateInstanceInAutoScalingGroup.html
func (s *Service) TerminateInstance(now time.Time, id string, decrement bool) error {
	return s.change(now, func() error {
		g, m := s.member(id)
		if m == nil {
			// https://github.com/kubernetes/autoscaler/issues/2165
			return invalid("Instance Id not found - No managed instance found for instance ID: %s", id)
		}
		if m.warm {
			decrement = false // it is none of the desired ones
		}
		if decrement && g.DesiredCapacity-1 < g.MinSize {
			return invalid("Currently, desiredSize equals minSize (%d). Terminating instance without replacement will violate group's min size constraint.", g.MinSize)
		}
		if m.State.leaving() {
			return nil
		}
		if decrement {
			g.DesiredCapacity--
		}
		s.leave(now, g, m, "a user request")
		return nil
	})
}

// member finds an instance in any group.
func (s *Service) member(id string) (*group, *member) {
	for _, g := range s.groups {
		if m := g.members[id]; m != nil {
			return g, m
		}
	}
	return nil, nil
}

// Groups returns all groups, sorted by name.
func (s *Service) Groups() []Group {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Group
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		out = append(out, s.groups[name].show())
	}
	return out
}

// Group returns the group of that name.
func (s *Service) Group(name string) (Group, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.groups[name]
	if !ok {
		return Group{}, false
	}
	return g.show(), true
}

// show is a copy that its owner can keep.
func (g *group) show() Group {
	out := g.Group
	out.Subnets, out.Tags = slices.Clone(g.Subnets), slices.Clone(g.Tags)
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		m := g.members[id]
		i := m.Instance
		i.State = m.shown()
		if m.warm {
			out.Warm = append(out.Warm, i)
		} else {
			out.Instances = append(out.Instances, i)
		}
	}
	if g.pool != nil {
		w := *g.pool
		out.Pool = &w
	}
	for _, name := range slices.Sorted(maps.Keys(g.hooks)) {
		out.Hooks = append(out.Hooks, g.hooks[name])
	}
	return out
}
