// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Create makes an ENI with its tags, so that there is no moment at which the Amazon VPC CNI could take it for its own.
//
// The error is [eni.ErrAddressInUse] when one of the addresses is taken, without a name, [eni.ErrSubnetFull], or [eni.ErrTokenUsed].
// After [eni.ErrOutcomeUnknown] the same call with the same token gives the ENI that was made, if one was. For some seconds EC2
// may not know the new ENI ([eni.ErrNotFound]).
func (c *Client) Create(ctx context.Context, n eni.NewDevice) (eni.Device, error) {
	if n.Token == "" {
		return eni.Device{}, fmt.Errorf("create ENI in %s: %w", n.Subnet, errors.New("no client token: a lost reply would leave an orphan"))
	}
	in := &ec2.CreateNetworkInterfaceInput{
		SubnetId: aws.String(string(n.Subnet)), ClientToken: aws.String(n.Token), Groups: strs(n.Groups),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInterface, Tags: tagList(n.Tags)}},
	}
	if n.Description != "" {
		in.Description = aws.String(n.Description)
	}
	if n.Primary.IsValid() {
		in.PrivateIpAddresses = append(in.PrivateIpAddresses, privateAddress(n.Primary, true))
	}
	for _, a := range n.Secondary {
		in.PrivateIpAddresses = append(in.PrivateIpAddresses, privateAddress(a, false))
	}
	if n.IPv6Count > 0 {
		in.Ipv6AddressCount = count(n.IPv6Count)
	}
	out, err := c.ec2.CreateNetworkInterface(ctx, in)
	if err != nil {
		return eni.Device{}, fmt.Errorf("create ENI in %s: %w", n.Subnet, err)
	}
	if out.NetworkInterface == nil {
		return eni.Device{}, fmt.Errorf("create ENI in %s: %w: the answer is empty", n.Subnet, eni.ErrOutcomeUnknown)
	}
	return deviceOf(*out.NetworkInterface)
}

func privateAddress(a netip.Addr, primary bool) types.PrivateIpAddressSpecification {
	return types.PrivateIpAddressSpecification{PrivateIpAddress: aws.String(a.String()), Primary: aws.Bool(primary)}
}

// tagList is in the order of the keys: a request that is repeated with its token must be the same.
func tagList(tags map[string]string) []types.Tag {
	var list []types.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return list
}

// Attach attaches the ENI to the instance. The card index is always named: without it EC2 refuses an index that another card uses
// (https://github.com/cilium/cilium/pull/42512).
//
// The error is [eni.ErrIndexTaken] or [eni.ErrInstanceFull], [eni.ErrInUse] when the ENI is attached already, be it there, and
// [eni.ErrNotReady] or [eni.ErrNotFound] while EC2 or the instance is not ready for it.
func (c *Client) Attach(ctx context.Context, id eni.ID, to eni.InstanceID, card, index int) (eni.AttachmentID, error) {
	out, err := c.ec2.AttachNetworkInterface(ctx, &ec2.AttachNetworkInterfaceInput{
		NetworkInterfaceId: aws.String(string(id)), InstanceId: aws.String(string(to)),
		NetworkCardIndex: count(card), DeviceIndex: count(index),
	})
	if err != nil {
		return "", fmt.Errorf("attach %s to %s at card %d index %d: %w", id, to, card, index, err)
	}
	return eni.AttachmentID(aws.ToString(out.AttachmentId)), nil
}

// Detach starts to take an ENI from its instance. An attachment that is not there any more is an [eni.ErrNotFound].
func (c *Client) Detach(ctx context.Context, a eni.AttachmentID) error {
	if _, err := c.ec2.DetachNetworkInterface(ctx, &ec2.DetachNetworkInterfaceInput{AttachmentId: aws.String(string(a))}); err != nil {
		return fmt.Errorf("detach %s: %w", a, err)
	}
	return nil
}

// Delete deletes the ENI. One that is attached, or still being detached, is an [eni.ErrInUse]; one that is gone an [eni.ErrNotFound].
func (c *Client) Delete(ctx context.Context, id eni.ID) error {
	if _, err := c.ec2.DeleteNetworkInterface(ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(string(id))}); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}

// SetDeleteOnTermination says whether the ENI goes with its instance. An ENI that is attached by itself does not, until it is told to.
func (c *Client) SetDeleteOnTermination(ctx context.Context, id eni.ID, a eni.AttachmentID, on bool) error {
	_, err := c.ec2.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: aws.String(string(id)),
		Attachment:         &types.NetworkInterfaceAttachmentChanges{AttachmentId: aws.String(string(a)), DeleteOnTermination: aws.Bool(on)},
	})
	if err != nil {
		return fmt.Errorf("set delete-on-termination of %s to %t: %w", id, on, err)
	}
	return nil
}

// SetSourceDestCheck says whether EC2 drops what the ENI neither holds as source nor as destination; a new ENI is checked.
func (c *Client) SetSourceDestCheck(ctx context.Context, id eni.ID, on bool) error {
	_, err := c.ec2.ModifyNetworkInterfaceAttribute(ctx, &ec2.ModifyNetworkInterfaceAttributeInput{
		NetworkInterfaceId: aws.String(string(id)), SourceDestCheck: &types.AttributeBooleanValue{Value: aws.Bool(on)},
	})
	if err != nil {
		return fmt.Errorf("set source/destination check of %s to %t: %w", id, on, err)
	}
	return nil
}
