// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// AssignIPv6 gives the ENI these IPv6 addresses. There is no reassignment: one that an ENI holds must be unassigned from it
// first. EC2 does not document how it refuses such a one, nor one that this ENI holds itself: it is [eni.ErrAddressInUse]
// where EC2's code or words say so, and otherwise an error of no kind; so after any error that is not [eni.ErrThrottled],
// [eni.ErrUnauthorized] or [eni.ErrNotFound] ask [Client.Owners].
//
// After [eni.ErrOutcomeUnknown] read back before anything else. It is also the error when EC2 accepted the request but names
// only some of the addresses, as it does for one that the ENI had before.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignIpv6Addresses.html
func (c *Client) AssignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	names, err := onlyIPv6(addrs)
	if err != nil {
		return fmt.Errorf("assign to %s: %w", id, err)
	}
	out, err := c.ec2.AssignIpv6Addresses(ctx, &ec2.AssignIpv6AddressesInput{
		NetworkInterfaceId: aws.String(string(id)),
		Ipv6Addresses:      names,
	})
	if err == nil {
		err = unconfirmed(addrs, out.AssignedIpv6Addresses, netip.ParseAddr)
	}
	if err != nil {
		return fmt.Errorf("assign %s to %s: %w", some(names), id, err)
	}
	return nil
}

// UnassignIPv6 takes IPv6 addresses away from the ENI. When one of them is not there the error is [eni.ErrNotAssigned]; that
// none was taken then is how IPv4 behaves and not documented, so read back. After [eni.ErrOutcomeUnknown] read back too; after
// any other error nothing was changed.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_UnassignIpv6Addresses.html
func (c *Client) UnassignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	names, err := onlyIPv6(addrs)
	if err != nil {
		return fmt.Errorf("unassign from %s: %w", id, err)
	}
	out, err := c.ec2.UnassignIpv6Addresses(ctx, &ec2.UnassignIpv6AddressesInput{
		NetworkInterfaceId: aws.String(string(id)),
		Ipv6Addresses:      names,
	})
	if err == nil {
		err = unconfirmed(addrs, out.UnassignedIpv6Addresses, netip.ParseAddr)
	}
	if err != nil {
		return fmt.Errorf("unassign %s from %s: %w", some(names), id, err)
	}
	return nil
}

func onlyIPv6(addrs []netip.Addr) ([]string, error) {
	for _, a := range addrs {
		if !a.Is6() || a.Is4In6() || a.Zone() != "" {
			return nil, fmt.Errorf("%s is no IPv6 address of a subnet", a)
		}
	}
	return texts(addrs), nil
}
