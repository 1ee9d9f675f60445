// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Workers reads the instances of these IDs with their ENIs. Those that EC2 does not know, or not yet, are absent; one that has
// ended stays for about an hour.
func (c *Client) Workers(ctx context.Context, ids []eni.InstanceID) ([]eni.Worker, error) {
	var all []eni.Worker
	for chunk := range slices.Chunk(ids, maxFilterValues) {
		found, err := c.workers(ctx, filter("instance-id", strs(chunk)...))
		if err != nil {
			return nil, fmt.Errorf("read instances %s: %w", some(strs(chunk)), err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// WorkersTagged reads the instances that have the tag and are coming up or running.
func (c *Client) WorkersTagged(ctx context.Context, key, value string) ([]eni.Worker, error) {
	all, err := c.workers(ctx, filter("tag:"+key, value), filter("instance-state-name", "pending", "running"))
	if err != nil {
		return nil, fmt.Errorf("read instances tagged %s=%s: %w", key, value, err)
	}
	return all, nil
}

func (c *Client) workers(ctx context.Context, filters ...types.Filter) ([]eni.Worker, error) {
	var all []eni.Worker
	pages := ec2.NewDescribeInstancesPaginator(c.ec2, &ec2.DescribeInstancesInput{Filters: filters, MaxResults: aws.Int32(pageSize)})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				w, err := workerOf(i)
				if err != nil {
					return nil, err
				}
				all = append(all, w)
			}
		}
	}
	return all, nil
}

// Layout reads how many ENIs and addresses an instance type may have, and on which of its network cards.
func (c *Client) Layout(ctx context.Context, instanceType string) (eni.Layout, error) {
	out, err := c.ec2.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{types.InstanceType(instanceType)}})
	if err != nil {
		return eni.Layout{}, fmt.Errorf("read limits of instance type %s: %w", instanceType, err)
	}
	if len(out.InstanceTypes) != 1 || out.InstanceTypes[0].NetworkInfo == nil {
		return eni.Layout{}, fmt.Errorf("read limits of instance type %s: %w", instanceType, errors.New("no network info in the answer"))
	}
	return layoutOf(out.InstanceTypes[0].NetworkInfo), nil
}

// SubnetsFound is [Client.Subnets], with those that do not exist absent.
func (c *Client) SubnetsFound(ctx context.Context, ids []eni.SubnetID) ([]eni.Subnet, error) {
	var all []eni.Subnet
	for chunk := range slices.Chunk(ids, maxFilterValues) {
		found, err := c.subnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("subnet-id", strs(chunk)...)}})
		if err != nil {
			return nil, fmt.Errorf("read subnets %s: %w", some(strs(chunk)), err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// SubnetsTagged reads the subnets of the VPC that have all of these tags, in EC2's order.
func (c *Client) SubnetsTagged(ctx context.Context, in eni.VPCID, tags map[string]string) ([]eni.Subnet, error) {
	filters := []types.Filter{filter("vpc-id", string(in))}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		filters = append(filters, filter("tag:"+key, tags[key]))
	}
	all, err := c.subnets(ctx, &ec2.DescribeSubnetsInput{Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("read the subnets of %s that are tagged %v: %w", in, tags, err)
	}
	return all, nil
}

func (c *Client) subnets(ctx context.Context, in *ec2.DescribeSubnetsInput) ([]eni.Subnet, error) {
	var all []eni.Subnet
	pages := ec2.NewDescribeSubnetsPaginator(c.ec2, in)
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range out.Subnets {
			subnet, err := subnetOf(s)
			if err != nil {
				return nil, err
			}
			all = append(all, subnet)
		}
	}
	return all, nil
}

// Groups reads the security groups of these IDs. Those that do not exist are absent.
func (c *Client) Groups(ctx context.Context, ids []eni.GroupID) ([]eni.Group, error) {
	var all []eni.Group
	for chunk := range slices.Chunk(ids, maxFilterValues) {
		pages := ec2.NewDescribeSecurityGroupsPaginator(c.ec2, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{filter("group-id", strs(chunk)...)}})
		for pages.HasMorePages() {
			out, err := pages.NextPage(ctx)
			if err != nil {
				return nil, fmt.Errorf("read security groups %s: %w", some(strs(chunk)), err)
			}
			for _, g := range out.SecurityGroups {
				all = append(all, eni.Group{ID: eni.GroupID(aws.ToString(g.GroupId)), VPC: eni.VPCID(aws.ToString(g.VpcId))})
			}
		}
	}
	return all, nil
}

// DevicesTagged reads the ENIs that have all of the tags, attached or not.
func (c *Client) DevicesTagged(ctx context.Context, tags map[string]string) ([]eni.Device, error) {
	var filters []types.Filter
	for k, v := range tags {
		filters = append(filters, filter("tag:"+k, v))
	}
	all, err := c.devices(ctx, filters...)
	if err != nil {
		return nil, fmt.Errorf("read ENIs by %d tags: %w", len(tags), err)
	}
	// A value of a filter is a pattern, in which * and ? stand for others. A caller who deletes what it gets means what it says.
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
	return slices.DeleteFunc(all, func(d eni.Device) bool {
		for k, v := range tags {
			if d.Tags[k] != v {
				return true
			}
		}
		return false
	}), nil
}

// DevicesIn reads all ENIs of the subnet, whoever made them.
func (c *Client) DevicesIn(ctx context.Context, subnet eni.SubnetID) ([]eni.Device, error) {
	all, err := c.devices(ctx, filter("subnet-id", string(subnet)))
	if err != nil {
		return nil, fmt.Errorf("read ENIs of %s: %w", subnet, err)
	}
	return all, nil
}

func (c *Client) devices(ctx context.Context, filters ...types.Filter) ([]eni.Device, error) {
	return describe(ctx, c.ec2, deviceOf, filters)
}

func workerOf(i types.Instance) (eni.Worker, error) {
	w := eni.Worker{Instance: eni.Instance{ID: eni.InstanceID(aws.ToString(i.InstanceId)), Type: string(i.InstanceType)}, VPC: eni.VPCID(aws.ToString(i.VpcId)), Tags: tagsOf(i.Tags)}
	if i.Placement != nil {
		w.AZ = aws.ToString(i.Placement.AvailabilityZone)
	}
	if i.State != nil {
		w.State = string(i.State.Name)
	}
	for _, n := range i.NetworkInterfaces {
		d := eni.Device{
			Interface: eni.Interface{
				ID: eni.ID(aws.ToString(n.NetworkInterfaceId)), MAC: eni.ParseMAC(aws.ToString(n.MacAddress)), InstanceID: w.ID,
				SubnetID: eni.SubnetID(aws.ToString(n.SubnetId)),
			},
			Type: aws.ToString(n.InterfaceType), Status: string(n.Status), SourceDestCheck: aws.ToBool(n.SourceDestCheck), Groups: groupsOf(n.Groups),
		}
		if a := n.Attachment; a != nil {
			d.NetworkCard, d.DeviceIndex = int(aws.ToInt32(a.NetworkCardIndex)), int(aws.ToInt32(a.DeviceIndex))
			d.Attachment, d.AttachmentStatus = eni.AttachmentID(aws.ToString(a.AttachmentId)), string(a.Status)
			d.DeleteOnTermination, d.AttachedAt = aws.ToBool(a.DeleteOnTermination), aws.ToTime(a.AttachTime)
		}
		p := parser{of: string(d.ID)}
		if aws.ToString(n.PrivateIpAddress) != "" { // absent on an IPv6-only ENI
			d.Interface.Primary = p.addr(n.PrivateIpAddress)
		}
		if p.err != nil {
			return w, p.err
		}
		w.Devices = append(w.Devices, d)
	}
	return w, nil
}

func deviceOf(n types.NetworkInterface) (eni.Device, error) {
	i, err := interfaceOf(n)
	d := eni.Device{
		Interface: i, Type: string(n.InterfaceType), Status: string(n.Status), SourceDestCheck: aws.ToBool(n.SourceDestCheck), Groups: groupsOf(n.Groups),
	}
	if a := n.Attachment; a != nil {
		d.Attachment, d.AttachmentStatus = eni.AttachmentID(aws.ToString(a.AttachmentId)), string(a.Status)
		d.DeleteOnTermination, d.AttachedAt = aws.ToBool(a.DeleteOnTermination), aws.ToTime(a.AttachTime)
	}
	return d, err
}

func layoutOf(n *types.NetworkInfo) eni.Layout {
	l := eni.Layout{Limits: eni.Limits{
		Interfaces:       int(aws.ToInt32(n.MaximumNetworkInterfaces)),
		IPv4PerInterface: int(aws.ToInt32(n.Ipv4AddressesPerInterface)),
		IPv6PerInterface: int(aws.ToInt32(n.Ipv6AddressesPerInterface)),
	}}
	for _, card := range n.NetworkCards {
		index := int(aws.ToInt32(card.NetworkCardIndex))
		for len(l.Cards) <= index && index < maxCards {
			l.Cards = append(l.Cards, eni.Card{})
		}
		if index < 0 || index >= maxCards {
			continue
		}
		l.Cards[index].Interfaces = int(aws.ToInt32(card.MaximumNetworkInterfaces))
		for _, t := range card.InterfaceTypes {
			l.Cards[index].Types = append(l.Cards[index].Types, string(t))
		}
	}
	if len(l.Cards) == 0 {
		l.Cards = []eni.Card{{Interfaces: l.Interfaces}}
	}
	return l
}

// maxCards is far above the 32 of a p5.48xlarge: an answer cannot make us allocate without bound.
const maxCards = 1024

func groupsOf(groups []types.GroupIdentifier) []eni.GroupID {
	var ids []eni.GroupID
	for _, g := range groups {
		ids = append(ids, eni.GroupID(aws.ToString(g.GroupId)))
	}
	return ids
}
