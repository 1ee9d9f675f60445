// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package asgapi

import (
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
)

// actions is everything that the API does.
func actions() map[string]action {
	return map[string]action{
		"CompleteLifecycleAction":             completeLifecycleAction,
		"CreateAutoScalingGroup":              createGroup,
		"DeleteAutoScalingGroup":              deleteGroup,
		"DeleteLifecycleHook":                 deleteHook,
		"DeleteWarmPool":                      deleteWarmPool,
		"DescribeAutoScalingGroups":           describeGroups,
		"DescribeAutoScalingInstances":        describeInstances,
		"DescribeLifecycleHooks":              describeHooks,
		"DescribeScalingActivities":           describeActivities,
		"DescribeWarmPool":                    describeWarmPool,
		"PutLifecycleHook":                    putHook,
		"PutWarmPool":                         putWarmPool,
		"RecordLifecycleActionHeartbeat":      recordHeartbeat,
		"SetDesiredCapacity":                  setDesiredCapacity,
		"TerminateInstanceInAutoScalingGroup": terminateInstance,
		"UpdateAutoScalingGroup":              updateGroup,
	}
}

// settings reads what CreateAutoScalingGroup and UpdateAutoScalingGroup have in common, as an edit of what was.
func (c *call) settings() func(*autoscaling.GroupSettings) {
	smallest, largest, desired := c.in.number("MinSize"), c.in.number("MaxSize"), c.in.number("DesiredCapacity")
	protected := c.in.flag("NewInstancesProtectedFromScaleIn")
	zones, hasSubnets := c.in.lookup("VPCZoneIdentifier")
	template := autoscaling.TemplateRef{
		ID: c.in.text("LaunchTemplate.LaunchTemplateId"), Name: c.in.text("LaunchTemplate.LaunchTemplateName"),
		Version: c.in.text("LaunchTemplate.Version"),
	}
	return func(g *autoscaling.GroupSettings) {
		for to, from := range map[*int]*int{&g.MinSize: smallest, &g.MaxSize: largest, &g.DesiredCapacity: desired} {
			if from != nil {
				*to = *from
			}
		}
		if protected != nil {
			g.NewInstancesProtectedFromScaleIn = *protected
		}
		if hasSubnets {
			g.Subnets = subnets(zones)
		}
		if template.ID != "" || template.Name != "" {
			g.Template = template
		}
	}
}

// subnets splits a list of subnet IDs with commas.
func subnets(list string) (out []string) {
	for id := range strings.SplitSeq(list, ",") {
		if id = strings.TrimSpace(id); id != "" {
			out = append(out, id)
		}
	}
	return out
}

func createGroup(c *call) (any, error) {
	name := c.in.required("AutoScalingGroupName")
	c.in.required("MinSize")
	c.in.required("MaxSize")
	desired := c.in.number("DesiredCapacity")
	var in autoscaling.GroupSettings
	c.settings()(&in)
	if desired == nil {
		in.DesiredCapacity = in.MinSize // https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html
	}
	for _, at := range c.in.members("Tags") {
		c.in.text(at + ".ResourceId")
		c.in.text(at + ".ResourceType")
		propagate := c.in.flag(at + ".PropagateAtLaunch")
		in.Tags = append(in.Tags, autoscaling.Tag{
			Key: c.in.required(at + ".Key"), Value: c.in.text(at + ".Value"), PropagateAtLaunch: propagate != nil && *propagate,
		})
	}
	var hooks []autoscaling.Hook
	for _, at := range c.in.members("LifecycleHookSpecificationList") {
		hooks = append(hooks, c.hook(at+"."))
	}
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.CreateGroup(c.now, name, in, hooks)
}

// hook reads a lifecycle hook whose parameters begin with prefix.
func (c *call) hook(prefix string) autoscaling.Hook {
	h := autoscaling.Hook{
		Name:                 c.in.required(prefix + "LifecycleHookName"),
		Transition:           autoscaling.Transition(c.in.text(prefix + "LifecycleTransition")),
		DefaultResult:        autoscaling.Result(c.in.text(prefix + "DefaultResult")),
		NotificationMetadata: c.in.text(prefix + "NotificationMetadata"),
	}
	if n := c.in.number(prefix + "HeartbeatTimeout"); n != nil {
		h.HeartbeatTimeout = time.Duration(*n) * time.Second
	}
	return h
}

func updateGroup(c *call) (any, error) {
	name, edit := c.in.required("AutoScalingGroupName"), c.settings()
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.UpdateGroup(c.now, name, edit)
}

func deleteGroup(c *call) (any, error) {
	name, force := c.in.required("AutoScalingGroupName"), c.in.flag("ForceDelete")
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.DeleteGroup(c.now, name, force != nil && *force)
}

func setDesiredCapacity(c *call) (any, error) {
	name := c.in.required("AutoScalingGroupName")
	c.in.required("DesiredCapacity")
	n := c.in.number("DesiredCapacity")
	c.in.flag("HonorCooldown") // the lab has no cooldowns
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.SetDesiredCapacity(c.now, name, *n)
}

func terminateInstance(c *call) (any, error) {
	id := c.in.required("InstanceId")
	c.in.required("ShouldDecrementDesiredCapacity")
	decrement := c.in.flag("ShouldDecrementDesiredCapacity")
	if err := c.in.done(); err != nil {
		return nil, err
	}
	if err := c.service.TerminateInstance(c.now, id, *decrement); err != nil {
		return nil, err
	}
	return terminateResult{Activity: activityXML{
		ID: requestID(), Status: "InProgress", Description: "Terminating EC2 instance: " + id, StartTime: stamp(c.now),
		Cause: "At " + stamp(c.now) + " instance " + id + " was taken out of service in response to a user request.",
	}}, nil
}

func putHook(c *call) (any, error) {
	group, h := c.in.required("AutoScalingGroupName"), c.hook("")
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.PutHook(c.now, group, h)
}

func deleteHook(c *call) (any, error) {
	group, hook := c.in.required("AutoScalingGroupName"), c.in.required("LifecycleHookName")
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.DeleteHook(c.now, group, hook)
}

func (c *call) actionRef() autoscaling.ActionRef {
	return autoscaling.ActionRef{
		Group: c.in.required("AutoScalingGroupName"), Hook: c.in.required("LifecycleHookName"),
		Token: c.in.text("LifecycleActionToken"), InstanceID: c.in.text("InstanceId"),
	}
}

func completeLifecycleAction(c *call) (any, error) {
	ref, result := c.actionRef(), c.in.required("LifecycleActionResult")
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.CompleteAction(c.now, ref, autoscaling.Result(result))
}

func recordHeartbeat(c *call) (any, error) {
	ref := c.actionRef()
	if err := c.in.done(); err != nil {
		return nil, err
	}
	return nil, c.service.Heartbeat(c.now, ref)
}

// chosen reports whether a list of names, of which an empty one means all, has name.
func chosen(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }
