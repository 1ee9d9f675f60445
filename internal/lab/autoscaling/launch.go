// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// launch starts one instance in the zone that has fewest, for the group or its warm pool, and reports whether EC2 did.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-availability-zone-balanced.html
func (s *Service) launch(g *group, now time.Time, warm bool) bool {
	view := s.view(now)
	t, version, data, err := template(view, g.Template)
	if err == nil && data.InstanceType == "" {
		err = invalid("The launch template has no instance type")
	}
	if err != nil {
		return s.failed(g, now, err)
	}
	var made vpc.Launch
	for _, subnet := range g.balanced(view) {
		if made, err = s.cloud.RunInstances(now, request(g, t, version, data, subnet)); err == nil {
			break
		}
	}
	if err != nil {
		return s.failed(g, now, err)
	}
	i := made.Instances[0]
	m := &member{launched: now, warm: warm, actions: map[string]*action{}, Instance: Instance{
		ID: i.ID, Type: i.Type, AZ: i.AZ, State: Pending, Healthy: true, ProtectedFromScaleIn: g.NewInstancesProtectedFromScaleIn,
		Template: TemplateRef{ID: t.ID, Name: t.Name, Version: strconv.Itoa(version)},
	}}
	g.members[i.ID] = m
	g.touched = true
	s.step(now, g, m)
	return true
}

// failed notes a launch that EC2 refused, and puts the next one off.
func (s *Service) failed(g *group, now time.Time, err error) bool {
	g.backOff(now)
	g.touched = true
	s.note(g, now, "Failed", "Launching a new EC2 instance", err.Error())
	s.emit(now, g, "EC2 Instance Launch Unsuccessful", map[string]any{
		"AutoScalingGroupName": g.Name, "StatusCode": "Failed", "StatusMessage": err.Error(), "Origin": "EC2", "Destination": "AutoScalingGroup",
	})
	return false
}

// balanced lists the group's subnets in the order in which they are tried: zones with fewest instances first.
func (g *group) balanced(view vpc.View) []string {
	count := g.perZone()
	zone := map[string]string{}
	for _, id := range g.Subnets {
		if n, ok := view.Subnet(id); ok {
			zone[id] = n.AZ
		}
	}
	out := slices.Clone(g.Subnets)
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(count[zone[a]], count[zone[b]]) })
	return out
}

// request is what Auto Scaling asks of EC2. The group's subnet is that of each interface that names none.
func request(g *group, t vpc.LaunchTemplate, version int, data vpc.LaunchTemplateData, subnet string) vpc.RunInstancesInput {
	in := vpc.RunInstancesInput{
		ImageID: data.ImageID, InstanceType: data.InstanceType, MinCount: 1, MaxCount: 1,
		Tags: map[string]string{}, InterfaceTags: data.InterfaceTags, Metadata: data.Metadata,
	}
	maps.Copy(in.Tags, data.Tags)
	for _, tag := range g.Tags {
		if tag.PropagateAtLaunch {
			in.Tags[tag.Key] = tag.Value
		}
	}
	// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-tagging.html
	in.Tags["aws:autoscaling:groupName"] = g.Name
	in.Tags["aws:ec2launchtemplate:id"] = t.ID
	in.Tags["aws:ec2launchtemplate:version"] = strconv.Itoa(version)
	if len(data.Interfaces) == 0 {
		in.SubnetID, in.Groups = subnet, data.Groups
		return in
	}
	in.Interfaces = slices.Clone(data.Interfaces)
	for i := range in.Interfaces {
		if in.Interfaces[i].NetworkInterfaceID == "" {
			in.Interfaces[i].SubnetID = cmp.Or(in.Interfaces[i].SubnetID, subnet)
		}
	}
	return in
}

// Activity is a line of a group's history.
type Activity struct {
	ID                         string
	At                         time.Time
	Status, Description, Cause string
}

// maxActivities is how many of a group's activities are kept.
const maxActivities = 200

func (s *Service) note(g *group, now time.Time, status, description, cause string) {
	g.log = append(g.log, Activity{ID: s.uuid(), At: now, Status: status, Description: description, Cause: cause})
	if len(g.log) > maxActivities {
		g.log = slices.Clone(g.log[len(g.log)-maxActivities:])
	}
}

// Activities returns a group's history, the newest first.
func (s *Service) Activities(groupName string) []Activity {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[groupName]
	if g == nil {
		return nil
	}
	out := slices.Clone(g.log)
	slices.Reverse(out)
	return out
}

func (s *Service) instanceARN(id string) string {
	return fmt.Sprintf("arn:aws:ec2:%s:%s:instance/%s", s.cloud.Region(), s.cloud.AccountID(), id)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
