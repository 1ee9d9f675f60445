// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"fmt"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type describeSecurityGroupsRequest struct {
	IDs     []string `ec2:"GroupId"`
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeSecurityGroupsResponse struct {
	reply
	Groups    set[securityGroupXML] `xml:"securityGroupInfo"`
	NextToken string                `xml:"nextToken,omitempty"`
}

type securityGroupXML struct {
	ID          string      `xml:"groupId"`
	ARN         string      `xml:"securityGroupArn"`
	Name        string      `xml:"groupName"`
	Description string      `xml:"groupDescription"`
	OwnerID     string      `xml:"ownerId"`
	VPCID       string      `xml:"vpcId"`
	Tags        set[tagXML] `xml:"tagSet"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html
func describeSecurityGroups(c *call, in describeSecurityGroupsRequest) (*describeSecurityGroupsResponse, error) {
	if err := in.together(in.IDs, "groupIds"); err != nil {
		return nil, err
	}
	id := func(g vpc.SecurityGroup) string { return g.ID }
	list, err := named(c.view().SecurityGroups(), in.IDs, id, func(lost []string) error {
		return vpc.Errorf("InvalidGroup.NotFound", "The security group '%s' does not exist", strings.Join(lost, ", "))
	})
	if err != nil {
		return nil, err
	}
	list, err = filters[vpc.SecurityGroup]{
		tags: func(g vpc.SecurityGroup) map[string]string { return g.Tags },
		fields: map[string]func(vpc.SecurityGroup) []string{
			"description": func(g vpc.SecurityGroup) []string { return one(g.Description) },
			"group-id":    func(g vpc.SecurityGroup) []string { return one(g.ID) },
			"group-name":  func(g vpc.SecurityGroup) []string { return one(g.Name) },
			"owner-id":    func(g vpc.SecurityGroup) []string { return one(g.OwnerID) },
			"vpc-id":      func(g vpc.SecurityGroup) []string { return one(g.VPCID) },
		},
	}.choose(list, in.Filters)
	if err != nil {
		return nil, err
	}
	list, next, err := cut(in.paging, pageSize{5, 1000, 1000}, list, id)
	if err != nil {
		return nil, err
	}
	return &describeSecurityGroupsResponse{NextToken: next, Groups: setOf(list, func(g vpc.SecurityGroup) securityGroupXML {
		return securityGroupXML{
			ID: g.ID, Name: g.Name, Description: g.Description, OwnerID: g.OwnerID, VPCID: g.VPCID, Tags: tagSet(g.Tags),
			ARN: c.groupARN(g),
		}
	})}, nil
}

type createSecurityGroupRequest struct {
	Name        string             `ec2:"GroupName,required"`
	Description string             `ec2:"GroupDescription,required"`
	VPCID       string             `ec2:"VpcId,required"` // the lab has no default VPC
	Tags        []tagSpecification `ec2:"TagSpecification"`
	DryRun      bool               `ec2:"DryRun"`
}

type createSecurityGroupResponse struct {
	reply
	Return bool        `xml:"return"`
	ID     string      `xml:"groupId"`
	ARN    string      `xml:"securityGroupArn"`
	Tags   set[tagXML] `xml:"tagSet"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html
func createSecurityGroup(c *call, in createSecurityGroupRequest) (*createSecurityGroupResponse, error) {
	tags, err := tagsFor(in.Tags, "security-group")
	if err != nil {
		return nil, err
	}
	g, err := c.cloud.AddSecurityGroup(c.now, vpc.SecurityGroupSetup{
		VPCID: in.VPCID, Name: in.Name, Description: in.Description, Tags: tags["security-group"],
	})
	if err != nil {
		return nil, err
	}
	return &createSecurityGroupResponse{Return: true, ID: g.ID, ARN: c.groupARN(g), Tags: tagSet(g.Tags)}, nil
}

type deleteSecurityGroupRequest struct {
	ID     string `ec2:"GroupId,required"`
	DryRun bool   `ec2:"DryRun"`
}

type deleteSecurityGroupResponse struct {
	reply
	Return bool   `xml:"return"`
	ID     string `xml:"groupId"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSecurityGroup.html
func deleteSecurityGroup(c *call, in deleteSecurityGroupRequest) (*deleteSecurityGroupResponse, error) {
	if err := c.cloud.RemoveSecurityGroup(c.now, in.ID); err != nil {
		return nil, err
	}
	return &deleteSecurityGroupResponse{Return: true, ID: in.ID}, nil
}

func (c *call) groupARN(g vpc.SecurityGroup) string {
	return fmt.Sprintf("arn:aws:ec2:%s:%s:security-group/%s", c.cloud.Region(), g.OwnerID, g.ID)
}
