// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Scaling returns the providers of what launches workers: launch templates and Auto Scaling groups. Deleting a group
// scales it in and waits until the last instance has passed its hooks, as CloudFormation does.
func Scaling(cloud *vpc.Cloud, service *autoscaling.Service) map[string]Provider {
	return map[string]Provider{
		"AWS::EC2::LaunchTemplate":           templateProvider{cloud},
		"AWS::AutoScaling::AutoScalingGroup": scalingProvider{service},
	}
}

// madeUp is the name of a resource whose template gives it none. CloudFormation adds random letters.
func madeUp(r Request) string { return r.Stack + "-" + r.LogicalID }

type templateProvider struct{ cloud *vpc.Cloud }

func (p templateProvider) Create(_ context.Context, r Request) (Physical, error) {
	in := r.Properties.Object("LaunchTemplateData")
	in.Ignore("BlockDeviceMappings")
	metadata := in.Object("MetadataOptions")
	data := vpc.LaunchTemplateData{
		ImageID: in.String("ImageId"), InstanceType: in.String("InstanceType"), KeyName: in.String("KeyName"),
		UserData: in.String("UserData"), InstanceProfile: in.Object("IamInstanceProfile").String("Arn"),
		Groups: in.Strings("SecurityGroupIds"),
		Metadata: vpc.MetadataOptions{
			HTTPTokens: metadata.String("HttpTokens"), HTTPEndpoint: metadata.String("HttpEndpoint"),
			HopLimit: metadata.Int("HttpPutResponseHopLimit", 0),
		},
	}
	for _, spec := range in.Objects("TagSpecifications") {
		tags := spec.Tags("Tags")
		switch kind := spec.Required("ResourceType"); kind {
		case "instance":
			data.Tags = tags
		case "network-interface":
			data.InterfaceTags = tags
		case "volume":
			data.VolumeTags = tags
		default:
			spec.addf("ResourceType", "the lab does not know %s", kind)
		}
	}
	name := r.Properties.String("LaunchTemplateName")
	if name == "" {
		name = madeUp(r)
	}
	if err := r.Properties.Err(); err != nil {
		return Physical{}, err
	}
	t, err := p.cloud.CreateLaunchTemplate(time.Now(), vpc.CreateLaunchTemplateInput{Name: name, Data: data})
	return Physical{Ref: t.ID, Attributes: map[string]string{
		"LaunchTemplateId": t.ID, "LatestVersionNumber": strconv.Itoa(t.Latest()), "DefaultVersionNumber": strconv.Itoa(t.Default),
	}}, err
}

func (p templateProvider) Delete(_ context.Context, _ Request, t Physical) error {
	_, err := p.cloud.DeleteLaunchTemplate(time.Now(), t.Ref)
	return gone(err)
}

type scalingProvider struct{ service *autoscaling.Service }

func (p scalingProvider) Create(_ context.Context, r Request) (Physical, error) {
	in := r.Properties
	name := in.String("AutoScalingGroupName")
	if name == "" {
		name = madeUp(r)
	}
	template := in.Object("LaunchTemplate")
	settings := autoscaling.GroupSettings{
		MinSize: in.Int("MinSize", 0), MaxSize: in.Int("MaxSize", 0), Subnets: in.Strings("VPCZoneIdentifier"),
		Template: autoscaling.TemplateRef{
			ID: template.String("LaunchTemplateId"), Name: template.String("LaunchTemplateName"), Version: template.Required("Version"),
		},
	}
	settings.DesiredCapacity = in.Int("DesiredCapacity", settings.MinSize)
	for _, t := range in.Objects("Tags") {
		settings.Tags = append(settings.Tags, autoscaling.Tag{
			Key: t.Required("Key"), Value: t.String("Value"), PropagateAtLaunch: t.Bool("PropagateAtLaunch", false),
		})
	}
	var hooks []autoscaling.Hook
	for _, h := range in.Objects("LifecycleHookSpecificationList") {
		hooks = append(hooks, autoscaling.Hook{
			Name: h.Required("LifecycleHookName"), Transition: autoscaling.Transition(h.Required("LifecycleTransition")),
			DefaultResult: autoscaling.Result(h.String("DefaultResult")), NotificationMetadata: h.String("NotificationMetadata"),
			HeartbeatTimeout: time.Duration(h.Int("HeartbeatTimeout", 0)) * time.Second,
		})
	}
	if err := in.Err(); err != nil {
		return Physical{}, err
	}
	if err := p.service.CreateGroup(time.Now(), name, settings, hooks); err != nil {
		return Physical{}, err
	}
	g, _ := p.service.Group(name)
	return Physical{Ref: name, Attributes: map[string]string{"AutoScalingGroupARN": g.ARN}}, nil
}

func (p scalingProvider) Delete(ctx context.Context, _ Request, g Physical) error {
	if _, ok := p.service.Group(g.Ref); !ok {
		return nil
	}
	err := p.service.UpdateGroup(time.Now(), g.Ref, func(s *autoscaling.GroupSettings) {
		s.MinSize, s.MaxSize, s.DesiredCapacity = 0, 0, 0
	})
	for err == nil {
		changed := p.service.Changed()
		now, ok := p.service.Group(g.Ref)
		if !ok {
			return nil
		}
		if len(now.Instances) == 0 {
			return p.service.DeleteGroup(time.Now(), g.Ref, false)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of %s: %w", states(now), context.Cause(ctx))
		}
	}
	return err
}

// states lists a group's instances for an error.
func states(g autoscaling.Group) string {
	var out []string
	for _, i := range g.Instances {
		out = append(out, fmt.Sprintf("%s (%s)", i.ID, i.State))
	}
	return strings.Join(out, ", ")
}
