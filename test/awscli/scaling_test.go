// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package awscli

import "testing"

func groups(t *testing.T, l *lab) {
	l.pair("InvalidParameterValue", "", "create-launch-template --launch-template-name workers --launch-template-data "+
		`{"ImageId":"ami-1","InstanceType":"{m5.huge|m5.large}","MetadataOptions":{"HttpTokens":"required","HttpPutResponseHopLimit":2}}`)
	l.accept("describe-launch-templates --launch-template-names workers").expect(t, map[string]string{
		"LaunchTemplates.0.LatestVersionNumber": "1",
	})
	a := l.scaling()
	a.pair("ValidationError", "", "create-auto-scaling-group --auto-scaling-group-name g --min-size 0 --max-size 2 --desired-capacity {3|1}"+
		" --vpc-zone-identifier "+l.subnet("primary")+" --launch-template LaunchTemplateName=workers"+
		" --tags Key=owner,Value=g,PropagateAtLaunch=true --lifecycle-hook-specification-list"+
		" LifecycleHookName=launch,LifecycleTransition=autoscaling:EC2_INSTANCE_LAUNCHING,HeartbeatTimeout=300")
	id := a.accept("describe-auto-scaling-instances").text(t, "AutoScalingInstances.0.InstanceId")
	action := " --auto-scaling-group-name g --lifecycle-hook-name launch --instance-id " + id
	a.accept("record-lifecycle-action-heartbeat" + action)
	a.pair("ValidationError", "No active Lifecycle Action found with instance ID i-0ffffffffffffffff",
		"complete-lifecycle-action --lifecycle-action-result CONTINUE --auto-scaling-group-name g --lifecycle-hook-name launch --instance-id {i-0ffffffffffffffff|"+id+"}")
	a.accept("describe-auto-scaling-groups --auto-scaling-group-names g").expect(t, map[string]string{
		"AutoScalingGroups.0.Instances.0.LifecycleState": `"InService"`,
		"AutoScalingGroups.0.AvailabilityZones":          `["us-west-2a"]`,
	})
	l.accept("describe-instances --filters Name=tag:aws:autoscaling:groupName,Values=g").expect(t, map[string]string{
		"Reservations.0.Instances.0.InstanceId":                              `"` + id + `"`,
		"Reservations.0.Instances.0.MetadataOptions.HopLimit":                "null",
		"Reservations.0.Instances.0.MetadataOptions.HttpPutResponseHopLimit": "2",
	})
	a.refuse("InvalidAction", "Could not find operation DescribePolicies for version 2011-01-01", "describe-policies")
	a.pair("ResourceInUse", "", "delete-auto-scaling-group --auto-scaling-group-name g {--no-force-delete|--force-delete}")
}
