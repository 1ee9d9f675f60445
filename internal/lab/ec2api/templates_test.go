// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api_test

import (
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

func TestLaunchTemplates(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	create := &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: aws.String("workers"), ClientToken: aws.String("one"),
		LaunchTemplateData: &types.RequestLaunchTemplateData{
			ImageId: aws.String("ami-1"), InstanceType: "m5.large", KeyName: aws.String("k"), UserData: aws.String("IyE="),
			IamInstanceProfile: &types.LaunchTemplateIamInstanceProfileSpecificationRequest{Name: aws.String("node")},
			NetworkInterfaces: []types.LaunchTemplateInstanceNetworkInterfaceSpecificationRequest{
				{DeviceIndex: aws.Int32(0), DeleteOnTermination: aws.Bool(false)},
			},
			MetadataOptions: &types.LaunchTemplateInstanceMetadataOptionsRequest{HttpTokens: "required", HttpPutResponseHopLimit: aws.Int32(2)},
			TagSpecifications: []types.LaunchTemplateTagSpecificationRequest{
				{ResourceType: "instance", Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}},
			},
		},
		TagSpecifications: []types.TagSpecification{{ResourceType: "launch-template", Tags: []types.Tag{{Key: aws.String("of"), Value: aws.String("us")}}}},
	}
	made := must(l.client.CreateLaunchTemplate(ctx, create))(t).LaunchTemplate
	if again := must(l.client.CreateLaunchTemplate(ctx, create))(t).LaunchTemplate; *again.LaunchTemplateId != *made.LaunchTemplateId {
		t.Error("a repeated call made another template")
	}
	create.ClientToken = aws.String("another")
	_, err := l.client.CreateLaunchTemplate(ctx, create)
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "InvalidLaunchTemplateName.AlreadyExistsException" {
		t.Errorf("the same name again: %v", err)
	}
	dies := false
	want := vpc.LaunchTemplateData{
		ImageID: "ami-1", InstanceType: "m5.large", KeyName: "k", UserData: "IyE=", InstanceProfile: "node", Tags: map[string]string{"a": "b"},
		Interfaces: []vpc.InterfaceSpec{{DeleteOnTermination: &dies}}, Metadata: vpc.MetadataOptions{HTTPTokens: "required", HopLimit: 2},
	}
	stored, err := l.View(time.Now()).LaunchTemplate("workers")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, stored.Versions[0], cmp.Comparer(func(a, b vpc.AddressRequest) bool { return len(a.Secondary) == len(b.Secondary) })); diff != "" {
		t.Error(diff)
	}
	for _, in := range []*ec2.DescribeLaunchTemplatesInput{
		{LaunchTemplateIds: []string{*made.LaunchTemplateId}},
		{LaunchTemplateNames: []string{"workers"}},
		{Filters: []types.Filter{{Name: aws.String("tag:of"), Values: []string{"us"}}}},
	} {
		out := must(l.client.DescribeLaunchTemplates(ctx, in))(t)
		if len(out.LaunchTemplates) != 1 || *out.LaunchTemplates[0].LatestVersionNumber != 1 {
			t.Errorf("%+v", out.LaunchTemplates)
		}
	}
	must(l.client.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateName: aws.String("workers")}))(t)
	_, err = l.client.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{LaunchTemplateNames: []string{"workers"}})
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "InvalidLaunchTemplateName.NotFoundException" {
		t.Errorf("after its deletion: %v", err)
	}
}
