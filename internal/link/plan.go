// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// tableBase plus the interface's index is the number of its routing table and the priority of its rules: away from the
// Amazon VPC CNI's tables and rules, and in front of the main table's rule at 32766.
const tableBase = 5000

// route is a route with everything decided.
type route struct {
	netconf.Route
	index int // of the link that it goes by
	table int
	src   netip.Addr // preferred source; may be invalid
}

func (r route) String() string {
	s := r.Dst.String()
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	return fmt.Sprintf("%s by link %d in table %d", s, r.index, r.table)
}

// rule sends what is sent from an address to a table of the same number as its priority.
type rule struct {
	from  netip.Addr
	table int
}

func (r rule) String() string { return fmt.Sprintf("%d: from %s lookup %d", r.table, r.from, r.table) }

// located is an address on a link.
type located struct {
	index  int
	prefix netip.Prefix
}

// surroundings are what a new interface finds in its pod.
type surroundings struct {
	addresses []located // global ones on other links
	main      []route   // of the main table
	ruled     []int     // indices of the interfaces that have rules of ours
}

// plan is what an interface gets.
type plan struct {
	routes    []route
	rules     []rule
	arpIgnore bool
}

// decide plans the routes and rules of the interface with the given index.
//
// The configured routes go to the main table, where the first of a destination wins, as with the reference plugins; a
// default route only when the pod has none. With source routing the interface also has a table of its own, used by what
// is sent from its addresses: their subnets, the configured routes, and a default route by the gateway. So replies leave
// by the ENI they belong to, whoever holds the main default route.
//
// The interface also gets in the way of the pod's first one (the VPC CNI's eth0): its subnet and its routes, and the default
// route if Multus' default-route moved that here, catch replies of the first one's address to kubelet's probes or to anybody
// there, and EC2 drops what leaves with a source address that is not the ENI's. So the first interface gets a rule and a
// table too, with the main routes that are its own.
func decide(c Child, index int, s surroundings) plan {
	var p plan
	for _, a := range c.Addresses {
		if a.Prefix.Addr().Is4() && slices.ContainsFunc(s.addresses, func(l located) bool { return l.prefix.Overlaps(a.Prefix) }) {
			p.arpIgnore = true // else one interface answers for the other's address, on the wrong ENI
		}
	}
	for _, r := range c.Routes {
		if !r.Gateway.IsValid() {
			r.Gateway = gatewayFor(c, r.Dst)
		}
		if r.Table != nil {
			p.add(route{Route: r, index: index, table: *r.Table})
			continue
		}
		if !r.IsDefault() || !s.hasDefault(r.Dst) {
			p.add(route{Route: r, index: index, table: unix.RT_TABLE_MAIN})
		}
		if c.SourceRouting {
			p.add(route{Route: r, index: index, table: tableBase + index})
		}
	}
	if c.SourceRouting {
		p.source(c, index)
		p.protect(c, s)
	}
	return p
}

// add keeps the first route of a destination, metric and table.
func (p *plan) add(r route) {
	for _, have := range p.routes {
		if have.Dst == r.Dst && have.table == r.table && have.Priority == r.Priority {
			return
		}
	}
	p.routes = append(p.routes, r)
}

// source plans the interface's own table.
func (p *plan) source(c Child, index int) {
	table := tableBase + index
	for _, a := range c.Addresses {
		if !a.Prefix.IsSingleIP() {
			p.add(route{Route: netconf.Route{Dst: a.Prefix.Masked()}, index: index, table: table, src: a.Prefix.Addr()})
		}
		if a.Gateway.IsValid() {
			p.add(route{Route: netconf.Route{Dst: everything(a.Gateway), Gateway: a.Gateway}, index: index, table: table})
		}
		p.rules = append(p.rules, rule{a.Prefix.Addr(), table})
	}
}

// protect keeps the first interface's replies on it, unless it is ours and does so itself.
func (p *plan) protect(c Child, s surroundings) {
	for _, family := range []int{32, 128} {
		ours := func(a Address) bool { return a.Prefix.Addr().BitLen() == family }
		if !slices.ContainsFunc(c.Addresses, ours) {
			continue
		}
		first := located{}
		for _, l := range s.addresses {
			if l.prefix.Addr().BitLen() == family && (first.index == 0 || l.index < first.index) {
				first = l
			}
		}
		if first.index == 0 || slices.Contains(s.ruled, first.index) {
			continue
		}
		for _, r := range s.wayOut(first) {
			r.table = tableBase + first.index
			p.add(r)
		}
		for _, l := range s.addresses {
			if l.index == first.index && l.prefix.Addr().BitLen() == family {
				p.rules = append(p.rules, rule{l.prefix.Addr(), tableBase + first.index})
			}
		}
	}
}

// wayOut is the main routes of an interface. If it has lost its default route, that is made again as far as the rest gives
// it away: the gateway of another route, or the one host that is on the link (the VPC CNI's 169.254.1.1).
func (s surroundings) wayOut(l located) []route {
	var routes []route
	var gateways, hosts []netip.Addr
	for _, r := range s.main {
		if r.index != l.index || r.Dst.Addr().BitLen() != l.prefix.Addr().BitLen() {
			continue
		}
		routes = append(routes, r)
		switch {
		case r.Gateway.IsValid():
			gateways = append(gateways, r.Gateway)
		case r.Dst.IsSingleIP():
			hosts = append(hosts, r.Dst.Addr())
		}
	}
	if len(gateways) == 0 && len(hosts) == 1 {
		gateways = hosts
	}
	if len(gateways) > 0 && !slices.ContainsFunc(routes, func(r route) bool { return r.IsDefault() }) {
		routes = append(routes, route{Route: netconf.Route{Dst: everything(gateways[0]), Gateway: gateways[0]}, index: l.index})
	}
	return routes
}

// hasDefault reports whether the main table has a default route of dst's family.
func (s surroundings) hasDefault(dst netip.Prefix) bool {
	return slices.ContainsFunc(s.main, func(r route) bool {
		return r.IsDefault() && r.Dst.Addr().BitLen() == dst.Addr().BitLen()
	})
}

func gatewayFor(c Child, dst netip.Prefix) netip.Addr {
	for _, a := range c.Addresses {
		if a.Gateway.IsValid() && a.Gateway.BitLen() == dst.Addr().BitLen() {
			return a.Gateway
		}
	}
	return netip.Addr{}
}

// everything is the default route's destination in a's family.
func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func (r route) netlink() *netlink.Route {
	n := &netlink.Route{
		LinkIndex: r.index, Dst: ipNet(r.Dst), Table: r.table, Protocol: protocol,
		MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Scope: netlink.SCOPE_UNIVERSE,
	}
	if r.src.IsValid() {
		n.Src = r.src.AsSlice()
	}
	if r.Gateway.IsValid() {
		n.Gw = r.Gateway.AsSlice()
		// Without it the kernel looks the gateway up in the main table, where another interface may have its subnet, or
		// none has.
		n.Flags = int(netlink.FLAG_ONLINK)
	} else if r.Dst.Addr().Is4() {
		n.Scope = netlink.SCOPE_LINK
	}
	if r.Scope != nil {
		n.Scope = netlink.Scope(*r.Scope)
	}
	return n
}

func (r rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Src = ipNet(netip.PrefixFrom(r.from, r.from.BitLen()))
	n.Table, n.Priority, n.Protocol = r.table, r.table, protocol
	n.Family = netlink.FAMILY_V4
	if r.from.Is6() {
		n.Family = netlink.FAMILY_V6
	}
	return n
}

// fromNetlink reads a unicast route by one link.
func fromNetlink(n *netlink.Route) (route, bool) {
	if n.Type != unix.RTN_UNICAST || n.LinkIndex == 0 {
		return route{}, false
	}
	r := route{index: n.LinkIndex, table: n.Table}
	r.MTU, r.AdvMSS, r.Priority = n.MTU, n.AdvMSS, n.Priority
	r.Gateway, _ = netip.AddrFromSlice(n.Gw)
	r.Gateway = r.Gateway.Unmap()
	r.src, _ = netip.AddrFromSlice(n.Src)
	r.src = r.src.Unmap()
	var ok bool
	if r.Dst, ok = prefixOf(n.Dst); !ok { // vishvananda/netlink before 1.3 shows default routes so
		if n.Family == netlink.FAMILY_V6 {
			r.Dst = everything(netip.IPv6Unspecified())
		} else {
			r.Dst = everything(netip.IPv4Unspecified())
		}
	}
	return r, true
}
