// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Network returns the providers of what the lab's VPC has: the VPC itself, security groups, subnets and their CIDR reservations.
func Network(cloud *vpc.Cloud) map[string]Provider {
	return map[string]Provider{
		"AWS::EC2::VPC":                   vpcProvider{cloud},
		"AWS::EC2::VPCCidrBlock":          blockProvider{cloud},
		"AWS::EC2::SecurityGroup":         groupProvider{cloud},
		"AWS::EC2::Subnet":                subnetProvider{cloud},
		"AWS::EC2::SubnetCidrReservation": reservationProvider{cloud},
	}
}

// gone turns the error of what is not there (any more) into nil.
func gone(err error) error {
	if failure, ok := errors.AsType[*vpc.APIError](err); ok && strings.HasSuffix(failure.Code, ".NotFound") {
		return nil
	}
	return err
}

type vpcProvider struct{ cloud *vpc.Cloud }

func (p vpcProvider) Create(_ context.Context, r Request) (Physical, error) {
	r.Properties.Ignore("EnableDnsHostnames", "EnableDnsSupport")
	setup := vpc.VPCSetup{IPv4: r.Properties.Prefix("CidrBlock"), Tags: r.Properties.Tags("Tags")}
	if err := r.Properties.Err(); err != nil {
		return Physical{}, err
	}
	v, err := p.cloud.AddVPC(time.Now(), setup)
	return Physical{Ref: v.ID, Attributes: map[string]string{"VpcId": v.ID, "CidrBlock": v.IPv4.String()}}, err
}

// List implements [Lister]: an IPv6 block is associated later.
func (p vpcProvider) List(v Physical, attribute string) ([]string, bool) {
	found, ok := p.cloud.View(time.Now()).VPC(v.Ref)
	return valid(found.IPv6), ok && attribute == "Ipv6CidrBlocks"
}

func valid(block netip.Prefix) []string {
	if !block.IsValid() {
		return nil
	}
	return []string{block.String()}
}

func (p vpcProvider) Delete(_ context.Context, _ Request, v Physical) error {
	return gone(p.cloud.RemoveVPC(time.Now(), v.Ref))
}

// blockProvider gives a VPC its IPv6 block of Amazon's.
type blockProvider struct{ cloud *vpc.Cloud }

func (p blockProvider) Create(_ context.Context, r Request) (Physical, error) {
	if !r.Properties.Bool("AmazonProvidedIpv6CidrBlock", false) {
		r.Properties.addf("AmazonProvidedIpv6CidrBlock", "the lab has no other blocks")
	}
	id := r.Properties.Required("VpcId")
	if err := r.Properties.Err(); err != nil {
		return Physical{}, err
	}
	block, err := p.cloud.AssociateIPv6(time.Now(), id)
	return Physical{Ref: id, Attributes: map[string]string{"Ipv6CidrBlock": block.String()}}, err
}

func (p blockProvider) Delete(_ context.Context, _ Request, v Physical) error {
	return gone(p.cloud.DisassociateIPv6(time.Now(), v.Ref))
}

type groupProvider struct{ cloud *vpc.Cloud }

func (p groupProvider) Create(_ context.Context, r Request) (Physical, error) {
	r.Properties.Ignore("SecurityGroupEgress", "SecurityGroupIngress")
	setup := vpc.SecurityGroupSetup{
		VPCID: r.Properties.Required("VpcId"), Description: r.Properties.Required("GroupDescription"), Tags: r.Properties.Tags("Tags"),
	}
	if err := r.Properties.Err(); err != nil {
		return Physical{}, err
	}
	g, err := p.cloud.AddSecurityGroup(time.Now(), setup)
	return Physical{Ref: g.ID, Attributes: map[string]string{"GroupId": g.ID, "VpcId": g.VPCID}}, err
}

func (p groupProvider) Delete(_ context.Context, _ Request, g Physical) error {
	return gone(p.cloud.RemoveSecurityGroup(time.Now(), g.Ref))
}

type subnetProvider struct{ cloud *vpc.Cloud }

func (p subnetProvider) Create(_ context.Context, r Request) (Physical, error) {
	r.Properties.Ignore("MapPublicIpOnLaunch")
	setup := vpc.SubnetSetup{
		VPCID: r.Properties.Required("VpcId"), AZ: r.Properties.Required("AvailabilityZone"),
		IPv4: r.Properties.Prefix("CidrBlock"), Tags: r.Properties.Tags("Tags"),
	}
	if r.Properties.Has("Ipv6CidrBlock") {
		setup.IPv6 = r.Properties.Prefix("Ipv6CidrBlock")
	}
	if err := r.Properties.Err(); err != nil {
		return Physical{}, err
	}
	s, err := p.cloud.AddSubnet(time.Now(), setup)
	return Physical{
		Ref:        s.ID,
		Attributes: map[string]string{"SubnetId": s.ID, "AvailabilityZone": s.AZ, "CidrBlock": s.IPv4.String(), "VpcId": s.VPCID},
	}, err
}

// List implements [Lister].
func (p subnetProvider) List(s Physical, attribute string) ([]string, bool) {
	found, ok := p.cloud.View(time.Now()).Subnet(s.Ref)
	return valid(found.IPv6), ok && attribute == "Ipv6CidrBlocks"
}

func (p subnetProvider) Delete(_ context.Context, _ Request, s Physical) error {
	return gone(p.cloud.RemoveSubnet(time.Now(), s.Ref))
}

type reservationProvider struct{ cloud *vpc.Cloud }

func (p reservationProvider) Create(_ context.Context, r Request) (Physical, error) {
	in := vpc.CreateSubnetCIDRReservationInput{
		SubnetID: r.Properties.Required("SubnetId"), CIDR: r.Properties.Prefix("Cidr"), Type: r.Properties.Required("ReservationType"),
		Description: r.Properties.String("Description"), Tags: r.Properties.Tags("Tags"),
	}
	if err := r.Properties.Err(); err != nil {
		return Physical{}, err
	}
	out, err := p.cloud.CreateSubnetCIDRReservation(time.Now(), in)
	// The primary identifier is SubnetId|SubnetCidrReservationId, and Ref returns that:
	// https://docs.aws.amazon.com/cloudcontrolapi/latest/userguide/resource-identifier.html
	return Physical{Ref: out.SubnetID + "|" + out.ID, Attributes: map[string]string{"SubnetCidrReservationId": out.ID}}, err
}

func (p reservationProvider) Delete(_ context.Context, _ Request, made Physical) error {
	_, err := p.cloud.DeleteSubnetCIDRReservation(time.Now(), made.Attributes["SubnetCidrReservationId"])
	return gone(err)
}
