// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package iam_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	rules "github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/iam"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

const theScenario = `
vpc: {cidr: 10.10.0.0/16}
subnets: [{name: primary, cidr: 10.10.1.0/24, az: us-west-2a}]
instances:
- {name: ours,   type: m5.large, enis: [{subnet: primary}], tags: {group: g}}
- {name: theirs, type: m5.large, enis: [{subnet: primary}]}
`

// account is a lab with a function that may do a little.
type account struct {
	*scenario.Lab
	ec2 *ec2.Client
	asg *autoscaling.Client
}

func newAccount(t *testing.T) account {
	t.Helper()
	s, err := scenario.Parse([]byte(theScenario))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	allow := func(action, resource, operator, key, value string) map[string]any {
		out := map[string]any{"Effect": "Allow", "Action": action, "Resource": resource}
		if operator != "" {
			out["Condition"] = map[string]any{operator: map[string]any{key: value}}
		}
		return out
	}
	arn := "arn:aws:ec2:us-west-2:" + lab.Cloud.AccountID() + ":"
	policy, err := iam.ParsePolicy(map[string]any{"Version": "2012-10-17", "Statement": []any{
		allow("ec2:DescribeSubnets", "*", "", "", ""),
		allow("ec2:CreateNetworkInterface", arn+"subnet/*", "ArnEquals", "ec2:Vpc", arn+"vpc/"+lab.VPC),
		allow("ec2:CreateNetworkInterface", arn+"security-group/*", "ArnEquals", "ec2:Vpc", arn+"vpc/"+lab.VPC),
		allow("ec2:CreateNetworkInterface", arn+"network-interface/*", "StringEquals", "aws:RequestTag/owner", "g"),
		allow("ec2:CreateTags", arn+"network-interface/*", "StringEquals", "ec2:CreateAction", "CreateNetworkInterface"),
		allow("ec2:*NetworkInterface*", arn+"network-interface/*", "StringEquals", "aws:ResourceTag/owner", "g"),
		allow("ec2:*NetworkInterface*", arn+"instance/*", "StringEquals", "aws:ResourceTag/group", "g"),
		allow("autoscaling:CompleteLifecycleAction", "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/g", "", "", ""),
	}})
	if err != nil {
		t.Fatal(err)
	}
	lab.Roles.PutRole(iam.Role{ARN: "arn:aws:iam::1:role/r", Policies: []iam.Policy{policy}, Services: []string{"lambda.amazonaws.com"}})
	if err := lab.Roles.Assume("lambda.amazonaws.com", "f", "arn:aws:iam::1:role/r"); err != nil {
		t.Fatal(err)
	}
	who := credentials.NewStaticCredentialsProvider("f", "secret", "")
	return account{
		Lab: lab,
		ec2: ec2.New(ec2.Options{Region: "us-west-2", Credentials: who, HTTPClient: &http.Client{Transport: lab.EC2()}}),
		asg: autoscaling.New(autoscaling.Options{Region: "us-west-2", Credentials: who, HTTPClient: &http.Client{Transport: lab.AutoScaling()}}),
	}
}

// code is the API's error code, or "".
func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

const denied = "UnauthorizedOperation"

func TestEC2AsksTheRole(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	tags := func(pairs ...string) []types.TagSpecification {
		s := types.TagSpecification{ResourceType: types.ResourceTypeNetworkInterface}
		for i := 0; i < len(pairs); i += 2 {
			s.Tags = append(s.Tags, types.Tag{Key: &pairs[i], Value: &pairs[i+1]})
		}
		return []types.TagSpecification{s}
	}
	if _, err := a.ec2.DescribeSubnets(ctx, nil); err != nil {
		t.Errorf("DescribeSubnets: %v", err)
	}
	_, refused := a.ec2.DescribeVpcs(ctx, nil)
	if code(refused) != denied || !strings.Contains(refused.Error(), "assumed-role/r/f is not authorized to perform: ec2:DescribeVpcs on resource: *") {
		t.Errorf("DescribeVpcs: %v", refused)
	}
	subnet := aws.String(a.Subnets["primary"])
	for name, tc := range map[string]struct {
		in   ec2.CreateNetworkInterfaceInput
		want string
	}{
		"with the tag":          {ec2.CreateNetworkInterfaceInput{SubnetId: subnet, TagSpecifications: tags("owner", "g", "more", "x")}, ""},
		"without tags":          {ec2.CreateNetworkInterfaceInput{SubnetId: subnet}, denied},
		"with another's tag":    {ec2.CreateNetworkInterfaceInput{SubnetId: subnet, TagSpecifications: tags("owner", "h")}, denied},
		"in a subnet of no VPC": {ec2.CreateNetworkInterfaceInput{SubnetId: aws.String("subnet-1"), TagSpecifications: tags("owner", "g")}, "InvalidSubnetID.NotFound"},
	} {
		if _, err := a.ec2.CreateNetworkInterface(ctx, &tc.in); code(err) != tc.want {
			t.Errorf("create %s: %v, want %q", name, err, tc.want)
		}
	}

	enis := map[string]string{}
	for _, owner := range []string{"g", "h"} {
		e, err := a.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: *subnet, Tags: map[string]string{"owner": owner}})
		if err != nil {
			t.Fatal(err)
		}
		enis[owner] = e.ID
	}
	attach := func(owner, instance string) (string, error) {
		out, err := a.ec2.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{
			DeviceIndex: aws.Int32(1), InstanceId: aws.String(a.Instances[instance]), NetworkInterfaceId: aws.String(enis[owner]),
		})
		if err != nil {
			return "", err
		}
		return *out.AttachmentId, nil
	}
	for _, pair := range [][2]string{{"h", "ours"}, {"g", "theirs"}} {
		if _, err := attach(pair[0], pair[1]); code(err) != denied {
			t.Errorf("attach the ENI of %s to %s: %v", pair[0], pair[1], err)
		}
	}
	attachment, err := attach("g", "ours")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = a.ec2.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: aws.String(enis["g"]),
		Attachment:         &types.NetworkInterfaceAttachmentChanges{AttachmentId: &attachment, DeleteOnTermination: aws.Bool(true)},
	}); err != nil {
		t.Errorf("modify ours: %v", err)
	}
	if _, err = a.ec2.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: &attachment}); err != nil {
		t.Errorf("detach ours: %v", err)
	}
	for owner, want := range map[string]string{"g": "", "h": denied} {
		if _, err = a.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(enis[owner])}); code(err) != want {
			t.Errorf("delete the ENI of %s: %v, want %q", owner, err, want)
		}
	}
	// What is gone has no tags that would allow the call.
	if _, err = a.ec2.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: &attachment}); code(err) != denied {
		t.Errorf("detach again: %v", err)
	}
	if _, err = a.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(enis["g"])}); code(err) != denied {
		t.Errorf("delete again: %v", err)
	}
	if _, err = attach("g", "ours"); code(err) != denied {
		t.Errorf("attach what is gone: %v", err)
	}
	a.Roles.DeleteRole("arn:aws:iam::1:role/r")
	if _, err := a.ec2.DescribeSubnets(ctx, nil); code(err) != denied {
		t.Errorf("without its role: %v", err)
	}
}

func TestAutoScalingAsksTheRole(t *testing.T) {
	a, ctx := newAccount(t), t.Context()
	if _, err := a.Cloud.CreateLaunchTemplate(time.Now(), vpc.CreateLaunchTemplateInput{Name: "w", Data: vpc.LaunchTemplateData{InstanceType: "m5.large", ImageID: "ami-1"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"g", "h"} {
		err := a.Scaling.CreateGroup(time.Now(), name, rules.GroupSettings{Template: rules.TemplateRef{Name: "w"}, Subnets: []string{a.Subnets["primary"]}}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"g": "ValidationError", "h": "AccessDenied"} {
		_, err := a.asg.CompleteLifecycleAction(ctx, &autoscaling.CompleteLifecycleActionInput{
			AutoScalingGroupName: &name, LifecycleHookName: aws.String("hook"), InstanceId: aws.String("i-1"), LifecycleActionResult: aws.String("CONTINUE"),
		})
		if code(err) != want {
			t.Errorf("complete an action of %s: %v, want %q", name, err, want)
		}
	}
}
