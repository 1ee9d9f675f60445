// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// FirstInterface is the name of a pod's first interface in Kubernetes, which holds the default route when nothing else
// is said.
const FirstInterface = "eth0"

// Address is an address of an interface and its gateway.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // may be invalid
}

// Addresses gives the agent's addresses their gateways: the configured one of the family, or the subnet's router.
func Addresses(reply agentapi.AddReply, configured []netip.Addr) []Address {
	list := make([]Address, len(reply.Addresses))
	for i, p := range reply.Addresses {
		list[i] = Address{Prefix: p, Gateway: eni.Gateway(p)}
		for _, gateway := range configured {
			if gateway.BitLen() == p.Addr().BitLen() {
				list[i].Gateway = gateway
			}
		}
	}
	return list
}

// Routes are the configured ones of the families that the interface has; when nothing was said, a default route by each family's gateway if the interface may
// have it. vpcipvlan sees the pod's routes and takes the default route whenever nobody has it; an IPAM plugin does not
// see them, and interface plugins fail on a second default route, so vpcipam goes by [FirstInterface].
func Routes(configured []netconf.Route, mayBeDefault bool, addresses []Address) []netconf.Route {
	if configured != nil {
		return slices.DeleteFunc(slices.Clone(configured), func(r netconf.Route) bool {
			return !slices.ContainsFunc(addresses, func(a Address) bool { return a.Prefix.Addr().BitLen() == r.Dst.Addr().BitLen() })
		})
	}
	if !mayBeDefault {
		return nil
	}
	var routes []netconf.Route
	for _, a := range addresses {
		everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if a.Prefix.Addr().Is6() {
			everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		routes = append(routes, netconf.Route{Dst: everything, Gateway: a.Gateway})
	}
	return routes
}

func prefixes(list []Address) []netip.Prefix {
	p := make([]netip.Prefix, len(list))
	for i, a := range list {
		p[i] = a.Prefix
	}
	return p
}
