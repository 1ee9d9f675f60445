// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// VPC is a virtual private cloud.
type VPC struct {
	ID        string
	IPv4      netip.Prefix
	IPv6      netip.Prefix // invalid without IPv6
	OwnerID   string
	IsDefault bool
	Tags      map[string]string
}

// Subnet is a subnet of a VPC, in one availability zone.
type Subnet struct {
	ID      string
	VPCID   string
	AZ      string       // "us-west-2a"
	IPv4    netip.Prefix // invalid on an IPv6-only subnet
	IPv6    netip.Prefix // invalid without IPv6
	OwnerID string
	Tags    map[string]string
}

// Types of a [Reservation].
const (
	ReservationExplicit = "explicit"
	ReservationPrefix   = "prefix"
)

// Reservation is a subnet CIDR reservation: a range that automatic assignment avoids.
// https://docs.aws.amazon.com/vpc/latest/userguide/subnet-cidr-reservation.html
type Reservation struct {
	ID          string
	SubnetID    string
	CIDR        netip.Prefix
	Type        string
	Description string
	OwnerID     string
	Tags        map[string]string
}

// States of an [Instance] that the lab knows; stopping takes no time here.
const (
	StatePending      = "pending" // in the answer of RunInstances, and for [Config.Boot] after it
	StateRunning      = "running"
	StateShuttingDown = "shutting-down" // only in the answer of TerminateInstances
	StateTerminated   = "terminated"
)

// Instance is an EC2 instance.
type Instance struct {
	ID            string
	ReservationID string // of the launch, "r-…"
	Type          string
	ImageID       string
	AZ            string
	VPCID         string // of its primary ENI
	SubnetID      string // of its primary ENI
	State         string
	LaunchIndex   int
	LaunchTime    time.Time
	RunsFrom      time.Time // until then it is shown as pending
	TerminatedAt  time.Time
	ClientToken   string
	OwnerID       string
	Metadata      MetadataOptions
	Tags          map[string]string
}

// at is the instance as it is shown at now.
func (i Instance) at(now time.Time) Instance {
	if i.State == StateRunning && now.Before(i.RunsFrom) {
		i.State = StatePending
	}
	return i
}

// Name is the instance's Name tag.
func (i Instance) Name() string { return i.Tags["Name"] }

// ENI is an elastic network interface.
type ENI struct {
	ID            string
	MAC           string
	VPCID         string
	SubnetID      string
	AZ            string
	OwnerID       string
	Description   string
	InterfaceType string // "interface", "efa", "efa-only"
	CreatedAt     time.Time

	Primary      netip.Addr // invalid on an IPv6-only subnet
	Secondary    []netip.Addr
	Prefixes     []netip.Prefix // delegated /28s
	IPv6         []netip.Addr
	IPv6Prefixes []netip.Prefix // delegated /80s

	// Groups are the IDs of its security groups, at least one.
	Groups          []string
	SourceDestCheck bool
	Attachment      *Attachment // nil when detached
	Tags            map[string]string
}

// Attachment is an ENI's place in an instance.
type Attachment struct {
	ID                  string // "eni-attach-…"
	InstanceID          string
	NetworkCard         int
	DeviceIndex         int
	DeleteOnTermination bool
	AttachTime          time.Time
}

// IsPrimary reports whether the ENI is an instance's primary one, which cannot be detached.
func (a *Attachment) IsPrimary() bool { return a != nil && a.DeviceIndex == 0 && a.NetworkCard == 0 }

// IPv4 returns the primary and the secondary addresses, the primary first.
func (e ENI) IPv4() []netip.Addr {
	if !e.Primary.IsValid() {
		return e.Secondary
	}
	return append([]netip.Addr{e.Primary}, e.Secondary...)
}

// Addresses returns every single address of the ENI, of both families, the primary first. Delegated prefixes are apart.
func (e ENI) Addresses() []netip.Addr { return append(slices.Clone(e.IPv4()), e.IPv6...) }

// AllPrefixes returns the delegated prefixes of both families.
func (e ENI) AllPrefixes() []netip.Prefix { return slices.Concat(e.Prefixes, e.IPv6Prefixes) }

// clone makes a copy whose parts can be changed without touching e.
func (e ENI) clone() ENI {
	e.Secondary = slices.Clone(e.Secondary)
	e.Prefixes = slices.Clone(e.Prefixes)
	e.IPv6 = slices.Clone(e.IPv6)
	e.IPv6Prefixes = slices.Clone(e.IPv6Prefixes)
	e.Groups = slices.Clone(e.Groups)
	e.Tags = maps.Clone(e.Tags)
	if e.Attachment != nil {
		a := *e.Attachment
		e.Attachment = &a
	}
	return e
}
