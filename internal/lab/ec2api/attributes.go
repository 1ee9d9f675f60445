// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"net/http"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type attachNetworkInterfaceRequest struct {
	NetworkInterfaceID string `ec2:"NetworkInterfaceId,required"`
	InstanceID         string `ec2:"InstanceId,required"`
	DeviceIndex        *int   `ec2:"DeviceIndex,required"`
	NetworkCardIndex   *int   `ec2:"NetworkCardIndex"`
	DryRun             bool   `ec2:"DryRun"`
}

type attachNetworkInterfaceResponse struct {
	reply
	AttachmentID     string `xml:"attachmentId"`
	NetworkCardIndex int    `xml:"networkCardIndex"`
}

func attachNetworkInterface(c *call, in attachNetworkInterfaceRequest) (*attachNetworkInterfaceResponse, error) {
	a, err := c.cloud.AttachNetworkInterface(c.now, vpc.AttachNetworkInterfaceInput{
		NetworkInterfaceID: in.NetworkInterfaceID, InstanceID: in.InstanceID,
		DeviceIndex: *in.DeviceIndex, NetworkCardIndex: in.NetworkCardIndex,
	})
	if err != nil {
		return nil, err
	}
	return &attachNetworkInterfaceResponse{AttachmentID: a.ID, NetworkCardIndex: a.NetworkCard}, nil
}

type detachNetworkInterfaceRequest struct {
	AttachmentID string `ec2:"AttachmentId,required"`
	// Force changes nothing: a detachment in the lab always succeeds.
	Force  bool `ec2:"Force"`
	DryRun bool `ec2:"DryRun"`
}

func detachNetworkInterface(c *call, in detachNetworkInterfaceRequest) (*done, error) {
	return ok(), c.cloud.DetachNetworkInterface(c.now, in.AttachmentID)
}

type deleteNetworkInterfaceRequest struct {
	ID     string `ec2:"NetworkInterfaceId,required"`
	DryRun bool   `ec2:"DryRun"`
}

func deleteNetworkInterface(c *call, in deleteNetworkInterfaceRequest) (*done, error) {
	return ok(), c.cloud.DeleteNetworkInterface(c.now, in.ID)
}

type modifyNetworkInterfaceAttributeRequest struct {
	ID          string `ec2:"NetworkInterfaceId,required"`
	Description *struct {
		Value string `ec2:"Value"`
	} `ec2:"Description"`
	SourceDestCheck *struct {
		Value bool `ec2:"Value,required"`
	} `ec2:"SourceDestCheck"`
	Groups     []string `ec2:"SecurityGroupId"`
	Attachment *struct {
		ID                  string `ec2:"AttachmentId,required"`
		DeleteOnTermination *bool  `ec2:"DeleteOnTermination"`
	} `ec2:"Attachment"`
	DryRun bool `ec2:"DryRun"`
}

func modifyNetworkInterfaceAttribute(c *call, in modifyNetworkInterfaceAttributeRequest) (*done, error) {
	out := vpc.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceID: in.ID, Groups: in.Groups}
	if in.Description != nil {
		out.Description = &in.Description.Value
	}
	if in.SourceDestCheck != nil {
		out.SourceDestCheck = &in.SourceDestCheck.Value
	}
	if in.Attachment != nil {
		out.AttachmentID, out.DeleteOnTermination = in.Attachment.ID, in.Attachment.DeleteOnTermination
	}
	return ok(), c.cloud.ModifyNetworkInterfaceAttribute(c.now, out)
}

type describeNetworkInterfaceAttributeRequest struct {
	ID        string `ec2:"NetworkInterfaceId,required"`
	Attribute string `ec2:"Attribute,required"`
	DryRun    bool   `ec2:"DryRun"`
}

type describeNetworkInterfaceAttributeResponse struct {
	reply
	ID              string         `xml:"networkInterfaceId"`
	Description     *valueXML      `xml:"description"`
	SourceDestCheck *valueXML      `xml:"sourceDestCheck"`
	Groups          *set[groupXML] `xml:"groupSet"`
	Attachment      *attachmentXML `xml:"attachment"`
}

type valueXML struct {
	Value any `xml:"value"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaceAttribute.html
func describeNetworkInterfaceAttribute(
	c *call, in describeNetworkInterfaceAttributeRequest,
) (*describeNetworkInterfaceAttributeResponse, error) {
	e, found := c.view().ENI(in.ID)
	if !found {
		return nil, notFound("InvalidNetworkInterfaceID.NotFound", "networkInterface")([]string{in.ID})
	}
	x := c.interfaceOf(e)
	out := &describeNetworkInterfaceAttributeResponse{ID: e.ID}
	switch in.Attribute {
	case "description":
		out.Description = &valueXML{e.Description}
	case "sourceDestCheck":
		out.SourceDestCheck = &valueXML{e.SourceDestCheck}
	case "groupSet":
		out.Groups = &x.Groups
	case "attachment":
		out.Attachment = x.Attachment
	default:
		// unverified: the wording. associatePublicIpAddress is not implemented: the lab has no public addresses.
		return nil, &vpc.APIError{
			Code: "InvalidParameterValue", Status: http.StatusBadRequest,
			Message: "Value (" + in.Attribute + ") for parameter attribute is invalid. Unknown network interface attribute",
		}
	}
	return out, nil
}
