// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/plainjson"
)

func (r *reader) routes(o object) []Route {
	raw := o.raw("routes")
	if raw == nil {
		return nil
	}
	list, ok := plainjson.Array(raw)
	if !ok {
		r.invalid(o.at("routes"), "%s is not a list of objects", show(raw))
	}
	routes := make([]Route, 0, len(list))
	for i, one := range list {
		entry := object{r: r, path: fmt.Sprintf("%s[%d]", o.at("routes"), i)}
		if entry.fields, ok = split(one); !ok {
			r.invalid(entry.path, "%s is not an object", show(one))
			continue
		}
		routes = append(routes, r.route(entry))
	}
	return routes
}

func (r *reader) route(o object) Route {
	const most = 1<<31 - 1
	o.only(routeKeys, nil)
	route := Route{Gateway: r.address(o, "gw"), Table: o.count("table", 1, most), Scope: o.count("scope", 0, 255)}
	route.MTU, route.AdvMSS, route.Priority = o.number("mtu", most), o.number("advmss", most), o.number("priority", most)
	route.Dst = r.destination(o)
	if route.Gateway.IsValid() && route.Dst.IsValid() && route.Gateway.BitLen() != route.Dst.Addr().BitLen() {
		r.invalid(o.at("gw"), "%s is not of the family of dst, %s", route.Gateway, route.Dst)
	}
	return route
}

func (r *reader) destination(o object) netip.Prefix {
	s, found := o.given("dst", `a CIDR such as "10.0.0.0/8"`)
	if !found {
		if !o.has("dst") {
			r.invalid(o.at("dst"), `missing; write a CIDR such as "10.0.0.0/8"`)
		}
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		r.invalid(o.at("dst"), "%q is not a CIDR such as \"10.0.0.0/8\"", s)
	case p.Addr().Is4In6():
		r.invalid(o.at("dst"), "%q is an IPv4 network in IPv6 form; write it as IPv4", s)
	case p != p.Masked():
		r.invalid(o.at("dst"), "%q has host bits set; write %q", s, p.Masked())
	}
	return p
}

func (r *reader) dns(o object) types.DNS {
	o.only(dnsKeys, nil)
	d := types.DNS{Domain: o.text("domain")}
	d.Nameservers, _ = o.texts("nameservers")
	d.Search, _ = o.texts("search")
	d.Options, _ = o.texts("options")
	for i, s := range d.Nameservers {
		if _, err := netip.ParseAddr(s); err != nil {
			r.invalid(fmt.Sprintf("%s[%d]", o.at("nameservers"), i), "%q is not an IP address", s)
		}
	}
	return d
}
