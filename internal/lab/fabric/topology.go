// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Topology is what the kernel shall look like: a pure value, which the caller derives from the VPC's state each time
// that it changes. The zero Topology is an empty VPC.
type Topology struct {
	// VPCCIDRs are the VPC's own blocks. An address in them that no ENI holds is unreachable.
	VPCCIDRs []netip.Prefix
	Subnets  []Subnet
	Workers  []Worker
	// ENIs that are attached to a worker. A detached one has no link and routes to it lead nowhere.
	ENIs []ENI
	// Routes says which ENI holds an address: primary, secondary or IPv6. Those of ENIs that are not in ENIs are
	// left out.
	Routes map[netip.Addr]string
	// RoutePrefixes says which ENI a delegated /28 or /80 prefix belongs to.
	RoutePrefixes map[netip.Prefix]string
}

// Subnet is a subnet of the VPC. A prefix that it does not have is left at its zero value.
type Subnet struct {
	Name       string
	IPv4, IPv6 netip.Prefix
}

// Worker is an instance: a network namespace, see [Fabric.Netns].
type Worker struct {
	Name string
	// Local are addresses on the worker's loopback link, for services that the lab runs inside its namespace (the
	// instance metadata). They are set when the worker is made.
	Local []netip.Addr
}

// ENI is an attached network interface: a link in its worker's namespace.
type ENI struct {
	ID     string
	Worker string // name of the worker
	Subnet string // name of the subnet
	MAC    string
	// LinkName in the worker's namespace; by default eth<DeviceIndex>, and eth<NetworkCard>c<DeviceIndex> on the other
	// cards.
	LinkName                 string
	NetworkCard, DeviceIndex int
	// Primary IPv4 address and the ENI's IPv6 addresses: what the operating system configures on the link if it does
	// at all. A change of IPv6 shows on links that are made after it only, as an instance sees it after a DHCP renewal.
	Primary netip.Addr
	IPv6    []netip.Addr
	// Early says that the ENI was there at boot: its link is up, with the host's addresses and a route table of its
	// own. A link that is not is down and bare, as Amazon Linux 2023 leaves it on EKS
	// (https://github.com/awslabs/amazon-eks-ami/issues/2180). The primary ENI always counts as early.
	Early bool
}

// isPrimary reports whether the ENI is the worker's first, which carries its default route.
func (e ENI) isPrimary() bool { return e.NetworkCard == 0 && e.DeviceIndex == 0 }

// linkName is LinkName with its default.
func (e ENI) linkName() string {
	switch {
	case e.LinkName != "":
		return e.LinkName
	case e.NetworkCard != 0:
		return fmt.Sprintf("eth%dc%d", e.NetworkCard, e.DeviceIndex)
	}
	return fmt.Sprintf("eth%d", e.DeviceIndex)
}

// maxLinkName is IFNAMSIZ − 1.
const maxLinkName = 15

// Validate reports every contradiction in the topology at once.
func (t Topology) Validate() error {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	subnets := map[string]bool{}
	for _, s := range t.Subnets {
		if subnets[s.Name] {
			report("subnet %s: named twice", s.Name)
		}
		subnets[s.Name] = true
	}
	workers := map[string]bool{}
	for _, w := range t.Workers {
		switch {
		case w.Name == "" || w.Name == vpcName || strings.ContainsAny(w.Name, "/ "):
			report("worker %q: not usable as the name of a namespace", w.Name)
		case workers[w.Name]:
			report("worker %s: named twice", w.Name)
		}
		workers[w.Name] = true
	}
	links, macs, ids := map[string]string{}, map[string]string{}, map[string]string{}
	unique := func(seen map[string]string, what, key string, e ENI) {
		if other, ok := seen[key]; ok {
			report("ENI %s: %s as ENI %s has", e.ID, what, other)
		}
		seen[key] = e.ID
	}
	for _, e := range t.ENIs {
		if !workers[e.Worker] {
			report("ENI %s: unknown worker %q", e.ID, e.Worker)
		}
		if !subnets[e.Subnet] {
			report("ENI %s: unknown subnet %q", e.ID, e.Subnet)
		}
		if mac, err := net.ParseMAC(e.MAC); err != nil || len(mac) != 6 {
			report("ENI %s: MAC %q", e.ID, e.MAC)
		}
		if n := e.linkName(); len(n) > maxLinkName || strings.ContainsAny(n, "/ ") {
			report("ENI %s: link name %q", e.ID, n)
		}
		unique(ids, "same fabric link name", fabricEnd(e.ID), e)
		unique(macs, "same MAC", strings.ToLower(e.MAC), e)
		unique(links, "same link name on "+e.Worker, e.Worker+"/"+e.linkName(), e)
	}
	return errors.Join(errs...)
}
