// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package asgapi

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/query"
)

// page cuts what a Describe call returns, in order, and says where the next call goes on.
func page[T any](c *call, all []T, standard, largest int) (part []T, next string, err error) {
	size, token := c.in.Number("MaxRecords"), c.in.Text("NextToken")
	if err = c.in.Done(); err != nil {
		return nil, "", err
	}
	n, start := standard, 0
	if size != nil {
		n = *size
	}
	if n < 1 || n > largest {
		c.in.Wrong("Value (%d) for parameter MaxRecords is invalid. It must be 1 to %d", n, largest)
	}
	if token != "" {
		if start, err = strconv.Atoi(token); err != nil || start < 0 || start > len(all) {
			return nil, "", &autoscaling.Error{Code: "InvalidNextToken", Message: "The token '" + token + "' is invalid"}
		}
	}
	if c.in.Err() != nil {
		return nil, "", c.in.Err()
	}
	end := min(start+n, len(all))
	if end < len(all) {
		next = strconv.Itoa(end)
	}
	return all[start:end], next, nil
}

type templateXML struct {
	ID      string `xml:"LaunchTemplateId,omitempty"`
	Name    string `xml:"LaunchTemplateName,omitempty"`
	Version string `xml:"Version,omitempty"`
}

func templateOf(t autoscaling.TemplateRef) templateXML { return templateXML(t) }

type instanceXML struct {
	ID        string      `xml:"InstanceId"`
	Group     string      `xml:"AutoScalingGroupName,omitempty"` // of DescribeAutoScalingInstances
	Type      string      `xml:"InstanceType"`
	AZ        string      `xml:"AvailabilityZone"`
	State     string      `xml:"LifecycleState"`
	Health    string      `xml:"HealthStatus"`
	Template  templateXML `xml:"LaunchTemplate"`
	Protected bool        `xml:"ProtectedFromScaleIn"`
}

func instanceOf(i autoscaling.Instance) instanceXML {
	out := instanceXML{
		ID: i.ID, Type: i.Type, AZ: i.AZ, State: string(i.State), Health: "Unhealthy", Template: templateOf(i.Template),
		Protected: i.ProtectedFromScaleIn,
	}
	if i.Healthy {
		out.Health = "Healthy"
	}
	return out
}

type tagXML struct {
	ResourceID   string `xml:"ResourceId"`
	ResourceType string
	Key, Value   string
	Propagate    bool `xml:"PropagateAtLaunch"`
}

type groupXML struct {
	Name              string      `xml:"AutoScalingGroupName"`
	ARN               string      `xml:"AutoScalingGroupARN"`
	Template          templateXML `xml:"LaunchTemplate"`
	MinSize           int
	MaxSize           int
	DesiredCapacity   int
	DefaultCooldown   int
	Zones             query.List[string] `xml:"AvailabilityZones"`
	HealthCheckType   string
	HealthCheckGrace  int `xml:"HealthCheckGracePeriod"`
	Instances         query.List[instanceXML]
	CreatedTime       string
	VPCZoneIdentifier string
	Status            string `xml:",omitempty"`
	Tags              query.List[tagXML]
	Policies          query.List[string] `xml:"TerminationPolicies"`
	Protected         bool               `xml:"NewInstancesProtectedFromScaleIn"`
}

type describeGroupsResult struct {
	Groups    query.List[groupXML] `xml:"AutoScalingGroups"`
	NextToken string               `xml:",omitempty"`
}

func describeGroups(c *call) (any, error) {
	names := c.in.Texts("AutoScalingGroupNames")
	c.in.Flag("IncludeInstances")
	all := slices.DeleteFunc(c.service.Groups(), func(g autoscaling.Group) bool { return !chosen(names, g.Name) })
	part, next, err := page(c, all, 50, 100)
	if err != nil {
		return nil, err
	}
	return describeGroupsResult{Groups: query.ListOf(part, c.group), NextToken: next}, nil
}

func (c *call) group(g autoscaling.Group) groupXML {
	out := groupXML{
		Name: g.Name, ARN: g.ARN, Template: templateOf(g.Template), MinSize: g.MinSize, MaxSize: g.MaxSize,
		DesiredCapacity: g.DesiredCapacity, DefaultCooldown: 300, HealthCheckType: "EC2",
		Instances: query.ListOf(g.Instances, instanceOf), CreatedTime: stamp(g.CreatedAt),
		VPCZoneIdentifier: strings.Join(g.Subnets, ","), Status: g.Status,
		Policies: query.List[string]{Items: []string{"Default"}}, Protected: g.NewInstancesProtectedFromScaleIn,
		Tags: query.ListOf(g.Tags, func(t autoscaling.Tag) tagXML {
			return tagXML{ResourceID: g.Name, ResourceType: "auto-scaling-group", Key: t.Key, Value: t.Value, Propagate: t.PropagateAtLaunch}
		}),
	}
	view := c.cloud.View(c.now)
	for _, id := range g.Subnets {
		if s, ok := view.Subnet(id); ok && !slices.Contains(out.Zones.Items, s.AZ) {
			out.Zones.Items = append(out.Zones.Items, s.AZ)
		}
	}
	slices.Sort(out.Zones.Items)
	return out
}

type describeInstancesResult struct {
	Instances query.List[instanceXML] `xml:"AutoScalingInstances"`
	NextToken string                  `xml:",omitempty"`
}

func describeInstances(c *call) (any, error) {
	ids := c.in.Texts("InstanceIds")
	var all []instanceXML
	for _, g := range c.service.Groups() {
		for _, i := range slices.Concat(g.Instances, g.Warm) {
			if chosen(ids, i.ID) {
				x := instanceOf(i)
				x.Group, x.Health = g.Name, strings.ToUpper(x.Health) // this action shouts
				all = append(all, x)
			}
		}
	}
	part, next, err := page(c, all, 50, 50)
	if err != nil {
		return nil, err
	}
	return describeInstancesResult{Instances: query.List[instanceXML]{Items: part}, NextToken: next}, nil
}

type hookXML struct {
	Name       string `xml:"LifecycleHookName"`
	Group      string `xml:"AutoScalingGroupName"`
	Transition string `xml:"LifecycleTransition"`
	Metadata   string `xml:"NotificationMetadata,omitempty"`
	Heartbeat  int    `xml:"HeartbeatTimeout"`
	Global     int    `xml:"GlobalTimeout"`
	Result     string `xml:"DefaultResult"`
}

type describeHooksResult struct {
	Hooks query.List[hookXML] `xml:"LifecycleHooks"`
}

func describeHooks(c *call) (any, error) {
	name, names := c.in.Required("AutoScalingGroupName"), c.in.Texts("LifecycleHookNames")
	if err := c.in.Done(); err != nil {
		return nil, err
	}
	g, ok := c.service.Group(name)
	if !ok {
		return nil, groupNotFound(name)
	}
	hooks := slices.DeleteFunc(g.Hooks, func(h autoscaling.Hook) bool { return !chosen(names, h.Name) })
	return describeHooksResult{Hooks: query.ListOf(hooks, func(h autoscaling.Hook) hookXML {
		return hookXML{
			Name: h.Name, Group: name, Transition: string(h.Transition), Metadata: h.NotificationMetadata,
			Heartbeat: int(h.HeartbeatTimeout.Seconds()), Global: int(h.GlobalTimeout().Seconds()), Result: string(h.DefaultResult),
		}
	})}, nil
}

type activityXML struct {
	ID          string `xml:"ActivityId"`
	Group       string `xml:"AutoScalingGroupName"`
	Description string
	Cause       string
	StartTime   string
	EndTime     string `xml:",omitempty"`
	Status      string `xml:"StatusCode"`
	Progress    int
}

type terminateResult struct{ Activity activityXML }

type describeActivitiesResult struct {
	Activities query.List[activityXML]
	NextToken  string `xml:",omitempty"`
}

func describeActivities(c *call) (any, error) {
	name := c.in.Required("AutoScalingGroupName")
	all := c.service.Activities(name)
	part, next, err := page(c, all, 100, 100)
	if err != nil {
		return nil, err
	}
	if _, ok := c.service.Group(name); !ok {
		return nil, groupNotFound(name)
	}
	return describeActivitiesResult{NextToken: next, Activities: query.ListOf(part, func(a autoscaling.Activity) activityXML {
		return activityXML{
			ID: a.ID, Group: name, Description: a.Description,
			Cause: a.Cause, StartTime: stamp(a.At), EndTime: stamp(a.At), Status: a.Status, Progress: 100,
		}
	})}, nil
}

func groupNotFound(name string) error {
	return &autoscaling.Error{Code: "ValidationError", Message: "AutoScalingGroup name not found - AutoScalingGroup '" + name + "' not found"}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
