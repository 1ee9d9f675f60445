// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type describeVPCsRequest struct {
	IDs     []string `ec2:"VpcId"`
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeVPCsResponse struct {
	reply
	VPCs      set[vpcXML] `xml:"vpcSet"`
	NextToken string      `xml:"nextToken,omitempty"`
}

type vpcXML struct {
	ID        string                  `xml:"vpcId"`
	OwnerID   string                  `xml:"ownerId"`
	State     string                  `xml:"state"`
	CIDR      netip.Prefix            `xml:"cidrBlock"`
	CIDRs     set[cidrAssociationXML] `xml:"cidrBlockAssociationSet"`
	IPv6CIDRs set[ipv6AssociationXML] `xml:"ipv6CidrBlockAssociationSet"`
	Tenancy   string                  `xml:"instanceTenancy"`
	IsDefault bool                    `xml:"isDefault"`
	Tags      set[tagXML]             `xml:"tagSet"`
}

type cidrAssociationXML struct {
	ID    string       `xml:"associationId"`
	CIDR  netip.Prefix `xml:"cidrBlock"`
	State string       `xml:"cidrBlockState>state"`
}

type ipv6AssociationXML struct {
	ID    string       `xml:"associationId"`
	CIDR  netip.Prefix `xml:"ipv6CidrBlock"`
	State string       `xml:"ipv6CidrBlockState>state"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVpcs.html
func describeVPCs(c *call, in describeVPCsRequest) (*describeVPCsResponse, error) {
	if err := in.together(in.IDs, "vpcSet"); err != nil {
		return nil, err
	}
	id := func(v vpc.VPC) string { return v.ID }
	list, err := named(c.view().VPCs(), in.IDs, id, notFound("InvalidVpcID.NotFound", "vpc"))
	if err != nil {
		return nil, err
	}
	list, err = filters[vpc.VPC]{
		tags: func(v vpc.VPC) map[string]string { return v.Tags },
		fields: map[string]func(vpc.VPC) []string{
			"cidr":                              func(v vpc.VPC) []string { return one(v.IPv4.String()) },
			"cidr-block-association.cidr-block": func(v vpc.VPC) []string { return one(v.IPv4.String()) },
			"ipv6-cidr-block-association.ipv6-cidr-block": func(v vpc.VPC) []string { return optionalCIDR(v.IPv6) },
			"is-default": func(v vpc.VPC) []string { return one(strconv.FormatBool(v.IsDefault)) },
			"owner-id":   func(v vpc.VPC) []string { return one(v.OwnerID) },
			"state":      func(vpc.VPC) []string { return one(statusAvailable) },
			"vpc-id":     func(v vpc.VPC) []string { return one(v.ID) },
		},
	}.choose(list, in.Filters)
	if err != nil {
		return nil, err
	}
	list, next, err := cut(in.paging, pageSize{5, 1000, 1000}, list, id)
	if err != nil {
		return nil, err
	}
	return &describeVPCsResponse{NextToken: next, VPCs: setOf(list, func(v vpc.VPC) vpcXML {
		return vpcXML{
			ID: v.ID, OwnerID: v.OwnerID, State: statusAvailable, CIDR: v.IPv4, IPv6CIDRs: ipv6CIDRs("vpc", v.ID, v.IPv6),
			Tenancy: "default", IsDefault: v.IsDefault, Tags: tagSet(v.Tags),
			CIDRs: set[cidrAssociationXML]{[]cidrAssociationXML{{"vpc-cidr-assoc" + v.ID[len("vpc"):], v.IPv4, "associated"}}},
		}
	})}, nil
}

// ipv6CIDRs lists the one IPv6 range that an object of the lab can have.
func ipv6CIDRs(kind, id string, p netip.Prefix) set[ipv6AssociationXML] {
	if !p.IsValid() {
		return set[ipv6AssociationXML]{}
	}
	return set[ipv6AssociationXML]{[]ipv6AssociationXML{{kind + "-cidr-assoc" + id[len(kind):], p, "associated"}}}
}

func optionalCIDR(p netip.Prefix) []string {
	if !p.IsValid() {
		return nil
	}
	return one(p.String())
}

type describeSubnetsRequest struct {
	IDs     []string `ec2:"SubnetId"`
	Filters []filter `ec2:"Filter"`
	DryRun  bool     `ec2:"DryRun"`
	paging
}

type describeSubnetsResponse struct {
	reply
	Subnets   set[subnetXML] `xml:"subnetSet"`
	NextToken string         `xml:"nextToken,omitempty"`
}

type subnetXML struct {
	ID         string                  `xml:"subnetId"`
	ARN        string                  `xml:"subnetArn"`
	State      string                  `xml:"state"`
	OwnerID    string                  `xml:"ownerId"`
	VPCID      string                  `xml:"vpcId"`
	CIDR       string                  `xml:"cidrBlock,omitempty"`
	IPv6CIDRs  set[ipv6AssociationXML] `xml:"ipv6CidrBlockAssociationSet"`
	Available  int                     `xml:"availableIpAddressCount"`
	AZ         string                  `xml:"availabilityZone"`
	AZID       string                  `xml:"availabilityZoneId"`
	DefaultAZ  bool                    `xml:"defaultForAz"`
	PublicIP   bool                    `xml:"mapPublicIpOnLaunch"`
	AssignIPv6 bool                    `xml:"assignIpv6AddressOnCreation"`
	IPv6Native bool                    `xml:"ipv6Native"`
	Tags       set[tagXML]             `xml:"tagSet"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html
func describeSubnets(c *call, in describeSubnetsRequest) (*describeSubnetsResponse, error) {
	if err := in.together(in.IDs, "subnetSet"); err != nil {
		return nil, err
	}
	view := c.view()
	id := func(s vpc.Subnet) string { return s.ID }
	list, err := named(view.Subnets(), in.IDs, id, notFound("InvalidSubnetID.NotFound", "subnet"))
	if err != nil {
		return nil, err
	}
	if list, err = c.subnetFilters(view).choose(list, in.Filters); err != nil {
		return nil, err
	}
	list, next, err := cut(in.paging, pageSize{5, 1000, 1000}, list, id)
	if err != nil {
		return nil, err
	}
	return &describeSubnetsResponse{NextToken: next, Subnets: setOf(list, func(s vpc.Subnet) subnetXML {
		x := subnetXML{
			ID: s.ID, ARN: c.subnetARN(s), State: statusAvailable, OwnerID: s.OwnerID, VPCID: s.VPCID,
			IPv6CIDRs: ipv6CIDRs("subnet", s.ID, s.IPv6), Available: view.AvailableIPv4(s), AZ: s.AZ, AZID: vpc.ZoneID(s.AZ),
			IPv6Native: !s.IPv4.IsValid(), Tags: tagSet(s.Tags),
		}
		if s.IPv4.IsValid() {
			x.CIDR = s.IPv4.String()
		}
		return x
	})}, nil
}

func (c *call) subnetARN(s vpc.Subnet) string {
	return fmt.Sprintf("arn:aws:ec2:%s:%s:subnet/%s", c.cloud.Region(), s.OwnerID, s.ID)
}

func (c *call) subnetFilters(view vpc.View) filters[vpc.Subnet] {
	zone := func(s vpc.Subnet) []string { return one(s.AZ) }
	zoneID := func(s vpc.Subnet) []string { return one(vpc.ZoneID(s.AZ)) }
	cidr := func(s vpc.Subnet) []string { return optionalCIDR(s.IPv4) }
	return filters[vpc.Subnet]{
		tags: func(s vpc.Subnet) map[string]string { return s.Tags },
		fields: map[string]func(vpc.Subnet) []string{
			"availability-zone": zone, "availabilityZone": zone,
			"availability-zone-id": zoneID, "availabilityZoneId": zoneID,
			"available-ip-address-count": func(s vpc.Subnet) []string { return one(strconv.Itoa(view.AvailableIPv4(s))) },
			"cidr-block":                 cidr, "cidr": cidr, "cidrBlock": cidr,
			"default-for-az": func(vpc.Subnet) []string { return one("false") },
			"ipv6-cidr-block-association.ipv6-cidr-block": func(s vpc.Subnet) []string { return optionalCIDR(s.IPv6) },
			"ipv6-native": func(s vpc.Subnet) []string { return one(strconv.FormatBool(!s.IPv4.IsValid())) },
			"owner-id":    func(s vpc.Subnet) []string { return one(s.OwnerID) },
			"state":       func(vpc.Subnet) []string { return one(statusAvailable) },
			"subnet-arn":  func(s vpc.Subnet) []string { return one(c.subnetARN(s)) },
			"subnet-id":   func(s vpc.Subnet) []string { return one(s.ID) },
			"vpc-id":      func(s vpc.Subnet) []string { return one(s.VPCID) },
		},
	}
}
