// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type assignPrivateIPAddressesRequest struct {
	NetworkInterfaceID string         `ec2:"NetworkInterfaceId,required"`
	AllowReassignment  bool           `ec2:"AllowReassignment"`
	Addresses          []netip.Addr   `ec2:"PrivateIpAddress"`
	Count              *int           `ec2:"SecondaryPrivateIpAddressCount"`
	Prefixes           []netip.Prefix `ec2:"Ipv4Prefix"`
	PrefixCount        *int           `ec2:"Ipv4PrefixCount"`
}

type assignPrivateIPAddressesResponse struct {
	reply
	NetworkInterfaceID string          `xml:"networkInterfaceId"`
	Addresses          set[privateIP]  `xml:"assignedPrivateIpAddressesSet"`
	Prefixes           set[ipv4Prefix] `xml:"assignedIpv4PrefixSet"`
}

type privateIP struct {
	Address netip.Addr `xml:"privateIpAddress"`
}

type ipv4Prefix struct {
	Prefix netip.Prefix `xml:"ipv4Prefix"`
}

type ipv6Prefix struct {
	Prefix netip.Prefix `xml:"ipv6Prefix"`
}

func assignPrivateIPAddresses(c *call, in assignPrivateIPAddressesRequest) (*assignPrivateIPAddressesResponse, error) {
	count, err := counts(in.Count, in.PrefixCount)
	if err != nil {
		return nil, err
	}
	got, err := c.cloud.AssignPrivateIPAddresses(c.now, vpc.AssignPrivateIPAddressesInput{
		NetworkInterfaceID: in.NetworkInterfaceID, AllowReassignment: in.AllowReassignment,
		Addresses: in.Addresses, Count: count[0], Prefixes: in.Prefixes, PrefixCount: count[1],
	})
	if err != nil {
		return nil, err
	}
	return &assignPrivateIPAddressesResponse{
		NetworkInterfaceID: got.NetworkInterfaceID,
		Addresses:          setOf(got.Addresses, func(a netip.Addr) privateIP { return privateIP{a} }),
		Prefixes:           setOf(got.Prefixes, func(p netip.Prefix) ipv4Prefix { return ipv4Prefix{p} }),
	}, nil
}

type unassignPrivateIPAddressesRequest struct {
	NetworkInterfaceID string         `ec2:"NetworkInterfaceId,required"`
	Addresses          []netip.Addr   `ec2:"PrivateIpAddress"`
	Prefixes           []netip.Prefix `ec2:"Ipv4Prefix"`
}

func unassignPrivateIPAddresses(c *call, in unassignPrivateIPAddressesRequest) (*done, error) {
	err := c.cloud.UnassignPrivateIPAddresses(c.now, vpc.UnassignInput{
		NetworkInterfaceID: in.NetworkInterfaceID, Addresses: in.Addresses, Prefixes: in.Prefixes,
	})
	return ok(), err
}

type assignIPv6AddressesRequest struct {
	NetworkInterfaceID string         `ec2:"NetworkInterfaceId,required"`
	Addresses          []netip.Addr   `ec2:"Ipv6Addresses"`
	Count              *int           `ec2:"Ipv6AddressCount"`
	Prefixes           []netip.Prefix `ec2:"Ipv6Prefix"`
	PrefixCount        *int           `ec2:"Ipv6PrefixCount"`
}

type assignIPv6AddressesResponse struct {
	reply
	NetworkInterfaceID string            `xml:"networkInterfaceId"`
	Addresses          set[netip.Addr]   `xml:"assignedIpv6Addresses"`
	Prefixes           set[netip.Prefix] `xml:"assignedIpv6PrefixSet"`
}

func assignIPv6Addresses(c *call, in assignIPv6AddressesRequest) (*assignIPv6AddressesResponse, error) {
	count, err := counts(in.Count, in.PrefixCount)
	if err != nil {
		return nil, err
	}
	got, err := c.cloud.AssignIPv6Addresses(c.now, vpc.AssignIPv6AddressesInput{
		NetworkInterfaceID: in.NetworkInterfaceID,
		Addresses:          in.Addresses, Count: count[0], Prefixes: in.Prefixes, PrefixCount: count[1],
	})
	if err != nil {
		return nil, err
	}
	return &assignIPv6AddressesResponse{
		NetworkInterfaceID: got.NetworkInterfaceID, Addresses: set[netip.Addr]{got.Addresses}, Prefixes: set[netip.Prefix]{got.Prefixes},
	}, nil
}

type unassignIPv6AddressesRequest struct {
	NetworkInterfaceID string         `ec2:"NetworkInterfaceId,required"`
	Addresses          []netip.Addr   `ec2:"Ipv6Addresses"`
	Prefixes           []netip.Prefix `ec2:"Ipv6Prefix"`
}

type unassignIPv6AddressesResponse struct {
	reply
	NetworkInterfaceID string            `xml:"networkInterfaceId"`
	Addresses          set[netip.Addr]   `xml:"unassignedIpv6Addresses"`
	Prefixes           set[netip.Prefix] `xml:"unassignedIpv6PrefixSet"`
}

func unassignIPv6Addresses(c *call, in unassignIPv6AddressesRequest) (*unassignIPv6AddressesResponse, error) {
	got, err := c.cloud.UnassignIPv6Addresses(c.now, vpc.UnassignInput{
		NetworkInterfaceID: in.NetworkInterfaceID, Addresses: in.Addresses, Prefixes: in.Prefixes,
	})
	if err != nil {
		return nil, err
	}
	return &unassignIPv6AddressesResponse{
		NetworkInterfaceID: got.NetworkInterfaceID, Addresses: set[netip.Addr]{got.Addresses}, Prefixes: set[netip.Prefix]{got.Prefixes},
	}, nil
}

// counts reads optional numbers of things to assign; a zero that was given is refused.
// unverified: the wording.
func counts(given ...*int) ([]int, error) {
	out := make([]int, len(given))
	for i, n := range given {
		if n == nil {
			continue
		}
		if *n < 1 {
			return nil, vpc.InvalidValue("Invalid value '%d' for a count. Must be positive", *n)
		}
		out[i] = *n
	}
	return out, nil
}
