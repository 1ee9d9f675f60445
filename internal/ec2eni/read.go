// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Limits reads how many ENIs and addresses an instance type may have.
func (c *Client) Limits(ctx context.Context, instanceType string) (eni.Limits, error) {
	l, err := c.Layout(ctx, instanceType)
	return l.Limits, err
}

// Subnets reads the subnets of these IDs, in EC2's order. One that does not exist makes the whole an [eni.ErrNotFound].
func (c *Client) Subnets(ctx context.Context, ids []eni.SubnetID) ([]eni.Subnet, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	subnets, err := c.subnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: strs(ids)})
	if err != nil {
		return nil, fmt.Errorf("read subnets %s: %w", some(strs(ids)), err)
	}
	return subnets, nil
}

// Reservations reads the CIDR reservations of a subnet, IPv4 and IPv6, in EC2's order.
func (c *Client) Reservations(ctx context.Context, id eni.SubnetID) ([]eni.Reservation, error) {
	var reservations []eni.Reservation
	// The SDK has no paginator for this call; whoever reads one page only loses what lies beyond it.
	// https://github.com/hashicorp/terraform-provider-aws/issues/45304
	in := &ec2.GetSubnetCidrReservationsInput{SubnetId: aws.String(string(id)), MaxResults: aws.Int32(pageSize)}
	for {
		out, err := c.ec2.GetSubnetCidrReservations(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("read reservations of %s: %w", id, err)
		}
		for _, r := range slices.Concat(out.SubnetIpv4CidrReservations, out.SubnetIpv6CidrReservations) {
			reservation, err := reservationOf(r)
			if err != nil {
				return nil, err
			}
			reservations = append(reservations, reservation)
		}
		if aws.ToString(out.NextToken) == "" {
			return reservations, nil
		}
		if aws.ToString(out.NextToken) == aws.ToString(in.NextToken) {
			return nil, fmt.Errorf("read reservations of %s: %w", id, errors.New("the next page is the same one"))
		}
		in.NextToken = out.NextToken
	}
}

// Interfaces reads the ENIs of these IDs. Those that do not exist, or not yet, are absent.
func (c *Client) Interfaces(ctx context.Context, ids []eni.ID) ([]eni.Interface, error) {
	var all []eni.Interface
	for chunk := range slices.Chunk(ids, maxFilterValues) {
		// A filter, not NetworkInterfaceIds: with that, one ENI which was just detached and deleted fails the whole call.
		found, err := c.interfaces(ctx, filter("network-interface-id", strs(chunk)...))
		if err != nil {
			return nil, fmt.Errorf("read %d ENIs: %w", len(ids), err)
		}
		all = append(all, found...)
	}
	return all, nil
}

// InterfacesOf reads the ENIs that are attached to the instance.
func (c *Client) InterfacesOf(ctx context.Context, instance eni.InstanceID) ([]eni.Interface, error) {
	all, err := c.interfaces(ctx, filter("attachment.instance-id", string(instance)))
	if err != nil {
		return nil, fmt.Errorf("read ENIs of %s: %w", instance, err)
	}
	return all, nil
}

// InterfacesTagged reads the ENIs that have the tag, and lie in one of the subnets when any are given.
func (c *Client) InterfacesTagged(ctx context.Context, key, value string, subnets []eni.SubnetID) ([]eni.Interface, error) {
	filters := []types.Filter{filter("tag:"+key, value)}
	if len(subnets) > 0 {
		filters = append(filters, filter("subnet-id", strs(subnets)...))
	}
	all, err := c.interfaces(ctx, filters...)
	if err != nil {
		return nil, fmt.Errorf("read ENIs tagged %s=%s: %w", key, value, err)
	}
	return all, nil
}

// InterfacesWithMAC reads the ENIs that have the MAC; in one Region there should be one.
func (c *Client) InterfacesWithMAC(ctx context.Context, mac eni.MAC) ([]eni.Interface, error) {
	all, err := c.interfaces(ctx, filter("mac-address", string(mac)))
	if err != nil {
		return nil, fmt.Errorf("read the ENI with MAC %s: %w", mac, err)
	}
	return all, nil
}

// Owners says which ENI holds each of these addresses in the subnet, as its primary or another. An address that no ENI holds
// is absent; so is one inside a delegated prefix.
func (c *Client) Owners(ctx context.Context, subnet eni.SubnetID, addrs []netip.Addr) (map[netip.Addr]eni.ID, error) {
	owners := make(map[netip.Addr]eni.ID)
	byFamily := map[string][]netip.Addr{}
	for _, a := range addrs {
		name := "addresses.private-ip-address"
		if !a.Is4() {
			name = "ipv6-addresses.ipv6-address"
		}
		byFamily[name] = append(byFamily[name], a)
	}
	for name, family := range byFamily {
		for chunk := range slices.Chunk(family, maxFilterValues-1) { // the subnet is a value as well
			found, err := c.interfaces(ctx, filter(name, texts(chunk)...), filter("subnet-id", string(subnet)))
			if err != nil {
				return nil, fmt.Errorf("read owners of %s in %s: %w", some(texts(chunk)), subnet, err)
			}
			for _, a := range chunk {
				if i := slices.IndexFunc(found, func(i eni.Interface) bool { return i.Holds(a) }); i >= 0 {
					owners[a] = found[i].ID
				}
			}
		}
	}
	return owners, nil
}

func (c *Client) interfaces(ctx context.Context, filters ...types.Filter) ([]eni.Interface, error) {
	return describe(ctx, c.ec2, interfaceOf, filters)
}

// describe reads all pages of ENIs.
func describe[T any](ctx context.Context, api *ec2.Client, as func(types.NetworkInterface) (T, error), filters []types.Filter) (all []T, err error) {
	pages := ec2.NewDescribeNetworkInterfacesPaginator(api, &ec2.DescribeNetworkInterfacesInput{Filters: filters, MaxResults: aws.Int32(pageSize)})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range out.NetworkInterfaces {
			i, err := as(n)
			if err != nil {
				return nil, err
			}
			all = append(all, i)
		}
	}
	return all, nil
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

func strs[T ~string](ids []T) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}
