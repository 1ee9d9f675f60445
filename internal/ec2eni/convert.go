// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"fmt"
	"net/netip"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

func interfaceOf(n types.NetworkInterface) (eni.Interface, error) {
	i := eni.Interface{
		ID:       eni.ID(aws.ToString(n.NetworkInterfaceId)),
		MAC:      eni.ParseMAC(aws.ToString(n.MacAddress)),
		SubnetID: eni.SubnetID(aws.ToString(n.SubnetId)),
		Tags:     tagsOf(n.TagSet),
	}
	if a := n.Attachment; a != nil {
		i.InstanceID = eni.InstanceID(aws.ToString(a.InstanceId))
		i.DeviceIndex = int(aws.ToInt32(a.DeviceIndex))
		i.NetworkCard = int(aws.ToInt32(a.NetworkCardIndex))
	}
	p := parser{of: string(i.ID)}
	for _, a := range n.PrivateIpAddresses {
		switch addr := p.addr(a.PrivateIpAddress); {
		case aws.ToBool(a.Primary):
			i.Primary = addr
		default:
			i.Secondary = append(i.Secondary, addr)
		}
	}
	for _, a := range n.Ipv6Addresses {
		i.IPv6 = append(i.IPv6, p.addr(a.Ipv6Address))
	}
	for _, a := range n.Ipv4Prefixes {
		i.Prefixes = append(i.Prefixes, p.prefix(a.Ipv4Prefix))
	}
	for _, a := range n.Ipv6Prefixes {
		i.Prefixes = append(i.Prefixes, p.prefix(a.Ipv6Prefix))
	}
	return i, p.err
}

func subnetOf(s types.Subnet) (eni.Subnet, error) {
	p := parser{of: aws.ToString(s.SubnetId)}
	subnet := eni.Subnet{
		ID: eni.SubnetID(p.of), VPC: eni.VPCID(aws.ToString(s.VpcId)), AZ: aws.ToString(s.AvailabilityZone),
		Available: int(aws.ToInt32(s.AvailableIpAddressCount)), Tags: tagsOf(s.Tags),
	}
	if aws.ToString(s.CidrBlock) != "" { // absent in an IPv6-only subnet
		subnet.IPv4 = p.prefix(s.CidrBlock)
	}
	for _, a := range s.Ipv6CidrBlockAssociationSet {
		if a.Ipv6CidrBlockState != nil && a.Ipv6CidrBlockState.State == types.SubnetCidrBlockStateCodeAssociated {
			subnet.IPv6 = append(subnet.IPv6, p.prefix(a.Ipv6CidrBlock))
		}
	}
	return subnet, p.err
}

func reservationOf(r types.SubnetCidrReservation) (eni.Reservation, error) {
	p := parser{of: aws.ToString(r.SubnetCidrReservationId)}
	return eni.Reservation{
		ID: eni.ReservationID(p.of), SubnetID: eni.SubnetID(aws.ToString(r.SubnetId)),
		CIDR: p.prefix(r.Cidr), Type: eni.ReservationType(r.ReservationType), Tags: tagsOf(r.Tags),
	}, p.err
}

func tagsOf(tags []types.Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}

// parser parses the addresses of one object and keeps the first error.
type parser struct {
	of  string
	err error
}

func (p *parser) addr(s *string) netip.Addr {
	return parse(p, s, netip.ParseAddr)
}

func (p *parser) prefix(s *string) netip.Prefix {
	return parse(p, s, netip.ParsePrefix)
}

func parse[T any](p *parser, s *string, as func(string) (T, error)) T {
	v, err := as(aws.ToString(s))
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("answer of EC2 about %s: %w", p.of, err)
	}
	return v
}
