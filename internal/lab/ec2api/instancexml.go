// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

type launchXML struct {
	ReservationID string           `xml:"reservationId"`
	OwnerID       string           `xml:"ownerId"`
	Groups        set[groupXML]    `xml:"groupSet"`
	Instances     set[instanceXML] `xml:"instancesSet"`
}

// instanceXML is Instance, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Instance.html
type instanceXML struct {
	ID             string                    `xml:"instanceId"`
	ImageID        string                    `xml:"imageId"`
	State          stateXML                  `xml:"instanceState"`
	PrivateDNS     string                    `xml:"privateDnsName"`
	PublicDNS      string                    `xml:"dnsName"`
	LaunchIndex    int                       `xml:"amiLaunchIndex"`
	Type           string                    `xml:"instanceType"`
	LaunchTime     string                    `xml:"launchTime"`
	AZ             string                    `xml:"placement>availabilityZone"`
	Tenancy        string                    `xml:"placement>tenancy"`
	Monitoring     string                    `xml:"monitoring>state"`
	SubnetID       string                    `xml:"subnetId,omitempty"`
	VPCID          string                    `xml:"vpcId,omitempty"`
	PrivateIP      string                    `xml:"privateIpAddress,omitempty"`
	Groups         set[groupXML]             `xml:"groupSet"`
	Architecture   string                    `xml:"architecture"`
	Hypervisor     string                    `xml:"hypervisor"`
	Virtualization string                    `xml:"virtualizationType"`
	ENASupport     bool                      `xml:"enaSupport"`
	ClientToken    string                    `xml:"clientToken"`
	Tags           set[tagXML]               `xml:"tagSet"`
	Interfaces     set[instanceInterfaceXML] `xml:"networkInterfaceSet"`
	Metadata       metadataXML               `xml:"metadataOptions"`
}

// metadataXML is InstanceMetadataOptionsResponse. The lab's metadata service has version 2 only, at any number of hops,
// whatever stands here.
type metadataXML struct {
	State    string `xml:"state"`
	Tokens   string `xml:"httpTokens"`
	HopLimit int    `xml:"httpPutResponseHopLimit"`
	Endpoint string `xml:"httpEndpoint"`
}

// metadataOf fills in what EC2 takes where nothing is said. unverified: that it is this for every image.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html
func metadataOf(o vpc.MetadataOptions) metadataXML {
	return metadataXML{
		State: "applied", Tokens: cmp.Or(o.HTTPTokens, "optional"), HopLimit: cmp.Or(o.HopLimit, 1), Endpoint: cmp.Or(o.HTTPEndpoint, "enabled"),
	}
}

type stateXML struct {
	Code int    `xml:"code"`
	Name string `xml:"name"`
}

// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html
func stateOf(name string) stateXML {
	switch name {
	case vpc.StatePending:
		return stateXML{0, name}
	case vpc.StateRunning:
		return stateXML{16, name}
	case vpc.StateShuttingDown:
		return stateXML{32, name}
	}
	return stateXML{48, name}
}

// instanceInterfaceXML is InstanceNetworkInterface: an ENI as its instance shows it, without tags.
type instanceInterfaceXML struct {
	ID              string              `xml:"networkInterfaceId"`
	SubnetID        string              `xml:"subnetId"`
	VPCID           string              `xml:"vpcId"`
	Description     string              `xml:"description"`
	OwnerID         string              `xml:"ownerId"`
	Status          string              `xml:"status"`
	MAC             string              `xml:"macAddress"`
	PrivateIP       string              `xml:"privateIpAddress,omitempty"`
	PrivateDNS      string              `xml:"privateDnsName,omitempty"`
	SourceDestCheck bool                `xml:"sourceDestCheck"`
	Groups          set[groupXML]       `xml:"groupSet"`
	Attachment      attachmentXML       `xml:"attachment"`
	Addresses       set[privateIPXML]   `xml:"privateIpAddressesSet"`
	Prefixes        set[ipv4Prefix]     `xml:"ipv4PrefixSet"`
	IPv6            set[ipv6AddressXML] `xml:"ipv6AddressesSet"`
	IPv6Prefixes    set[ipv6Prefix]     `xml:"ipv6PrefixSet"`
	InterfaceType   string              `xml:"interfaceType"`
}

// instanceOf writes an instance with the ENIs that are attached to it, the primary one first.
func (c *call) instanceOf(i vpc.Instance, enis []vpc.ENI) instanceXML {
	x := instanceXML{
		ID: i.ID, ImageID: i.ImageID, State: stateOf(i.State), LaunchIndex: i.LaunchIndex, Type: i.Type,
		LaunchTime: timestamp(i.LaunchTime), AZ: i.AZ, Tenancy: "default", Monitoring: "disabled",
		Architecture: architecture(i.Type), Hypervisor: vpc.Xen, Virtualization: "hvm", // EC2 says xen for Nitro too
		ENASupport: true, ClientToken: i.ClientToken, Tags: tagSet(i.Tags),
		Interfaces: setOf(enis, c.instanceInterfaceOf), Metadata: metadataOf(i.Metadata),
	}
	// A terminated instance has no place in the network any more.
	if i.State == vpc.StateTerminated {
		return x
	}
	x.SubnetID, x.VPCID = i.SubnetID, i.VPCID
	if len(enis) > 0 && enis[0].Attachment.IsPrimary() {
		primary := c.interfaceOf(enis[0])
		x.PrivateIP, x.PrivateDNS, x.Groups = primary.PrivateIP, primary.PrivateDNS, primary.Groups
	}
	return x
}

func (c *call) instanceInterfaceOf(e vpc.ENI) instanceInterfaceXML {
	x := c.interfaceOf(e)
	a := *x.Attachment
	a.InstanceID, a.InstanceOwnerID = "", ""
	return instanceInterfaceXML{
		ID: x.ID, SubnetID: x.SubnetID, VPCID: x.VPCID, Description: x.Description, OwnerID: x.OwnerID, Status: x.Status,
		MAC: x.MAC, PrivateIP: x.PrivateIP, PrivateDNS: x.PrivateDNS, SourceDestCheck: x.SourceDestCheck, Groups: x.Groups,
		Attachment: a, Addresses: x.Addresses, Prefixes: x.Prefixes, IPv6: x.IPv6, IPv6Prefixes: x.IPv6Prefixes,
		InterfaceType: x.InterfaceType,
	}
}

// architecture is what the letters after the generation say: g stands for Graviton.
// https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-type-names.html
func architecture(instanceType string) string {
	family, _, _ := strings.Cut(instanceType, ".")
	if i := strings.IndexAny(family, "0123456789"); i >= 0 && strings.Contains(family[i:], "g") {
		return "arm64"
	}
	return "x86_64"
}

type instanceTypeXML struct {
	Name              string      `xml:"instanceType"`
	CurrentGeneration bool        `xml:"currentGeneration"`
	BareMetal         bool        `xml:"bareMetal"`
	Hypervisor        string      `xml:"hypervisor,omitempty"`
	Architectures     set[string] `xml:"processorInfo>supportedArchitectures"`
	Network           networkXML  `xml:"networkInfo"`
}

// networkXML is NetworkInfo, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_NetworkInfo.html
type networkXML struct {
	Interfaces  int          `xml:"maximumNetworkInterfaces"`
	Cards       int          `xml:"maximumNetworkCards"`
	DefaultCard int          `xml:"defaultNetworkCardIndex"`
	CardSet     set[cardXML] `xml:"networkCards"`
	IPv4        int          `xml:"ipv4AddressesPerInterface"`
	IPv6        int          `xml:"ipv6AddressesPerInterface"`
	IPv6OK      bool         `xml:"ipv6Supported"`
	ENA         string       `xml:"enaSupport"`
}

type cardXML struct {
	Index      int `xml:"networkCardIndex"`
	Interfaces int `xml:"maximumNetworkInterfaces"`
}

func instanceTypeOf(t vpc.InstanceType) instanceTypeXML {
	x := instanceTypeXML{
		Name: t.Name, CurrentGeneration: t.Hypervisor != vpc.Xen, BareMetal: t.Hypervisor == vpc.Metal, Hypervisor: t.Hypervisor,
		Architectures: set[string]{[]string{architecture(t.Name)}},
		Network: networkXML{
			Interfaces: t.Interfaces(), Cards: t.NetworkCards, IPv4: t.IPv4PerInterface, IPv6: t.IPv6PerInterface(),
			IPv6OK: true, ENA: "required",
		},
	}
	for i := range t.NetworkCards {
		x.Network.CardSet.Items = append(x.Network.CardSet.Items, cardXML{i, t.InterfacesPerCard})
	}
	return x
}

// primaryOf is the primary IPv4 address of the instance, as a filter value.
func primaryOf(enis []vpc.ENI) []string {
	var primary netip.Addr
	if len(enis) > 0 {
		primary = enis[0].Primary
	}
	return optional(primary)
}
