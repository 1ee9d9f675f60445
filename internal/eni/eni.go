// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package eni holds the words of the VPC: elastic network interfaces (ENIs), subnets, reservations, limits, and the
// rules that need nothing but those values. Every other package speaks in them. It does no IO, reads no clock and
// knows no wire format.
package eni

import (
	"net/netip"
	"slices"
	"strings"
)

// ID is the ID of a network interface, "eni-…".
type ID string

// SubnetID is the ID of a subnet, "subnet-…".
type SubnetID string

// InstanceID is the ID of an EC2 instance, "i-…".
type InstanceID string

// ReservationID is the ID of a subnet CIDR reservation, "scr-…".
type ReservationID string

// Interface is one ENI as a source (EC2 or the instance metadata) last showed it. A source that does not know a field
// leaves it at its zero value: the instance metadata knows no tags.
type Interface struct {
	ID          ID
	MAC         MAC
	InstanceID  InstanceID // empty when not attached
	NetworkCard int        // NetworkCardIndex; 0 when the instance type has one card
	DeviceIndex int        // of the attachment; 0 on card 0 is the primary ENI
	SubnetID    SubnetID
	Primary     netip.Addr     // the primary IPv4 address; invalid on an IPv6-only ENI
	Secondary   []netip.Addr   // secondary IPv4 addresses, without the primary
	Prefixes    []netip.Prefix // delegated /28 and /80 prefixes
	IPv6        []netip.Addr
	Tags        map[string]string
}

// IsPrimary reports whether the ENI is the instance's primary one, which no pool manages.
func (i Interface) IsPrimary() bool { return i.DeviceIndex == 0 && i.NetworkCard == 0 }

// Holds reports whether the ENI holds addr as its primary, a secondary or an IPv6 address.
func (i Interface) Holds(addr netip.Addr) bool {
	return i.Primary == addr || slices.Contains(i.Secondary, addr) || slices.Contains(i.IPv6, addr)
}

// Subnet is a VPC subnet.
type Subnet struct {
	ID   SubnetID
	VPC  VPCID
	AZ   string // availability zone name, "us-west-2a"
	IPv4 netip.Prefix
	IPv6 []netip.Prefix
	// Available is how many IPv4 addresses are not in use, those inside of reservations included.
	Available int
	Tags      map[string]string
}

// ReservationType is how EC2 uses a reservation: "explicit" addresses are assigned only when named, "prefix" is where
// EC2 takes delegated prefixes from.
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-cidr-reservation.html
type ReservationType string

// The two reservation types of the EC2 API.
const (
	Explicit ReservationType = "explicit"
	Prefix   ReservationType = "prefix"
)

// Tag keys that the suite reads or writes.
const (
	// TagRole on a reservation says what it is for: [RolePool] or [RoleStatic].
	TagRole = "multus-vpc.io/role"
	// TagNoManage on an ENI keeps the Amazon VPC CNI off it and makes it ours to manage when its value is "true".
	// https://github.com/aws/amazon-vpc-cni-k8s#eni-tags-related-to-allocation
	TagNoManage = "node.k8s.amazonaws.com/no_manage"
)

// Tags that say whose cluster an ENI is: the Amazon VPC CNI sets the first, and the name of a cluster ends the second.
// https://github.com/aws/amazon-vpc-cni-k8s#cluster_name,
// https://docs.aws.amazon.com/eks/latest/userguide/network-reqs.html
const (
	tagClusterName  = "cluster.k8s.amazonaws.com/name"
	tagClusterOwned = "kubernetes.io/cluster/"
)

// SameCluster reports whether another ENI's tags say that it is of the cluster that our ENI's tags name. Where ours name
// none, every other is.
func SameCluster(ours, other map[string]string) bool {
	mine, theirs := clusters(ours), clusters(other)
	return len(mine) == 0 || slices.ContainsFunc(mine, func(c string) bool { return slices.Contains(theirs, c) })
}

// OfCluster reports whether an ENI's tags name the cluster.
func OfCluster(tags map[string]string, name string) bool {
	return slices.Contains(clusters(tags), name)
}

func clusters(tags map[string]string) []string {
	var names []string
	for k, v := range tags {
		if k == tagClusterName {
			names = append(names, v)
		} else if name, ok := strings.CutPrefix(k, tagClusterOwned); ok {
			names = append(names, name)
		}
	}
	return names
}

// Values of [TagRole].
const (
	RolePool   = "pool"   // feeds every pool ENI of its subnet, without waiting for a first pod
	RoleStatic = "static" // never feeds stock: sticky, floating and other IPAMs' addresses live there
)

// Reservation is a subnet CIDR reservation.
type Reservation struct {
	ID       ReservationID
	SubnetID SubnetID
	CIDR     netip.Prefix
	Type     ReservationType
	Tags     map[string]string
}

// Role is the value of [TagRole], "" without one.
func (r Reservation) Role() string { return r.Tags[TagRole] }

// Limits are an instance type's, from DescribeInstanceTypes NetworkInfo.
type Limits struct {
	Interfaces       int // MaximumNetworkInterfaces, over all cards
	IPv4PerInterface int // Ipv4AddressesPerInterface, the primary included
	IPv6PerInterface int
}

// SecondarySlots is how many secondary IPv4 addresses (or /28 prefixes) one ENI can hold.
func (l Limits) SecondarySlots() int { return max(0, l.IPv4PerInterface-1) }

// Instance is the worker that the agent runs on.
type Instance struct {
	ID     InstanceID
	Type   string // "m5.2xlarge"
	AZ     string
	Region string
}

// MAC is a hardware address in the form that EC2, the metadata and Linux all print: lower case, colons.
type MAC string

// ParseMAC brings s into the canonical form. It does not check that s is a MAC.
func ParseMAC(s string) MAC { return MAC(strings.ToLower(strings.TrimSuffix(s, "/"))) }

// Gateway is the subnet's router: base + 1 for IPv4, fe80:ec2::1 for IPv6.
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html and
// https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Route_Tables.html ("fe80:ec2::1")
func Gateway(subnet netip.Prefix) netip.Addr {
	if subnet.Addr().Is4() {
		return subnet.Masked().Addr().Next()
	}
	return routerIPv6
}

var routerIPv6 = netip.MustParseAddr("fe80:ec2::1")

// ReservedByVPC reports whether the VPC keeps addr for itself: the first four addresses and the last of each subnet,
// which cannot be assigned even inside a reservation.
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html#subnet-sizing-ipv4
func ReservedByVPC(subnet netip.Prefix, addr netip.Addr) bool {
	if !subnet.Contains(addr) {
		return false
	}
	a := subnet.Masked().Addr()
	for range 4 {
		if a == addr {
			return true
		}
		a = a.Next()
	}
	return addr == LastAddr(subnet)
}

// LastAddr is the highest address of p.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
