// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

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

// CNI is the address in a result; index is that of its interface, nil in an IPAM result.
func (a Address) CNI(index *int) *types100.IPConfig {
	c := &types100.IPConfig{Address: ipNet(a.Prefix), Interface: index}
	if a.Gateway.IsValid() {
		c.Gateway = a.Gateway.AsSlice()
	}
	return c
}

// FromCNI reads an address of a result.
func FromCNI(c *types100.IPConfig) (Address, error) {
	p, err := prefix(c.Address)
	if err != nil {
		return Address{}, err
	}
	a := Address{Prefix: p}
	if gw, ok := netip.AddrFromSlice(c.Gateway); ok {
		a.Gateway = gw.Unmap()
	}
	return a, nil
}

// CNIRoutes are routes in a result.
func CNIRoutes(routes []netconf.Route) []*types.Route {
	var list []*types.Route
	for _, r := range routes {
		c := &types.Route{Dst: ipNet(r.Dst), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope}
		if r.Gateway.IsValid() {
			c.GW = r.Gateway.AsSlice()
		}
		list = append(list, c)
	}
	return list
}

// RoutesFromCNI reads the routes of a result.
func RoutesFromCNI(list []*types.Route) ([]netconf.Route, error) {
	var routes []netconf.Route
	for _, c := range list {
		dst, err := prefix(c.Dst)
		if err != nil {
			return nil, err
		}
		r := netconf.Route{Dst: dst.Masked(), MTU: c.MTU, AdvMSS: c.AdvMSS, Priority: c.Priority, Table: c.Table, Scope: c.Scope}
		if gw, ok := netip.AddrFromSlice(c.GW); ok {
			r.Gateway = gw.Unmap()
		}
		routes = append(routes, r)
	}
	return routes, nil
}

// Print writes the result in the version that the configuration asks for.
func Print(r *types100.Result, cniVersion string, stdout io.Writer) error {
	as, err := r.GetAsVersion(cniVersion)
	if err != nil {
		return err
	}
	return as.PrintTo(stdout)
}

func prefixes(list []Address) []netip.Prefix {
	p := make([]netip.Prefix, len(list))
	for i, a := range list {
		p[i] = a.Prefix
	}
	return p
}

func prefix(n net.IPNet) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("result has an invalid address %s", n.String())
	}
	return netip.PrefixFrom(a.Unmap(), ones), nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
