// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"fmt"
	"math"
	"net/netip"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// AssignCount gives the ENI n addresses of EC2's choice, IPv6 ones or secondary IPv4 ones, and returns those that EC2 named.
// EC2 chooses outside of every reservation, all or none: else [eni.ErrSubnetFull] or [eni.ErrSlotsFull].
//
// After [eni.ErrOutcomeUnknown] the ENI may have n addresses more than before, and repeating the call would add n more: read
// back. It is also the error when EC2 named another number of addresses than n; those it named are returned with it. After
// any other error nothing was changed. For n < 1 there is no call.
func (c *Client) AssignCount(ctx context.Context, id eni.ID, v6 bool, n int) ([]netip.Addr, error) {
	if n < 1 {
		return nil, nil
	}
	names, _, err := c.assignChosen(ctx, id, v6, count(n), nil)
	if err != nil {
		return nil, fmt.Errorf("assign %d %s addresses to %s: %w", n, family(v6), id, err)
	}
	addrs, err := chosen(names, n, netip.ParseAddr)
	if err != nil {
		return addrs, fmt.Errorf("assign %d %s addresses to %s: %w", n, family(v6), id, err)
	}
	return addrs, nil
}

// AssignPrefixes delegates to the ENI n prefixes of EC2's choice, /80 or /28, and returns those that EC2 named. Each takes one
// address slot. Errors are those of [Client.AssignCount], and [eni.ErrNoPrefix] when fewer than n whole blocks are free. An
// instance type that knows no prefixes (it is not of the Nitro system) gets an error that wraps no sentinel.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-prefix-eni.html
func (c *Client) AssignPrefixes(ctx context.Context, id eni.ID, v6 bool, n int) ([]netip.Prefix, error) {
	if n < 1 {
		return nil, nil
	}
	_, names, err := c.assignChosen(ctx, id, v6, nil, count(n))
	if err != nil {
		return nil, fmt.Errorf("assign %d %s prefixes to %s: %w", n, family(v6), id, err)
	}
	prefixes, err := chosen(names, n, netip.ParsePrefix)
	if err != nil {
		return prefixes, fmt.Errorf("assign %d %s prefixes to %s: %w", n, family(v6), id, err)
	}
	return prefixes, nil
}

// assignChosen asks for one of the two numbers; the other is nil.
func (c *Client) assignChosen(ctx context.Context, id eni.ID, v6 bool, addrs, prefixes *int32) (addrNames, prefixNames []string, _ error) {
	if v6 {
		out, err := c.ec2.AssignIpv6Addresses(ctx, &ec2.AssignIpv6AddressesInput{
			NetworkInterfaceId: aws.String(string(id)), Ipv6AddressCount: addrs, Ipv6PrefixCount: prefixes,
		})
		if err != nil {
			return nil, nil, err
		}
		return out.AssignedIpv6Addresses, out.AssignedIpv6Prefixes, nil
	}
	out, err := c.ec2.AssignPrivateIpAddresses(ctx, &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: aws.String(string(id)), SecondaryPrivateIpAddressCount: addrs, Ipv4PrefixCount: prefixes,
	})
	if err != nil {
		return nil, nil, err
	}
	return ipv4Names(out.AssignedPrivateIpAddresses), ipv4PrefixNames(out.AssignedIpv4Prefixes), nil
}

// chosen reads what EC2 says it chose. It has changed the ENI by now, so what cannot be read is not known.
func chosen[T any](names []string, n int, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, name := range names {
		v, err := parse(name)
		if err != nil {
			return all, fmt.Errorf("%w: answer of EC2: %w", eni.ErrOutcomeUnknown, err)
		}
		all = append(all, v)
	}
	if len(all) != n {
		return all, fmt.Errorf("%w: the answer names %d", eni.ErrOutcomeUnknown, len(all))
	}
	return all, nil
}

// UnassignPrefixes takes delegated prefixes of either family away from the ENI. Each family is one call, IPv4 first; when that
// fails the other is not made. When a prefix is not there the error is [eni.ErrNotAssigned] and none of its family was taken.
// After [eni.ErrOutcomeUnknown] read back; after any other error nothing of the family that it names was changed.
func (c *Client) UnassignPrefixes(ctx context.Context, id eni.ID, prefixes []netip.Prefix) error {
	var v4, v6 []netip.Prefix
	for _, p := range prefixes {
		switch {
		case !p.IsValid():
			return fmt.Errorf("unassign from %s: %s", id, p)
		case p.Addr().Is4():
			v4 = append(v4, p)
		default:
			v6 = append(v6, p)
		}
	}
	if err := c.unassignIPv4Prefixes(ctx, id, v4); err != nil {
		return fmt.Errorf("unassign %s from %s: %w", some(texts(v4)), id, err)
	}
	if err := c.unassignIPv6Prefixes(ctx, id, v6); err != nil {
		return fmt.Errorf("unassign %s from %s: %w", some(texts(v6)), id, err)
	}
	return nil
}

func (c *Client) unassignIPv4Prefixes(ctx context.Context, id eni.ID, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	_, err := c.ec2.UnassignPrivateIpAddresses(ctx, &ec2.UnassignPrivateIpAddressesInput{
		NetworkInterfaceId: aws.String(string(id)), Ipv4Prefixes: texts(prefixes),
	})
	return err
}

func (c *Client) unassignIPv6Prefixes(ctx context.Context, id eni.ID, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	out, err := c.ec2.UnassignIpv6Addresses(ctx, &ec2.UnassignIpv6AddressesInput{
		NetworkInterfaceId: aws.String(string(id)), Ipv6Prefixes: texts(prefixes),
	})
	if err != nil {
		return err
	}
	return unconfirmed(prefixes, out.UnassignedIpv6Prefixes, netip.ParsePrefix)
}

func ipv4PrefixNames(assigned []types.Ipv4PrefixSpecification) []string {
	names := make([]string, len(assigned))
	for i, a := range assigned {
		names[i] = aws.ToString(a.Ipv4Prefix)
	}
	return names
}

func count(n int) *int32 { return aws.Int32(int32(min(n, math.MaxInt32))) }

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}
