// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	smithy "github.com/aws/smithy-go"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

func TestSecurityGroups(t *testing.T) {
	l := newLab(t, vpc.Config{})
	ctx := t.Context()
	refused := func(code string, err error) {
		t.Helper()
		if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != code {
			t.Errorf("got %v, want %s", err, code)
		}
	}
	in := &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("pods"), Description: aws.String("of pods"), VpcId: &l.multus.VPCID,
		TagSpecifications: []types.TagSpecification{{ResourceType: "security-group", Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}},
	}
	made := must(l.client.CreateSecurityGroup(ctx, in))(t)
	_, err := l.client.CreateSecurityGroup(ctx, in)
	refused("InvalidGroup.Duplicate", err)
	found := must(l.client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{
		Filters: []types.Filter{{Name: aws.String("vpc-id"), Values: []string{l.multus.VPCID}}, {Name: aws.String("tag:a"), Values: []string{"b"}}},
	}))(t)
	if len(found.SecurityGroups) != 1 || *found.SecurityGroups[0].GroupId != *made.GroupId || *found.SecurityGroups[0].GroupName != "pods" {
		t.Errorf("found %+v", found.SecurityGroups)
	}
	_, err = l.client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{"sg-0123"}})
	refused("InvalidGroup.NotFound", err)

	other := must(l.AddVPC(time.Time{}, vpc.VPCSetup{IPv4: netip.MustParsePrefix("10.99.0.0/16")}))(t)
	foreign := must(l.AddSecurityGroup(time.Time{}, vpc.SecurityGroupSetup{VPCID: other.ID}))(t)
	for code, id := range map[string]string{"InvalidParameter": foreign.ID, "InvalidGroup.NotFound": "sg-0123"} {
		_, err = l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &l.multus.ID, Groups: []string{id}})
		refused(code, err)
	}
	e := must(l.client.CreateNetworkInterface(ctx, &ec2.CreateNetworkInterfaceInput{SubnetId: &l.multus.ID, Groups: []string{*made.GroupId}}))(t)
	_, err = l.client.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: e.NetworkInterface.NetworkInterfaceId, Groups: []string{foreign.ID},
	})
	refused("InvalidParameter", err)
	_, err = l.client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: made.GroupId})
	refused("DependencyViolation", err)
	_, err = l.client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: e.NetworkInterface.VpcId})
	refused("InvalidGroup.NotFound", err)
	must(l.client.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: e.NetworkInterface.NetworkInterfaceId}))(t)
	must(l.client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: made.GroupId}))(t)
}

// TestATokenIsUsedUp: what a client token made was deleted, so it makes nothing any more.
func TestATokenIsUsedUp(t *testing.T) {
	l := newLab(t, vpc.Config{})
	in := &ec2.CreateNetworkInterfaceInput{SubnetId: &l.multus.ID, ClientToken: aws.String("token-1")}
	made := must(l.client.CreateNetworkInterface(t.Context(), in))(t)
	must(l.client.DeleteNetworkInterface(t.Context(), &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: made.NetworkInterface.NetworkInterfaceId}))(t)
	_, err := l.client.CreateNetworkInterface(t.Context(), in)
	if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "IdempotentParameterMismatch" {
		t.Errorf("got %v", err)
	}
}
