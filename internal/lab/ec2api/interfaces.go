// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"net/netip"
	"strconv"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// addressRequest are the parameters of an ENI to be that its own addresses are asked for by.
type addressRequest struct {
	PrivateIP netip.Addr `ec2:"PrivateIpAddress"`
	Addresses []struct {
		Address netip.Addr `ec2:"PrivateIpAddress,required"`
		Primary bool       `ec2:"Primary"`
	} `ec2:"PrivateIpAddresses"`
	SecondaryCount int `ec2:"SecondaryPrivateIpAddressCount"`
	Prefixes       []struct {
		Prefix netip.Prefix `ec2:"Ipv4Prefix,required"`
	} `ec2:"Ipv4Prefix"`
	PrefixCount int `ec2:"Ipv4PrefixCount"`
	IPv6        []struct {
		Address netip.Addr `ec2:"Ipv6Address,required"`
	} `ec2:"Ipv6Addresses"`
	IPv6Count    int `ec2:"Ipv6AddressCount"`
	IPv6Prefixes []struct {
		Prefix netip.Prefix `ec2:"Ipv6Prefix,required"`
	} `ec2:"Ipv6Prefix"`
	IPv6PrefixCount int `ec2:"Ipv6PrefixCount"`
}

// request puts the parameters into the lab's words.
func (r addressRequest) request() (vpc.AddressRequest, error) {
	out := vpc.AddressRequest{
		Primary: r.PrivateIP, SecondaryCount: r.SecondaryCount, PrefixCount: r.PrefixCount,
		IPv6Count: r.IPv6Count, IPv6PrefixCount: r.IPv6PrefixCount,
	}
	for _, a := range r.Addresses {
		switch {
		case !a.Primary:
			out.Secondary = append(out.Secondary, a.Address)
		case out.Primary.IsValid() && out.Primary != a.Address:
			// "Only one private IPv4 address can be designated as primary."
			// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateNetworkInterface.html; unverified: the wording.
			return out, vpc.Errorf("InvalidParameterCombination", "Only one primary private IP address can be specified.")
		default:
			out.Primary = a.Address
		}
	}
	for _, p := range r.Prefixes {
		out.Prefixes = append(out.Prefixes, p.Prefix)
	}
	for _, a := range r.IPv6 {
		out.IPv6 = append(out.IPv6, a.Address)
	}
	for _, p := range r.IPv6Prefixes {
		out.IPv6Prefixes = append(out.IPv6Prefixes, p.Prefix)
	}
	return out, nil
}

type createNetworkInterfaceRequest struct {
	SubnetID      string             `ec2:"SubnetId,required"`
	Description   string             `ec2:"Description"`
	InterfaceType string             `ec2:"InterfaceType"`
	Groups        []string           `ec2:"SecurityGroupId"`
	Tags          []tagSpecification `ec2:"TagSpecification"`
	ClientToken   string             `ec2:"ClientToken"`
	DryRun        bool               `ec2:"DryRun"`
	addressRequest
}

type createNetworkInterfaceResponse struct {
	reply
	Interface   interfaceXML `xml:"networkInterface"`
	ClientToken string       `xml:"clientToken,omitempty"`
}

func createNetworkInterface(c *call, in createNetworkInterfaceRequest) (*createNetworkInterfaceResponse, error) {
	addresses, err := in.request()
	if err != nil {
		return nil, err
	}
	tags, err := tagsFor(in.Tags, "network-interface")
	if err != nil {
		return nil, err
	}
	e, err := c.cloud.CreateNetworkInterface(c.now, vpc.CreateNetworkInterfaceInput{
		SubnetID: in.SubnetID, Description: in.Description, InterfaceType: in.InterfaceType, Groups: in.Groups,
		Tags: tags["network-interface"], ClientToken: in.ClientToken, AddressRequest: addresses,
	})
	if err != nil {
		return nil, err
	}
	x := c.interfaceOf(e)
	x.Status = "pending" // as the API reference's example shows
	return &createNetworkInterfaceResponse{Interface: x, ClientToken: in.ClientToken}, nil
}

type describeNetworkInterfacesRequest struct {
	IDs     []string `ec2:"NetworkInterfaceId"`
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeNetworkInterfacesResponse struct {
	reply
	Interfaces set[interfaceXML] `xml:"networkInterfaceSet"`
	NextToken  string            `xml:"nextToken,omitempty"`
}

func describeNetworkInterfaces(c *call, in describeNetworkInterfacesRequest) (*describeNetworkInterfacesResponse, error) {
	if err := in.together(in.IDs, "networkInterfaceIdSet"); err != nil {
		return nil, err
	}
	id := func(e vpc.ENI) string { return e.ID }
	list, err := named(c.view().AllENIs(), in.IDs, id, notFound("InvalidNetworkInterfaceID.NotFound", "networkInterface"))
	if err != nil {
		return nil, err
	}
	if list, err = c.eniFilters().choose(list, in.Filters); err != nil {
		return nil, err
	}
	// "between 5 and 1000": https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html
	list, next, err := cut(in.paging, pageSize{5, 1000, 1000}, list, id)
	if err != nil {
		return nil, err
	}
	return &describeNetworkInterfacesResponse{Interfaces: setOf(list, c.interfaceOf), NextToken: next}, nil
}

// eniFilters: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html
func (c *call) eniFilters() filters[vpc.ENI] {
	attached := func(f func(*vpc.Attachment) string) func(vpc.ENI) []string {
		return func(e vpc.ENI) []string {
			if e.Attachment == nil {
				return nil
			}
			return one(f(e.Attachment))
		}
	}
	return filters[vpc.ENI]{
		tags: func(e vpc.ENI) map[string]string { return e.Tags },
		fields: map[string]func(vpc.ENI) []string{
			"addresses.private-ip-address": func(e vpc.ENI) []string { return stringsOf(e.IPv4()) },
			"addresses.primary": func(e vpc.ENI) []string {
				var out []string
				for _, a := range e.IPv4() {
					out = append(out, strconv.FormatBool(a == e.Primary))
				}
				return out
			},
			"attachment.attachment-id":         attached(func(a *vpc.Attachment) string { return a.ID }),
			"attachment.attach-time":           attached(func(a *vpc.Attachment) string { return timestamp(a.AttachTime) }),
			"attachment.delete-on-termination": attached(func(a *vpc.Attachment) string { return strconv.FormatBool(a.DeleteOnTermination) }),
			"attachment.device-index":          attached(func(a *vpc.Attachment) string { return strconv.Itoa(a.DeviceIndex) }),
			"attachment.instance-id":           attached(func(a *vpc.Attachment) string { return a.InstanceID }),
			"attachment.instance-owner-id":     attached(func(*vpc.Attachment) string { return c.cloud.AccountID() }),
			"attachment.network-card-index":    attached(func(a *vpc.Attachment) string { return strconv.Itoa(a.NetworkCard) }),
			"attachment.status":                attached(func(*vpc.Attachment) string { return statusAttached }),
			"availability-zone":                func(e vpc.ENI) []string { return one(e.AZ) },
			"description":                      func(e vpc.ENI) []string { return one(e.Description) },
			"group-id":                         func(e vpc.ENI) []string { return e.Groups },
			"interface-type":                   func(e vpc.ENI) []string { return one(e.InterfaceType) },
			"ipv6-addresses.ipv6-address":      func(e vpc.ENI) []string { return stringsOf(e.IPv6) },
			"mac-address":                      func(e vpc.ENI) []string { return one(e.MAC) },
			"network-interface-id":             func(e vpc.ENI) []string { return one(e.ID) },
			"owner-id":                         func(e vpc.ENI) []string { return one(e.OwnerID) },
			"private-dns-name":                 func(e vpc.ENI) []string { return one(c.dnsName(e.Primary)) },
			"private-ip-address":               func(e vpc.ENI) []string { return optional(e.Primary) },
			"requester-managed":                func(vpc.ENI) []string { return one("false") },
			"source-dest-check":                func(e vpc.ENI) []string { return one(strconv.FormatBool(e.SourceDestCheck)) },
			"status":                           func(e vpc.ENI) []string { return one(eniStatus(e)) },
			"subnet-id":                        func(e vpc.ENI) []string { return one(e.SubnetID) },
			"vpc-id":                           func(e vpc.ENI) []string { return one(e.VPCID) },
		},
	}
}

func stringsOf(list []netip.Addr) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return out
}

func optional(a netip.Addr) []string {
	if !a.IsValid() {
		return nil
	}
	return one(a.String())
}
