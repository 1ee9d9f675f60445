// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// later refuses keys that are specified but not built yet.
func (r *reader) later(o object, keys ...string) {
	for _, key := range keys {
		if o.has(key) {
			r.unsupported(o.at(key), "%s is not supported yet; remove the key", show(o.raw(key)))
		}
	}
}

// ipamType is the type of the ipam object, which must be there.
func (r *reader) ipamType(top, ipam object) string {
	if !top.has("ipam") {
		r.invalid("ipam", `missing; write "ipam": {"type": "vpcipam"}`)
		return ""
	}
	kind, found := value[string](ipam, "type", "a string")
	if ipam.fields != nil && kind == "" && (found || !ipam.has("type")) {
		r.invalid("ipam.type", `missing; write "type": "vpcipam"`)
	}
	return kind
}

func (r *reader) target(top object) Target {
	var t Target
	t.Master = top.text("master")
	if top.has("master") && t.Master == "" {
		r.invalid("master", "%s names no link; write the name of the ENI's link, or remove the key", show(top.raw("master")))
	}
	if o, found := top.object("eni"); found {
		t.Selector = r.selector(o)
		if top.has("master") {
			r.invalid("eni", "given together with master (%q); keep one of them", t.Master)
		}
	}
	return t
}

func (r *reader) selector(o object) eni.Selector {
	o.only(eniKeys, nil)
	if len(o.fields) == 0 {
		r.invalid(o.path, "selects by nothing; name at least one of %s, or remove the key", strings.Join(eniKeys, ", "))
	}
	// The bounds only catch slips: no instance type has as many cards or slots.
	s := eni.Selector{DeviceIndex: o.count("deviceIndex", 0, 255), NetworkCard: o.count("networkCard", 0, 255)}
	s.SubnetID = eni.SubnetID(o.text("subnetID"))
	if o.has("subnetID") && !strings.HasPrefix(string(s.SubnetID), "subnet-") {
		r.invalid(o.at("subnetID"), "%s is not a subnet ID (subnet-…)", show(o.raw("subnetID")))
	}
	tags, found := value[map[string]string](o, "subnetTags", "an object of strings")
	if found && len(tags) == 0 {
		r.invalid(o.at("subnetTags"), "is empty; name a tag, or remove the key")
	}
	s.SubnetTags = tags
	return s
}

// underIpvlan checks the settings of upstream's ipvlan that decide whether a pod is reachable in a VPC.
func (r *reader) underIpvlan(top object, t Target) {
	if t.Master == "" {
		r.invalid("master", "missing; without it ipvlan takes the link of the default route, and the VPC would not route the pod's "+
			`address; name the ENI's link, or use type "vpcipvlan" with "eni"`)
	}
	r.ipvlanMode(top)
	if top.flag("linkInContainer", false) {
		r.invalid("linkInContainer", "true is not possible: the master must be an ENI's link in the host's network namespace")
	}
}

// ipvlanMode accepts l2 alone. In l3 and l3s the routing table of the host routes what the pod sends.
// https://docs.kernel.org/networking/ipvlan.html#operating-modes
func (r *reader) ipvlanMode(top object) {
	switch mode := top.text("mode"); mode {
	case "", "l2":
	case "l3", "l3s":
		r.invalid("mode", "%q routes the pod's packets by the host's table, which has no way off the ENI's subnet; use \"l2\"", mode)
	default:
		r.invalid("mode", "%q is not an ipvlan mode; use \"l2\"", mode)
	}
}

func (r *reader) mtu(top object) int {
	v := top.count("mtu", 0, maxMTU)
	if v == nil {
		return 0
	}
	if *v != 0 && *v < minMTU {
		r.invalid("mtu", "%d is not 0 (the ENI's) or between %d and %d", *v, minMTU, maxMTU)
	}
	return *v
}

func (r *reader) ipam(o object, env Env) IPAM {
	o.only(ipamKeys, nil)
	r.later(o, "addresses", "exclude", "ranges", "reservationTags", "sticky")
	c := IPAM{Source: r.source(o), Families: r.families(o), Timeout: r.timeout(o), AgentSocket: r.socket(o, env)}
	c.Gateway = r.address(o, "gateway")
	c.Routes = r.routes(o)
	if dns, found := o.object("dns"); found {
		c.DNS = r.dns(dns)
	}
	return c
}

func (r *reader) source(o object) string {
	s := o.text("source")
	switch s {
	case attachment.SourcePrefix, attachment.SourceSubnet:
		r.unsupported(o.at("source"), "%q is not supported yet; use %q", s, attachment.SourceReservation)
	case "", attachment.SourceReservation:
	default:
		r.invalid(o.at("source"), "%q is unknown; use %q", s, attachment.SourceReservation)
	}
	return attachment.SourceReservation
}

func (r *reader) families(o object) []string {
	list, found := o.texts("families")
	if found && len(list) == 0 {
		r.invalid(o.at("families"), `is empty; write ["ipv4"]`)
	}
	seen := map[string]bool{}
	for i, f := range list {
		at := fmt.Sprintf("%s[%d]", o.at("families"), i)
		switch {
		case f == attachment.IPv6:
			r.unsupported(at, `"ipv6" is not supported yet; write ["ipv4"]`)
		case f != attachment.IPv4:
			r.invalid(at, "%q is not an address family; write [\"ipv4\"]", f)
		case seen[f]:
			r.invalid(at, "%q is given twice", f)
		}
		seen[f] = true
	}
	return []string{attachment.IPv4}
}

func (r *reader) timeout(o object) time.Duration {
	s, found := value[string](o, "timeout", `a duration such as "20s"`)
	if !found {
		return DefaultTimeout
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		r.invalid(o.at("timeout"), "%q is not a duration such as \"20s\"", s)
		return DefaultTimeout
	}
	if d < MinTimeout || d > MaxTimeout {
		r.invalid(o.at("timeout"), "%s is not between %s and %s", d, MinTimeout, MaxTimeout)
	}
	return d
}

func (r *reader) socket(o object, env Env) string {
	s, found := value[string](o, "agentSocket", "a string")
	switch {
	case !found && !usableSocket(env.AgentSocket):
		r.invalid("MULTUS_VPC_AGENT_SOCKET", "%q is not an absolute path of at most %d bytes", env.AgentSocket, maxSocketPath)
	case found && !usableSocket(s):
		r.invalid(o.at("agentSocket"), "%q is not an absolute path of at most %d bytes", s, maxSocketPath)
	case found:
		return s
	}
	return env.AgentSocket
}

func usableSocket(s string) bool { return path.IsAbs(s) && len(s) <= maxSocketPath }

// address is an IPv4 address; invalid when absent or wrong.
func (r *reader) address(o object, key string) netip.Addr {
	s, found := value[string](o, key, "a string")
	if !found {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		r.invalid(o.at(key), "%q is not an IP address", s)
		return netip.Addr{}
	case !a.Is4():
		r.unsupported(o.at(key), "%q: IPv6 is not supported yet", s)
		return netip.Addr{}
	}
	return a
}

func (r *reader) routes(o object) []Route {
	list, found := value[[]json.RawMessage](o, "routes", "a list of objects")
	if !found {
		return nil
	}
	routes := make([]Route, 0, len(list))
	for i, raw := range list {
		entry := object{r: r, path: fmt.Sprintf("%s[%d]", o.at("routes"), i)}
		if err := json.Unmarshal(raw, &entry.fields); err != nil || entry.fields == nil {
			r.invalid(entry.path, "%s is not an object", show(raw))
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
	return route
}

func (r *reader) destination(o object) netip.Prefix {
	s, found := value[string](o, "dst", `a CIDR such as "10.0.0.0/8"`)
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
	case !p.Addr().Is4():
		r.unsupported(o.at("dst"), "%q: IPv6 is not supported yet", s)
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
