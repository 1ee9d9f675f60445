// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// timeFormat is EC2's.
const timeFormat = "2006-01-02T15:04:05.000Z"

func timestamp(t time.Time) string { return t.UTC().Format(timeFormat) }

// interfaceXML is NetworkInterface, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_NetworkInterface.html
type interfaceXML struct {
	ID               string              `xml:"networkInterfaceId"`
	SubnetID         string              `xml:"subnetId"`
	VPCID            string              `xml:"vpcId"`
	AZ               string              `xml:"availabilityZone"`
	AZID             string              `xml:"availabilityZoneId"`
	Description      string              `xml:"description"`
	OwnerID          string              `xml:"ownerId"`
	RequesterManaged bool                `xml:"requesterManaged"`
	Status           string              `xml:"status"`
	MAC              string              `xml:"macAddress"`
	PrivateIP        string              `xml:"privateIpAddress,omitempty"`
	PrivateDNS       string              `xml:"privateDnsName,omitempty"`
	SourceDestCheck  bool                `xml:"sourceDestCheck"`
	Groups           set[groupXML]       `xml:"groupSet"`
	Attachment       *attachmentXML      `xml:"attachment"`
	Tags             set[tagXML]         `xml:"tagSet"`
	Addresses        set[privateIPXML]   `xml:"privateIpAddressesSet"`
	Prefixes         set[ipv4Prefix]     `xml:"ipv4PrefixSet"`
	IPv6             set[ipv6AddressXML] `xml:"ipv6AddressesSet"`
	IPv6Prefixes     set[ipv6Prefix]     `xml:"ipv6PrefixSet"`
	InterfaceType    string              `xml:"interfaceType"`
}

type groupXML struct {
	ID   string `xml:"groupId"`
	Name string `xml:"groupName"`
}

type privateIPXML struct {
	Address netip.Addr `xml:"privateIpAddress"`
	DNS     string     `xml:"privateDnsName"`
	Primary bool       `xml:"primary"`
}

type ipv6AddressXML struct {
	Address   netip.Addr `xml:"ipv6Address"`
	IsPrimary bool       `xml:"isPrimaryIpv6"`
}

// attachmentXML is an ENI's attachment as the ENI shows it, and, without the instance, as the instance does.
type attachmentXML struct {
	ID                  string `xml:"attachmentId"`
	InstanceID          string `xml:"instanceId,omitempty"`
	InstanceOwnerID     string `xml:"instanceOwnerId,omitempty"`
	DeviceIndex         int    `xml:"deviceIndex"`
	NetworkCardIndex    int    `xml:"networkCardIndex"`
	Status              string `xml:"status"`
	AttachTime          string `xml:"attachTime"`
	DeleteOnTermination bool   `xml:"deleteOnTermination"`
}

// Statuses of an ENI and of its attachment: attaching and detaching take no time in the lab.
const (
	statusAvailable = "available"
	statusInUse     = "in-use"
	statusAttached  = "attached"
)

func eniStatus(e vpc.ENI) string {
	if e.Attachment == nil {
		return statusAvailable
	}
	return statusInUse
}

// interfaceOf writes an ENI as DescribeNetworkInterfaces does.
func (c *call) interfaceOf(e vpc.ENI) interfaceXML {
	x := interfaceXML{
		ID: e.ID, SubnetID: e.SubnetID, VPCID: e.VPCID, AZ: e.AZ, AZID: vpc.ZoneID(e.AZ), Description: e.Description,
		OwnerID: e.OwnerID, Status: eniStatus(e), MAC: e.MAC, SourceDestCheck: e.SourceDestCheck,
		InterfaceType: e.InterfaceType, Tags: tagSet(e.Tags),
		Groups:       setOf(e.Groups, func(id string) groupXML { return groupXML{ID: id, Name: groupName(e, id)} }),
		Addresses:    setOf(e.IPv4(), func(a netip.Addr) privateIPXML { return privateIPXML{a, c.dnsName(a), a == e.Primary} }),
		Prefixes:     setOf(e.Prefixes, func(p netip.Prefix) ipv4Prefix { return ipv4Prefix{p} }),
		IPv6:         setOf(e.IPv6, func(a netip.Addr) ipv6AddressXML { return ipv6AddressXML{Address: a} }),
		IPv6Prefixes: setOf(e.IPv6Prefixes, func(p netip.Prefix) ipv6Prefix { return ipv6Prefix{p} }),
	}
	if e.Primary.IsValid() {
		x.PrivateIP, x.PrivateDNS = e.Primary.String(), c.dnsName(e.Primary)
	}
	if a := e.Attachment; a != nil {
		x.Attachment = &attachmentXML{
			ID: a.ID, InstanceID: a.InstanceID, InstanceOwnerID: e.OwnerID, DeviceIndex: a.DeviceIndex,
			NetworkCardIndex: a.NetworkCard, Status: statusAttached, AttachTime: timestamp(a.AttachTime),
			DeleteOnTermination: a.DeleteOnTermination,
		}
	}
	return x
}

// groupName is "default" for the VPC's own group; the lab does not know the names of others.
func groupName(e vpc.ENI, id string) string {
	if strings.TrimPrefix(id, "sg-") == strings.TrimPrefix(e.VPCID, "vpc-") {
		return "default"
	}
	return id
}

// dnsName is the IP-based name of an address.
// https://docs.aws.amazon.com/vpc/latest/userguide/vpc-dns.html
func (c *call) dnsName(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	host := "ip-" + strings.ReplaceAll(a.String(), ".", "-")
	if c.cloud.Region() == "us-east-1" {
		return host + ".ec2.internal"
	}
	return fmt.Sprintf("%s.%s.compute.internal", host, c.cloud.Region())
}
