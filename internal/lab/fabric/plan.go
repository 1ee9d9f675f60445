// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// fabricEndPrefix starts the name of every ENI's link in the VPC's namespace; the source check matches it.
const fabricEndPrefix = "eni-"

// fabricEnd is the name of an ENI's link in the VPC's namespace: the ID, of which only the last digits fit.
func fabricEnd(id string) string {
	tail := strings.TrimPrefix(id, "eni-")
	return fabricEndPrefix + tail[max(0, len(tail)-(maxLinkName-len(fabricEndPrefix))):]
}

// state is the VPC's namespace, as it is or as it shall be.
type state struct {
	links       map[string]string       // fabric end → label: what it was made for, see label
	gateways    map[netip.Addr]bool     // addresses on lo
	unreachable map[netip.Prefix]bool   // the VPC's own blocks
	routes      map[netip.Prefix]string // address or prefix → fabric end
	proxies     map[proxy]bool          // proxy NDP
	enis        map[string]ENI          // fabric end → ENI; wanted state only
	subnets     map[string]Subnet       // by name; wanted state only
}

// proxy makes the fabric answer neighbour solicitations for addr on a link. IPv4 needs nothing of the kind: proxy ARP
// follows the routes.
type proxy struct {
	addr netip.Addr
	link string
}

func newState() state {
	return state{
		links: map[string]string{}, gateways: map[netip.Addr]bool{}, unreachable: map[netip.Prefix]bool{},
		routes: map[netip.Prefix]string{}, proxies: map[proxy]bool{},
		enis: map[string]ENI{}, subnets: map[string]Subnet{},
	}
}

// label is kept as the alias of the fabric end. An ENI whose label changed was detached and attached elsewhere or in
// another way, and the link must be made anew: a link that is only moved would keep its ipvlan children.
func label(e ENI) string {
	when := "late"
	if e.Early || e.isPrimary() {
		when = "early"
	}
	return fmt.Sprintf("%s on %s as %s %s %s", e.ID, e.Worker, e.linkName(), strings.ToLower(e.MAC), when)
}

// wanted derives the state of the VPC's namespace from a valid topology.
func wanted(t Topology) state {
	w := newState()
	for _, p := range t.VPCCIDRs {
		w.unreachable[p.Masked()] = true
	}
	for _, s := range t.Subnets {
		w.subnets[s.Name] = s
		if s.IPv4.IsValid() {
			w.gateways[eni.Gateway(s.IPv4)] = true
		}
	}
	neighbours := map[string][]string{} // subnet → fabric ends
	for _, e := range t.ENIs {
		end := fabricEnd(e.ID)
		w.links[end] = label(e)
		w.enis[end] = e
		neighbours[e.Subnet] = append(neighbours[e.Subnet], end)
	}
	for p, id := range t.RoutePrefixes {
		if end := fabricEnd(id); w.links[end] != "" {
			w.routes[p.Masked()] = end
		}
	}
	for a, id := range t.Routes {
		end := fabricEnd(id)
		if w.links[end] == "" {
			continue
		}
		w.routes[netip.PrefixFrom(a, a.BitLen())] = end
		if a.Is4() {
			continue
		}
		// Proxy NDP has no route check: an entry on the owning link would answer the owner's own siblings.
		for _, other := range neighbours[w.enis[end].Subnet] {
			if other != end {
				w.proxies[proxy{addr: a, link: other}] = true
			}
		}
	}
	return w
}

// changes lead from one state to another, in the order of the fields.
type changes struct {
	removeLinks       []string
	addLinks          []string
	addGateways       []netip.Addr
	removeGateways    []netip.Addr
	addUnreachable    []netip.Prefix
	removeUnreachable []netip.Prefix
	addProxies        []proxy
	setRoutes         []route
	removeRoutes      []netip.Prefix
	removeProxies     []proxy
}

// route leads an address or a delegated prefix to an ENI's link.
type route struct {
	dst  netip.Prefix
	link string
}

// diff is what must be done to get from have to want.
func diff(have, want state) changes {
	var c changes
	have = state{ // the kernel forgets with a link what led to it
		links: maps.Clone(have.links), routes: maps.Clone(have.routes), proxies: maps.Clone(have.proxies),
		gateways: have.gateways, unreachable: have.unreachable,
	}
	for link, label := range have.links {
		if want.links[link] != label {
			c.removeLinks = append(c.removeLinks, link)
			delete(have.links, link)
			maps.DeleteFunc(have.routes, func(_ netip.Prefix, l string) bool { return l == link })
			maps.DeleteFunc(have.proxies, func(p proxy, _ bool) bool { return p.link == link })
		}
	}
	c.addLinks = missing(want.links, have.links, strings.Compare)
	c.addGateways = missing(want.gateways, have.gateways, netip.Addr.Compare)
	c.removeGateways = missing(have.gateways, want.gateways, netip.Addr.Compare)
	c.addUnreachable = missing(want.unreachable, have.unreachable, comparePrefix)
	c.removeUnreachable = missing(have.unreachable, want.unreachable, comparePrefix)
	c.addProxies = missing(want.proxies, have.proxies, compareProxy)
	c.removeProxies = missing(have.proxies, want.proxies, compareProxy)
	c.removeRoutes = missing(have.routes, want.routes, comparePrefix)
	for dst, link := range want.routes {
		if have.routes[dst] != link {
			c.setRoutes = append(c.setRoutes, route{dst: dst, link: link})
		}
	}
	slices.Sort(c.removeLinks)
	slices.SortFunc(c.setRoutes, func(a, b route) int { return comparePrefix(a.dst, b.dst) })
	return c
}

// missing are the keys of a that b lacks, sorted.
func missing[K comparable, V any](a, b map[K]V, compare func(K, K) int) []K {
	var keys []K
	for k := range a {
		if _, ok := b[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compare)
	return keys
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func compareProxy(a, b proxy) int {
	return cmp.Or(a.addr.Compare(b.addr), strings.Compare(a.link, b.link))
}
