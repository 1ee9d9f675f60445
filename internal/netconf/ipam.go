// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// ipamType is the type of the ipam object, which must be there.
func (r *reader) ipamType(top, ipam object) string {
	if !top.has("ipam") {
		r.invalid("ipam", `missing; write "ipam": {"type": "vpcipam"}`)
		return ""
	}
	kind, found := ipam.given("type", "a string")
	if ipam.fields != nil && kind == "" && (found || !ipam.has("type")) {
		r.invalid("ipam.type", `missing; write "type": "vpcipam"`)
	}
	return kind
}

func (r *reader) ipam(o object, runtime fromRuntime, env Env) IPAM {
	o.only(ipamKeys, nil)
	c := IPAM{
		Source: r.source(o), ReservationTags: r.tags(o, "reservationTags"), Ranges: r.ranges(o, "ranges"), Exclude: r.ranges(o, "exclude"),
		Gateways: r.gateways(o), Routes: r.routes(o), Timeout: r.timeout(o), AgentSocket: r.socket(o, env),
	}
	c.Sticky = r.sticky(o)
	own := r.requests(o.at("addresses"), o.strings("addresses", "a list of addresses"))
	asked, place := r.requested(runtime)
	if asked == nil {
		asked, place = own, o.at("addresses")
	}
	families := r.families(o)
	if families == nil {
		families = familiesOf(own)
	}
	if families == nil {
		families = []string{attachment.IPv4}
	}
	c.Requested, c.Families = asked, families
	if asked != nil {
		c.Families = familiesOf(asked)
	}
	r.together(o, c, families, place)
	if dns, found := o.object("dns"); found {
		c.DNS = r.dns(dns)
	}
	return c
}

// together refuses keys that contradict one another. families are those of the configuration itself, place is where
// addresses were requested.
func (r *reader) together(o object, c IPAM, families []string, place string) {
	if c.Source != attachment.SourceReservation {
		for _, key := range []string{"exclude", "ranges", "reservationTags", "sticky"} {
			if o.has(key) {
				r.invalid(o.at(key), "is not possible with source %q, where EC2 chooses the addresses; use source %q", c.Source, attachment.SourceReservation)
			}
		}
	}
	for i, s := range c.Ranges {
		if f := familyOf(s.From); !slices.Contains(families, f) {
			r.invalid(fmt.Sprintf("%s[%d]", o.at("ranges"), i), "%s is of family %q, which families does not have", s, f)
		}
	}
	for i, route := range c.Routes {
		if f := familyOf(route.Dst.Addr()); route.Dst.IsValid() && !slices.Contains(slices.Concat(families, c.Families), f) {
			r.invalid(fmt.Sprintf("%s[%d].dst", o.at("routes"), i), "%s is of family %q, which families does not have", route.Dst, f)
		}
	}
	if c.Sticky == nil {
		return
	}
	for _, f := range families {
		if !slices.ContainsFunc(c.Ranges, func(s attachment.Range) bool { return familyOf(s.From) == f }) {
			r.invalid(o.at("sticky"), "needs ranges of family %q: a pod gets the address at its ordinal in them", f)
		}
	}
	if c.Requested != nil {
		r.invalid(o.at("sticky"), "is not possible together with requested addresses (%s)", place)
	}
}

func (r *reader) source(o object) string {
	s := o.text("source")
	switch s {
	case attachment.SourcePrefix, attachment.SourceSubnet:
		return s
	case "", attachment.SourceReservation:
	default:
		r.invalid(o.at("source"), "%q is unknown; use %q, %q or %q", s, attachment.SourceReservation, attachment.SourcePrefix, attachment.SourceSubnet)
	}
	return attachment.SourceReservation
}

// families are the configured ones, nil when nothing was said.
func (r *reader) families(o object) []string {
	list, found := o.texts("families")
	if found && len(list) == 0 {
		r.invalid(o.at("families"), `is empty; write ["ipv4"], ["ipv6"] or ["ipv4", "ipv6"]`)
	}
	for i, f := range list {
		at := fmt.Sprintf("%s[%d]", o.at("families"), i)
		switch {
		case f != attachment.IPv4 && f != attachment.IPv6:
			r.invalid(at, "%q is not an address family; write %q or %q", f, attachment.IPv4, attachment.IPv6)
		case slices.Contains(list[:i], f):
			r.invalid(at, "%q is given twice", f)
		}
	}
	return list
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return attachment.IPv4
	}
	return attachment.IPv6
}

// familiesOf are the families of addresses, in their order.
func familiesOf(addrs []netip.Addr) []string {
	var families []string
	for _, a := range addrs {
		families = append(families, familyOf(a))
	}
	return families
}

// ranges is a list of CIDRs, ranges and addresses; nil when absent.
func (r *reader) ranges(o object, key string) []attachment.Range {
	list, found := o.texts(key)
	if found && len(list) == 0 {
		r.invalid(o.at(key), "is empty; name a range, or remove the key")
	}
	var ranges []attachment.Range
	for i, s := range list {
		one, err := attachment.ParseRange(s)
		if err != nil {
			r.invalid(fmt.Sprintf("%s[%d]", o.at(key), i), "%v", err)
			continue
		}
		ranges = append(ranges, one)
	}
	return ranges
}

func (r *reader) sticky(o object) *attachment.Sticky {
	s, found := o.object("sticky")
	if !found {
		return nil
	}
	s.only(stickyKeys, nil)
	name := s.text("statefulSet")
	if name == "" && (!s.has("statefulSet") || string(s.raw("statefulSet")) == `""`) {
		r.invalid(s.at("statefulSet"), "missing; write the StatefulSet's name")
	}
	return &attachment.Sticky{StatefulSet: name}
}

// gateways are one address, or at most one of each family.
func (r *reader) gateways(o object) []netip.Addr {
	list := o.strings("gateway", "an address or a list of them")
	var gateways []netip.Addr
	for i, s := range list {
		at := o.at("gateway")
		if len(list) > 1 {
			at = fmt.Sprintf("%s[%d]", at, i)
		}
		a, ok := r.parseAddress(at, s)
		if !ok {
			continue
		}
		if slices.ContainsFunc(gateways, func(b netip.Addr) bool { return a.BitLen() == b.BitLen() }) {
			r.invalid(at, "%q is the second of its family", s)
			continue
		}
		gateways = append(gateways, a)
	}
	return gateways
}

func (r *reader) timeout(o object) time.Duration {
	s, found := o.given("timeout", `a duration such as "20s"`)
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
	s, found := o.given("agentSocket", "a string")
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

// parseAddress reads an address that an interface of a pod can have or reach.
func (r *reader) parseAddress(at, s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		r.invalid(at, "%q is not an IP address", s)
		return a, false
	}
	a = a.Unmap()
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		r.invalid(at, "%q cannot be an interface's address", s)
		return a, false
	}
	return a, true
}

func (r *reader) address(o object, key string) netip.Addr {
	s, found := o.given(key, "a string")
	if !found {
		return netip.Addr{}
	}
	if a, ok := r.parseAddress(o.at(key), strings.TrimSpace(s)); ok {
		return a
	}
	return netip.Addr{}
}
