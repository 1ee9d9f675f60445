// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package asgapi

import (
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/query"
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
	smallest, largest, desired := c.in.Number("MinSize"), c.in.Number("MaxSize"), c.in.Number("DesiredCapacity")
	protected := c.in.Flag("NewInstancesProtectedFromScaleIn")
	zones, hasSubnets := c.in.Lookup("VPCZoneIdentifier")
	template := autoscaling.TemplateRef{
		ID: c.in.Text("LaunchTemplate.LaunchTemplateId"), Name: c.in.Text("LaunchTemplate.LaunchTemplateName"),
		Version: c.in.Text("LaunchTemplate.Version"),
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
	name := c.in.Required("AutoScalingGroupName")
	c.in.Required("MinSize")
	c.in.Required("MaxSize")
	desired := c.in.Number("DesiredCapacity")
	var in autoscaling.GroupSettings
	c.settings()(&in)
	if desired == nil {
		in.DesiredCapacity = in.MinSize // https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html
	}
	for _, at := range c.in.Members("Tags") {
		c.in.Text(at + ".ResourceId")
		c.in.Text(at + ".ResourceType")
		propagate := c.in.Flag(at + ".PropagateAtLaunch")
		in.Tags = append(in.Tags, autoscaling.Tag{
			Key: c.in.Required(at + ".Key"), Value: c.in.Text(at + ".Value"), PropagateAtLaunch: propagate != nil && *propagate,
		})
	}
	var hooks []autoscaling.Hook
	for _, at := range c.in.Members("LifecycleHookSpecificationList") {
		hooks = append(hooks, c.hook(at+"."))
	}
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.CreateGroup(c.now, name, in, hooks)
}

// hook reads a lifecycle hook whose parameters begin with prefix.
func (c *call) hook(prefix string) autoscaling.Hook {
	h := autoscaling.Hook{
		Name:                 c.in.Required(prefix + "LifecycleHookName"),
		Transition:           autoscaling.Transition(c.in.Text(prefix + "LifecycleTransition")),
		DefaultResult:        autoscaling.Result(c.in.Text(prefix + "DefaultResult")),
		NotificationMetadata: c.in.Text(prefix + "NotificationMetadata"),
	}
	if n := c.in.Number(prefix + "HeartbeatTimeout"); n != nil {
		h.HeartbeatTimeout = time.Duration(*n) * time.Second
	}
	return h
}

func updateGroup(c *call) (any, error) {
	name, edit := c.in.Required("AutoScalingGroupName"), c.settings()
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.UpdateGroup(c.now, name, edit)
}

func deleteGroup(c *call) (any, error) {
	name, force := c.in.Required("AutoScalingGroupName"), c.in.Flag("ForceDelete")
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.DeleteGroup(c.now, name, force != nil && *force)
}

func setDesiredCapacity(c *call) (any, error) {
	name := c.in.Required("AutoScalingGroupName")
	c.in.Required("DesiredCapacity")
	n := c.in.Number("DesiredCapacity")
	c.in.Flag("HonorCooldown") // the lab has no cooldowns
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.SetDesiredCapacity(c.now, name, *n)
}

func terminateInstance(c *call) (any, error) {
	id := c.in.Required("InstanceId")
	c.in.Required("ShouldDecrementDesiredCapacity")
	decrement := c.in.Flag("ShouldDecrementDesiredCapacity")
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	if err := c.service.TerminateInstance(c.now, id, *decrement); err != nil {
		return nil, err
	}
	return terminateResult{Activity: activityXML{
		ID: query.RequestID(), Status: "InProgress", Description: "Terminating EC2 instance: " + id, StartTime: stamp(c.now),
		Cause: "At " + stamp(c.now) + " instance " + id + " was taken out of service in response to a user request.",
	}}, nil
}

func putHook(c *call) (any, error) {
	group, h := c.in.Required("AutoScalingGroupName"), c.hook("")
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.PutHook(c.now, group, h)
}

func deleteHook(c *call) (any, error) {
	group, hook := c.in.Required("AutoScalingGroupName"), c.in.Required("LifecycleHookName")
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.DeleteHook(c.now, group, hook)
}

func (c *call) actionRef() autoscaling.ActionRef {
	return autoscaling.ActionRef{
		Group: c.in.Required("AutoScalingGroupName"), Hook: c.in.Required("LifecycleHookName"),
		Token: c.in.Text("LifecycleActionToken"), InstanceID: c.in.Text("InstanceId"),
	}
}

func completeLifecycleAction(c *call) (any, error) {
	ref, result := c.actionRef(), c.in.Required("LifecycleActionResult")
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.CompleteAction(c.now, ref, autoscaling.Result(result))
}

func recordHeartbeat(c *call) (any, error) {
	ref := c.actionRef()
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	return nil, c.service.Heartbeat(c.now, ref)
}

// chosen reports whether a list of names, of which an empty one means all, has name.
func chosen(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }
