// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import "net/netip"

// AddressRequest is how CreateNetworkInterface and RunInstances say which addresses an ENI shall have. Counts of zero
// are not given.
type AddressRequest struct {
	Primary         netip.Addr // EC2 chooses when invalid
	Secondary       []netip.Addr
	SecondaryCount  int
	Prefixes        []netip.Prefix
	PrefixCount     int
	IPv6            []netip.Addr
	IPv6Count       int
	IPv6Prefixes    []netip.Prefix
	IPv6PrefixCount int
}

// AssignPrivateIPAddressesInput names an ENI and exactly one kind of what to assign.
type AssignPrivateIPAddressesInput struct {
	NetworkInterfaceID string
	AllowReassignment  bool
	Addresses          []netip.Addr
	Count              int
	Prefixes           []netip.Prefix
	PrefixCount        int
}

// AssignIPv6AddressesInput names an ENI and exactly one kind of what to assign.
type AssignIPv6AddressesInput struct {
	NetworkInterfaceID string
	Addresses          []netip.Addr
	Count              int
	Prefixes           []netip.Prefix
	PrefixCount        int
}

// Assigned is what an ENI got or gave back by one call.
type Assigned struct {
	NetworkInterfaceID string
	Addresses          []netip.Addr
	Prefixes           []netip.Prefix
}

// UnassignInput names what an ENI shall give back, for both families.
type UnassignInput struct {
	NetworkInterfaceID string
	Addresses          []netip.Addr
	Prefixes           []netip.Prefix
}

// CreateNetworkInterfaceInput describes an ENI to be.
type CreateNetworkInterfaceInput struct {
	SubnetID      string
	Description   string
	InterfaceType string // default "interface"
	Groups        []string
	Tags          map[string]string
	ClientToken   string
	AddressRequest
}

// AttachNetworkInterfaceInput says where to attach an ENI. NetworkCardIndex nil is not given.
type AttachNetworkInterfaceInput struct {
	NetworkInterfaceID string
	InstanceID         string
	DeviceIndex        int
	NetworkCardIndex   *int
}

// ModifyNetworkInterfaceAttributeInput sets one attribute of an ENI; nil is not given.
type ModifyNetworkInterfaceAttributeInput struct {
	NetworkInterfaceID  string
	Description         *string
	SourceDestCheck     *bool
	Groups              []string
	AttachmentID        string
	DeleteOnTermination *bool // with AttachmentID
}

// RunInstancesInput describes a launch.
type RunInstancesInput struct {
	ImageID       string
	InstanceType  string
	MinCount      int
	MaxCount      int
	AZ            string
	SubnetID      string
	Groups        []string
	Interfaces    []InterfaceSpec // instead of SubnetID, Groups and AddressRequest
	Tags          map[string]string
	InterfaceTags map[string]string
	Metadata      MetadataOptions
	ClientToken   string
	AddressRequest
}

// InterfaceSpec is one ENI of a launch: an existing one, or one to be created.
type InterfaceSpec struct {
	NetworkInterfaceID  string
	NetworkCardIndex    int
	DeviceIndex         int
	SubnetID            string
	Description         string
	InterfaceType       string
	Groups              []string
	DeleteOnTermination *bool // default true for a created ENI, false for an existing one
	Tags                map[string]string
	AddressRequest
}

// StateChange is an instance's state before and after TerminateInstances.
type StateChange struct{ InstanceID, Previous, Current string }

// CreateSubnetCIDRReservationInput describes a reservation.
type CreateSubnetCIDRReservationInput struct {
	SubnetID    string
	CIDR        netip.Prefix
	Type        string
	Description string
	Tags        map[string]string
}

// TagSelector chooses a tag to delete: by key, and by value too when Value is not nil.
type TagSelector struct {
	Key   string
	Value *string
}
