// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package eni

import (
	"net/netip"
	"slices"
	"time"
)

// GroupID is the ID of a security group, "sg-…".
type GroupID string

// AttachmentID is the ID of an ENI's attachment to an instance, "eni-attach-…".
type AttachmentID string

// VPCID is the ID of a VPC, "vpc-…".
type VPCID string

// Types of an ENI that the suite tells apart. One of type efa-only has no IP addresses.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa.html
const (
	TypeInterface = "interface"
	TypeEFAOnly   = "efa-only"
)

// Statuses of a [Device] and of its attachment.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_NetworkInterface.html
const (
	StatusAvailable = "available"
	StatusDetaching = "detaching"
)

// Device is an ENI with what creating, attaching and deleting it needs to know, which a pool does not. What EC2 says of an
// instance's ENIs lacks their tags.
type Device struct {
	Interface
	Type                string // [TypeInterface], [TypeEFAOnly], …
	Status              string // [StatusAvailable], "in-use", …
	Attachment          AttachmentID
	AttachmentStatus    string // "attaching", "attached", [StatusDetaching]; empty when not attached
	AttachedAt          time.Time
	DeleteOnTermination bool
	SourceDestCheck     bool
	Groups              []GroupID
}

// Attached reports whether the ENI has an attachment, be it one that is under way in either direction.
func (d Device) Attached() bool { return d.Attachment != "" }

// NewDevice describes an ENI to be.
type NewDevice struct {
	Subnet      SubnetID
	Description string
	Groups      []GroupID // the VPC's default group when empty
	Tags        map[string]string
	Primary     netip.Addr   // EC2 chooses when invalid
	Secondary   []netip.Addr // IPv4
	IPv6Count   int          // EC2 chooses them
	// Token makes EC2 create one ENI for all calls that carry it; a call that differs otherwise is an [ErrTokenUsed].
	// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
	Token string
}

// Worker is an EC2 instance with the ENIs that are attached to it.
type Worker struct {
	Instance
	VPC     VPCID
	State   string // "pending", "running", …
	Tags    map[string]string
	Devices []Device // without tags
}

// Gone reports whether the instance ends or has ended: nothing can be attached to it any more.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
func (w Worker) Gone() bool { return w.State == "shutting-down" || w.State == "terminated" }

// Booting reports whether the instance is not running yet: until then nothing can be attached to it.
func (w Worker) Booting() bool { return w.State == "pending" }

// Primary is the instance's primary ENI.
func (w Worker) Primary() (Device, bool) {
	i := slices.IndexFunc(w.Devices, func(d Device) bool { return d.IsPrimary() })
	if i < 0 {
		return Device{}, false
	}
	return w.Devices[i], true
}

// Group is a security group.
type Group struct {
	ID  GroupID
	VPC VPCID
}

// Layout is an instance type's limits with those of each network card.
type Layout struct {
	Limits
	Cards []Card // by index; at least card 0
}

// Card is one network card of an instance type.
type Card struct {
	Interfaces int // MaximumNetworkInterfaces of the card
	// Types of ENI that it takes; empty when EC2 does not say.
	Types []string
}

// EFAOnly reports whether the card takes nothing that could have an address.
func (c Card) EFAOnly() bool {
	return len(c.Types) > 0 && !slices.Contains(c.Types, TypeInterface) && !slices.Contains(c.Types, "efa")
}
