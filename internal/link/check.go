// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// Difference is the first thing about an interface that is not as it should be.
type Difference struct{ What, Want, Got string }

func (d *Difference) Error() string {
	return fmt.Sprintf("%s is %s, want %s", d.What, d.Got, d.Want)
}

// Check compares the interface with what [Add] made for c, and returns the first real difference as a [*Difference]:
// the link, its kind, mode and master, its MTU, whether it is up, its addresses, rules, and routes in any table. More
// addresses, rules and routes than c has are fine, and so is what plugins after ours in a chain may change: routes that
// moved to another table (sbr), a smaller MTU (tuning). Routes are those of the result, and may go by any link. A Master
// without index stands for whichever the child has.
func Check(c Child) error {
	p, err := enter(c.Netns)
	if gone(err) {
		return &Difference{"network namespace " + c.Netns, "there", "missing"}
	}
	if err != nil {
		return err
	}
	defer p.leave()
	links, err := p.h.LinkList()
	if err != nil {
		return fmt.Errorf("list links of %s: %w", c.Netns, err)
	}
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == c.IfName })
	if i < 0 {
		return &Difference{"interface " + c.IfName, "there", "missing"}
	}
	for _, check := range []func(Child, netlink.Link) error{checkKind, checkMaster, checkUp, p.checkAddresses, p.checkRules, p.checkRoutes} {
		if err := check(c, links[i]); err != nil {
			return err
		}
	}
	return nil
}

func checkKind(c Child, l netlink.Link) error {
	iv, ok := l.(*netlink.IPVlan)
	switch {
	case !ok:
		return &Difference{"kind of " + c.IfName, "ipvlan", l.Type()}
	case !isL2(iv):
		return &Difference{"mode of " + c.IfName, "l2", modeOf(iv)}
	}
	return nil
}

func checkMaster(c Child, l netlink.Link) error {
	parent := l.Attrs().ParentIndex
	if c.Master.Index != 0 && parent != c.Master.Index {
		return &Difference{"master of " + c.IfName, fmt.Sprintf("%s (index %d)", c.Master.Name, c.Master.Index), fmt.Sprintf("index %d", parent)}
	}
	hosts, err := Hosts()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(hosts, func(h attachment.Link) bool { return h.Index == parent })
	if i < 0 {
		return &Difference{"master of " + c.IfName, "an ENI's link on the node", fmt.Sprintf("index %d, which is none", parent)}
	}
	if c.Master.MAC != "" && hosts[i].MAC != c.Master.MAC {
		return &Difference{"MAC of master " + hosts[i].Name, string(c.Master.MAC), string(hosts[i].MAC)}
	}
	if got := eni.ParseMAC(l.Attrs().HardwareAddr.String()); got != hosts[i].MAC {
		return &Difference{"MAC of " + c.IfName, fmt.Sprintf("%s, that of master %s", hosts[i].MAC, hosts[i].Name), string(got)}
	}
	if l.Attrs().MTU > hosts[i].MTU {
		return &Difference{"MTU of " + c.IfName, fmt.Sprintf("at most %d, that of master %s", hosts[i].MTU, hosts[i].Name), fmt.Sprint(l.Attrs().MTU)}
	}
	if !hosts[i].Up {
		return &Difference{"master " + hosts[i].Name, "up", "down"}
	}
	return nil
}

func checkUp(c Child, l netlink.Link) error {
	if !describe(l).Up {
		return &Difference{"interface " + c.IfName, "up", "down"}
	}
	return nil
}

func (p *pod) checkAddresses(c Child, l netlink.Link) error {
	addrs, err := netlinkAddrs(p.h)
	if err != nil {
		return err
	}
	var got []netip.Prefix
	for _, a := range addrs {
		if prefix, ok := prefixOf(a.IPNet); ok && a.LinkIndex == l.Attrs().Index && a.Scope == unix.RT_SCOPE_UNIVERSE {
			got = append(got, prefix)
		}
	}
	for _, a := range c.Addresses {
		if !slices.Contains(got, a.Prefix) {
			return &Difference{"address of " + c.IfName, a.Prefix.String(), list(got)}
		}
	}
	return nil
}

func (p *pod) checkRules(c Child, l netlink.Link) error {
	if !c.SourceRouting {
		return nil
	}
	rules, err := p.ownRules()
	if err != nil {
		return err
	}
	for _, a := range c.Addresses {
		want := rule{a.Prefix.Addr(), tableBase + l.Attrs().Index}
		if !slices.ContainsFunc(rules, func(r netlink.Rule) bool {
			from, ok := prefixOf(r.Src)
			return ok && from == netip.PrefixFrom(want.from, want.from.BitLen()) && r.Table == want.table
		}) {
			return &Difference{"rule " + want.String(), "there", "missing"}
		}
	}
	return nil
}

func (p *pod) checkRoutes(c Child, l netlink.Link) error {
	// A zero table with the filter on asks for every table.
	all, err := p.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", c.Netns, err)
	}
	var got []route
	for i := range all {
		if r, ok := fromNetlink(&all[i]); ok {
			got = append(got, r)
		}
	}
	for _, w := range c.Routes {
		if !slices.ContainsFunc(got, func(r route) bool { return same(w, r) }) {
			return &Difference{"route " + destination(w), "there", "missing in every table"}
		}
	}
	index := l.Attrs().Index
	for _, w := range decide(Child{Addresses: c.Addresses, SourceRouting: c.SourceRouting}, index, surroundings{}).routes {
		if w.IsDefault() {
			w.Gateway = netip.Addr{} // a configured default route goes before the gateway's
		}
		if !slices.ContainsFunc(got, func(r route) bool { return r.index == index && same(w.Route, r) }) {
			return &Difference{"route " + destination(w.Route) + " by " + c.IfName, "there", "missing in every table"}
		}
	}
	return nil
}

// same compares what makes a route: its destination, and its gateway where one is asked for.
func same(want netconf.Route, got route) bool {
	return want.Dst == got.Dst && (!want.Gateway.IsValid() || want.Gateway == got.Gateway)
}

func destination(r netconf.Route) string {
	if r.Gateway.IsValid() {
		return r.Dst.String() + " via " + r.Gateway.String()
	}
	return r.Dst.String()
}

func list(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return "none"
	}
	s := ""
	for i, p := range prefixes {
		if i > 0 {
			s += ", "
		}
		s += p.String()
	}
	return s
}
