// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package migrate

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// addressing is what an IPAM configuration comes to.
type addressing struct {
	ranges, exclude []string
	addresses       []netip.Addr
	gateways        []netip.Addr
	families        []string
	routes          []pairs // nil: nothing was said
	dns             json.RawMessage
}

// ipam makes the ipam object of type vpcipam that replaces another. at is its path.
func (m *migration) ipam(kind string, o object, at string) (pairs, error) {
	var a addressing
	var err error
	known := []string{"type", "routes", "dns"}
	switch kind {
	case "whereabouts":
		known = append(known, "range", "range_start", "range_end", "ipRanges", "exclude", "gateway", "addresses")
		err = m.whereabouts(&a, o, at)
	case "host-local":
		known = append(known, "subnet", "rangeStart", "rangeEnd", "gateway", "ranges")
		err = m.hostLocal(&a, o, at)
	case "static":
		known = append(known, "addresses")
		err = m.static(&a, o, at)
	case "":
		err = fmt.Errorf("%stype: missing; an interface without addresses cannot be replaced", at)
	default:
		err = fmt.Errorf("%stype: %q is not known (whereabouts, host-local and static are); --keep-ipam keeps any IPAM plugin", at, kind)
	}
	if err != nil {
		return nil, err
	}
	if a.routes, err = m.routes(o, a.families, at); err != nil {
		return nil, err
	}
	a.dns = o["dns"]
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains(known, key) {
			m.note("%s%s: %s is not carried over: %s", at, key, o[key], why(key))
		}
	}
	return a.pairs(), nil
}

// why a key of another IPAM plugin has no counterpart.
func why(key string) string {
	switch key {
	case "configuration_path":
		return "whatever that file on the workers says is not seen here"
	case "network_name":
		return "the addresses of a VPC are one space"
	case "enable_overlapping_ranges":
		return "EC2 gives no address twice"
	case "resolvConf":
		return "name servers are named in dns"
	case "node_slice_size":
		return "workers share a range, a block each as they need it"
	}
	return "it is about how that plugin works"
}

// pairs are the keys of vpcipam.
func (a addressing) pairs() pairs {
	out := pairs{{"type", netconf.TypeVPCIPAM}}
	if !slices.Equal(a.families, []string{attachment.IPv4}) && len(a.families) > 0 {
		out = append(out, pair{"families", a.families})
	}
	if len(a.ranges) > 0 {
		out = append(out, pair{"ranges", a.ranges})
	}
	if len(a.exclude) > 0 {
		out = append(out, pair{"exclude", a.exclude})
	}
	if len(a.addresses) > 0 {
		out = append(out, pair{"addresses", a.addresses})
	}
	switch len(a.gateways) {
	case 0:
	case 1:
		out = append(out, pair{"gateway", a.gateways[0]})
	default:
		out = append(out, pair{"gateway", a.gateways})
	}
	if a.routes != nil {
		out = append(out, pair{"routes", a.routes})
	}
	if a.dns != nil && string(a.dns) != "null" {
		out = append(out, pair{"dns", a.dns})
	}
	return out
}

// give adds a range that addresses come from.
func (a *addressing) give(r attachment.Range) {
	a.ranges = append(a.ranges, show(r))
	a.family(r.From)
}

func (a *addressing) family(of netip.Addr) {
	f := attachment.IPv4
	if of.Is6() {
		f = attachment.IPv6
	}
	if !slices.Contains(a.families, f) {
		a.families = append(a.families, f)
		slices.Sort(a.families)
	}
}

// gateway takes the first of each family.
func (m *migration) gateway(a *addressing, o object, at string) error {
	s, err := text(o, at, "gateway")
	if s == "" || err != nil {
		return err
	}
	g, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("%sgateway: %w", at, err)
	}
	g = g.Unmap()
	if i := slices.IndexFunc(a.gateways, func(b netip.Addr) bool { return b.BitLen() == g.BitLen() }); i < 0 {
		a.gateways = append(a.gateways, g)
	} else if a.gateways[i] != g {
		m.note("%sgateway: %s is not carried over: an interface has one of a family, %s", at, g, a.gateways[i])
	}
	return nil
}

// requests takes the first address of each family: {"address": "10.10.1.80/24", "gateway": "10.10.1.1"}.
func (m *migration) requests(a *addressing, o object, at string) error {
	list, err := array(o["addresses"], at+"addresses")
	if err != nil {
		return err
	}
	for i, raw := range list {
		place := fmt.Sprintf("%saddresses[%d].", at, i)
		one, err := open(raw, strings.TrimSuffix(place, "."))
		if err != nil {
			return err
		}
		s, err := text(one, place, "address")
		if err != nil {
			return err
		}
		addr, err := cluster.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("%saddress: %w", place, err)
		}
		if slices.ContainsFunc(a.addresses, func(b netip.Addr) bool { return b.BitLen() == addr.BitLen() }) {
			m.note("%saddress: %s is not carried over: an interface has one address of a family", place, addr)
			continue
		}
		a.addresses = append(a.addresses, addr)
		a.family(addr)
		if err = m.gateway(a, one, place); err != nil {
			return err
		}
	}
	if len(a.addresses) > 0 {
		m.note("%saddresses: every pod of this network asks for the same address, so that one at a time can have it", at)
	}
	return nil
}

// routes are upstream's, with destinations in the form that netlink takes.
func (m *migration) routes(o object, families []string, at string) ([]pairs, error) {
	if o["routes"] == nil || string(o["routes"]) == "null" {
		return nil, nil
	}
	list, err := array(o["routes"], at+"routes")
	if err != nil {
		return nil, err
	}
	out := []pairs{}
	for i, raw := range list {
		place := fmt.Sprintf("%sroutes[%d]", at, i)
		route, err := open(raw, place)
		if err != nil {
			return nil, err
		}
		s, err := text(route, place+".", "dst")
		if err != nil {
			return nil, err
		}
		dst, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%s.dst: %w", place, err)
		}
		family := attachment.IPv4
		if dst.Addr().Is6() {
			family = attachment.IPv6
		}
		if len(families) > 0 && !slices.Contains(families, family) {
			m.note("%s: %s is not carried over: the interface has no %s address", place, dst, family)
			continue
		}
		one := pairs{{"dst", dst.Masked()}}
		for _, key := range slices.Sorted(maps.Keys(route)) {
			switch key {
			case "dst":
			case "gw", "mtu", "advmss", "priority", "table", "scope":
				if v := string(route[key]); v != `""` && v != "null" {
					one = append(one, pair{key, route[key]})
				}
			default:
				m.note("%s.%s: %s is not carried over: a route has no such key", place, key, route[key])
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// between is the range of a network, from start to end where they are given.
func between(network netip.Prefix, start, end string) (attachment.Range, error) {
	r := attachment.Range{From: network.Masked().Addr(), To: eni.LastAddr(network)}
	for _, edge := range []struct {
		text string
		of   *netip.Addr
	}{{start, &r.From}, {end, &r.To}} {
		if edge.text == "" {
			continue
		}
		a, err := cluster.ParseAddr(edge.text) // whereabouts takes a prefix length there, and ignores it
		if err != nil {
			return r, err
		}
		if !network.Contains(a) {
			return r, fmt.Errorf("%s does not lie in %s", a, network)
		}
		*edge.of = a
	}
	if r.To.Less(r.From) {
		return r, fmt.Errorf("%s comes after %s", r.From, r.To)
	}
	return r, nil
}

// show is a range as a person would write it: by its CIDR if it has one.
func show(r attachment.Range) string {
	for bits := r.From.BitLen(); bits >= 0; bits-- {
		if p := netip.PrefixFrom(r.From, bits); p == p.Masked() && eni.LastAddr(p) == r.To && r.From != r.To {
			return p.String()
		}
	}
	return r.String()
}
