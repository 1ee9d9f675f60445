// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package attachment

import (
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// KindIPVlan is the only [Interface.Kind] whose addresses a VPC can route: the children send with the ENI's own MAC, and the VPC
// drops every other.
const KindIPVlan = "ipvlan"

// Interface is one of a pod's interfaces, as its network namespace shows it.
type Interface struct {
	Name  string  `json:"name"`
	Index int     `json:"index"`
	Kind  string  `json:"kind,omitempty"` // "ipvlan", "macvlan", "veth" …, as in IFLA_INFO_KIND; empty for a device
	MAC   eni.MAC `json:"mac"`            // that of an ipvlan child is its parent's, and so the ENI's
	// Addresses of global scope, as they are configured: any prefix length.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// Change is an address that appeared on an interface of a pod, or went. The zero Change says that there may have been others.
type Change struct {
	Index int          // of the interface
	Addr  netip.Prefix // as it is configured
	Gone  bool
}
