// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pod

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Look is what CNI plugins and administrators configure in a namespace, as sorted lines of text, to be compared before
// and after or with what is expected. What the kernel adds by itself (link-local and loopback addresses, local and
// multicast routes, the three standing rules) is left out.
type Look struct {
	Links     []string // "net1 ipvlan l2 up mtu 9001 mac 02:…"
	Addresses []string // "net1 10.10.1.70/24"
	Routes    []string // "main default via 10.10.1.1 dev net1", "table 5002 …"
	Rules     []string // "5002: from 10.10.1.70/32 lookup 5002"
}

// LookAt reads the namespace at netnsPath.
func LookAt(netnsPath string) (Look, error) {
	h, err := Handle(netnsPath)
	if err != nil {
		return Look{}, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return Look{}, fmt.Errorf("list links in %s: %w", netnsPath, err)
	}
	var look Look
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		look.Links = append(look.Links, describeLink(l))
	}
	var errs []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		addrs, err := h.AddrList(nil, family)
		errs = append(errs, err)
		for _, a := range addrs {
			if !a.IP.IsLoopback() && !(a.IP.IsLinkLocalUnicast() && a.IP.To4() == nil) {
				look.Addresses = append(look.Addresses, names[a.LinkIndex]+" "+a.IPNet.String())
			}
		}
		routes, err := allRoutes(h, family)
		errs = append(errs, err)
		for _, r := range routes {
			look.Routes = append(look.Routes, describeRoute(r, names))
		}
		rules, err := h.RuleList(family)
		errs = append(errs, err)
		for _, r := range rules {
			if r.Priority != 0 && r.Priority < 32766 {
				look.Rules = append(look.Rules, fmt.Sprintf("%d: from %s lookup %d", r.Priority, orAll(r.Src), r.Table))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Look{}, fmt.Errorf("look at %s: %w", netnsPath, err)
	}
	slices.Sort(look.Links)
	slices.Sort(look.Addresses)
	slices.Sort(look.Routes)
	slices.Sort(look.Rules)
	return look, nil
}

// LinkIndexes of the namespace at netnsPath by name. An index is never used twice while a namespace lives, so it tells
// a link that was made anew from one that stayed.
func LinkIndexes(netnsPath string) (map[string]int, error) {
	h, err := Handle(netnsPath)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", netnsPath, err)
	}
	indexes := map[string]int{}
	for _, l := range links {
		indexes[l.Attrs().Name] = l.Attrs().Index
	}
	return indexes, nil
}

func describeLink(l netlink.Link) string {
	a := l.Attrs()
	words := []string{a.Name, l.Type()}
	if v, ok := l.(*netlink.IPVlan); ok {
		words = append(words, map[netlink.IPVlanMode]string{
			netlink.IPVLAN_MODE_L2: "l2", netlink.IPVLAN_MODE_L3: "l3", netlink.IPVLAN_MODE_L3S: "l3s",
		}[v.Mode])
	}
	words = append(words, map[bool]string{true: "up", false: "down"}[a.RawFlags&unix.IFF_UP != 0], fmt.Sprint("mtu ", a.MTU))
	if mac := a.HardwareAddr.String(); mac != "" && a.RawFlags&unix.IFF_LOOPBACK == 0 {
		words = append(words, "mac "+mac)
	}
	return strings.Join(words, " ")
}

// allRoutes are the routes of every table that somebody configured.
func allRoutes(h netlinksafe.Handle, family int) ([]netlink.Route, error) {
	routes, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	return slices.DeleteFunc(routes, func(r netlink.Route) bool {
		linkLocal := r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() && r.Dst.IP.To4() == nil
		return r.Table == unix.RT_TABLE_LOCAL || linkLocal
	}), err
}

func describeRoute(r netlink.Route, names map[int]string) string {
	words := []string{"main"}
	if r.Table != unix.RT_TABLE_MAIN {
		words = []string{fmt.Sprintf("table %d", r.Table)}
	}
	if r.Type != unix.RTN_UNICAST {
		words = append(words, map[int]string{unix.RTN_UNREACHABLE: "unreachable", unix.RTN_BLACKHOLE: "blackhole"}[r.Type])
	}
	dst := "default"
	if r.Dst != nil {
		if ones, _ := r.Dst.Mask.Size(); ones != 0 {
			dst = r.Dst.String()
		}
	}
	words = append(words, dst)
	if r.Gw != nil {
		words = append(words, "via "+r.Gw.String())
	}
	words = append(words, "dev "+names[r.LinkIndex])
	if r.Src != nil {
		words = append(words, "src "+r.Src.String())
	}
	if r.Priority != 0 {
		words = append(words, fmt.Sprint("metric ", r.Priority))
	}
	return strings.Join(words, " ")
}

func orAll(n fmt.Stringer) string {
	if s := n.String(); s != "<nil>" {
		return s
	}
	return "all"
}
