// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"errors"
	"fmt"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Del removes the attachment's interface with its routes and rules from the namespace at path, and what a killed [Add]
// left behind. It succeeds when there is nothing to remove, no namespace included. An interface of that name that is no
// ipvlan child is somebody else's and stays.
func Del(path string, k attachment.Key) error {
	p, err := enter(path)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.leave()
	links, err := p.h.LinkList()
	if err != nil {
		return fmt.Errorf("list links of %s: %w", path, err)
	}
	for _, l := range links {
		if _, ours := l.(*netlink.IPVlan); ours && (l.Attrs().Name == k.IfName || l.Attrs().Name == interimName(k)) {
			if err := p.removeLink(l); err != nil {
				return err
			}
		}
	}
	return p.sweep()
}

func gone(err error) bool {
	if _, missing := errors.AsType[ns.NSPathNotExistErr](err); missing {
		return true
	}
	_, other := errors.AsType[ns.NSPathNotNSErr](err)
	return other
}

// remove undoes what was made for an interface.
func (p *pod) remove(l netlink.Link) error {
	return errors.Join(p.removeLink(l), p.sweep())
}

// removeLink takes the routes by the link along, in every table.
func (p *pod) removeLink(l netlink.Link) error {
	if err := p.h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// sweep removes our rules that have outlived their reason: those of interfaces that are gone, and, when no interface of
// ours is left, those that protect others. So it also cleans up after a pod that deleted its interface by itself.
func (p *pod) sweep() error {
	rules, err := p.ownRules()
	if err != nil || len(rules) == 0 {
		return err
	}
	links, err := p.h.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	const foreign, ours = 1, 2
	kind := map[int]int{}
	for _, l := range links {
		kind[l.Attrs().Index] = foreign
		if _, is := l.(*netlink.IPVlan); is {
			kind[l.Attrs().Index] = ours
		}
	}
	left := false // an interface with rules of ours
	for _, r := range rules {
		left = left || kind[r.Table-tableBase] == ours
	}
	for _, r := range rules {
		k := kind[r.Table-tableBase]
		if k == ours || k == foreign && left {
			continue
		}
		if err := p.h.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove rule %d: %w", r.Priority, err)
		}
		if err := p.flush(r.Table); err != nil {
			return err
		}
	}
	return nil
}

// ownRules are the rules that this package has made, of both families.
func (p *pod) ownRules() ([]netlink.Rule, error) {
	rules, err := p.h.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	var own []netlink.Rule
	for _, r := range rules {
		if r.Protocol == protocol && r.Table == r.Priority && r.Table > tableBase {
			own = append(own, r)
		}
	}
	return own, nil
}

// flush removes our routes from a table.
func (p *pod) flush(table int) error {
	filter := &netlink.Route{Table: table, Protocol: protocol}
	routes, err := p.h.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes of table %d: %w", table, err)
	}
	for i := range routes {
		if err := p.h.RouteDel(&routes[i]); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route %s from table %d: %w", routes[i].Dst, table, err)
		}
	}
	return nil
}
