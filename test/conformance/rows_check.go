// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

const checkSince = "0.4.0"

// checkRows are about CHECK.
func checkRows() []row {
	one := func(id string, l level, says string, f func(*kit) error, needs ...need) row {
		return row{id: id, level: l, where: "§2 CHECK", says: says, since: checkSince, once: id == "check-daemon-down", form: id == "check", needs: needs, check: f}
	}
	return []row{
		one("check", must, "CHECK right after ADD succeeds", checkFresh),
		one("check-address", should, "it fails when prevResult has an address that is not the attachment's", checkAddress),
		one("check-gone", should, "it fails when the reservation of the address is gone", checkGone, anIPAM, choosing),
		one("check-daemon-down", should, "it fails when a daemon that the plugin needs is away", checkDaemonDown, aDaemon),
		one("check-no-link", should, "it fails when the interface is gone", spoiled(func(h handle, l netlink.Link) error { return h.LinkDel(l) }), anInterface),
		one("check-no-address", should, "it fails when an address is gone", spoiled(dropAddresses), anInterface),
		one("check-no-route", should, "it fails when a route of the result is gone", checkNoRoute, anInterface),
		one("check-down", should, "it fails when the interface is down, so that the container is unreachable", spoiled(func(h handle, l netlink.Link) error { return h.LinkSetDown(l) }), anInterface),
		one("check-later", must, "it succeeds when a later plugin of the chain changed the MTU, and added an address and a route", checkLater, anInterface),
	}
}

func checkFresh(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	return k.must(k.check(a))
}

// checked attaches and CHECKs, so that a CHECK which never succeeds does not pass for one that saw something.
func (k *kit) checked() (*attachment, error) {
	a, err := k.attach()
	if err != nil {
		return nil, err
	}
	return a, k.must(k.check(a))
}

func checkAddress(k *kit) error {
	a, err := k.checked()
	if err != nil {
		return err
	}
	var prev object
	if err = one(a.result.raw, &prev); err != nil {
		return err
	}
	ips, _ := prev["ips"].([]any)
	first, _ := ips[0].(object)
	was := a.result.IPs[0].Address
	first["address"] = netip.PrefixFrom(was.Addr().Next().Next(), was.Bits()).String()
	_, _, err = k.fails(call{command: "CHECK", at: a, config: object{"prevResult": prev}})
	return err
}

func checkGone(k *kit) error {
	a, err := k.checked()
	if err != nil {
		return err
	}
	if err = k.del(a); err != nil {
		return err
	}
	_, _, err = k.fails(k.check(a))
	return err
}

func checkDaemonDown(k *kit) error {
	a, err := k.checked()
	if err != nil {
		return err
	}
	if err = k.subject.Outside.Down(k.ctx); err != nil {
		return err
	}
	about := k.check(a)
	about.config = merge(about.config, k.subject.Hasty)
	_, _, err = k.fails(about)
	return errors.Join(err, k.subject.Outside.Up(k.ctx))
}

// spoiled attaches, spoils the interface and wants CHECK to see it.
func spoiled(spoil func(handle, netlink.Link) error) func(*kit) error {
	return func(k *kit) error {
		a, err := k.attach()
		if err != nil {
			return err
		}
		if err = a.inside(spoil); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		_, _, err = k.fails(k.check(a))
		return err
	}
}

func dropAddresses(h handle, l netlink.Link) error {
	list, err := h.AddrList(l, netlink.FAMILY_V4)
	for _, a := range list {
		err = errors.Join(err, h.AddrDel(l, &a))
	}
	return err
}

// laterDst is routed by what configures a route at all, and by nobody else.
const laterDst = "198.51.100.0/24"

// routed asks for a route by the configuration's IPAM, whose convention it is.
func routed() object {
	return object{"ipam": object{"routes": []any{object{"dst": laterDst}}}}
}

func checkNoRoute(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	if err = k.add(a, routed()); err != nil {
		return err
	}
	if err = a.inside(dropRoute); err != nil {
		return err
	}
	_, _, err = k.fails(k.check(a))
	return err
}

// dropRoute removes the route from whatever table it is in.
func dropRoute(h handle, l netlink.Link) error {
	list, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	gone := 0
	for _, r := range list {
		if r.Dst != nil && r.Dst.String() == laterDst {
			err = errors.Join(err, h.RouteDel(&r))
			gone++
		}
	}
	if err == nil && gone == 0 {
		err = errors.New("the route of the configuration is not there")
	}
	return err
}

func checkLater(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	if err = a.inside(laterPlugin); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return k.must(k.check(a))
}

// laterPlugin does what plugins do that come after the interface's.
func laterPlugin(h handle, l netlink.Link) error {
	_, dst, err := net.ParseCIDR(laterDst)
	return errors.Join(err,
		h.LinkSetMTU(l, 1400),
		h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 9), Mask: net.CIDRMask(32, 32)}}),
		h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}))
}

const statusSince = "1.1.0"

// statusRows are about STATUS.
func statusRows() []row {
	one := func(id string, l level, says string, f func(*kit) error, needs ...need) row {
		return row{id: id, level: l, where: "§2 STATUS", says: says, since: statusSince, needs: needs, check: f}
	}
	return []row{
		one("status", must, "STATUS succeeds when an ADD would", func(k *kit) error { return k.must(call{command: "STATUS"}) }),
		one("status-daemon-down", should, "it fails with 50 or 51 when a service that the plugin relies on is away", statusDaemonDown, aDaemon),
		one("status-exhausted", should, "within 10 s it fails with 50 or 51 when no address is left", statusExhausted, small, accountable),
		one("status-broken", extra, "it fails when the configuration cannot work", statusBroken, broken),
	}
}

// soon is for a daemon to notice.
const soon = 10 * time.Second

// unavailable is a STATUS that fails with a code of its own.
func (k *kit) unavailable(config object) error {
	code, message, err := k.fails(call{command: "STATUS", config: config})
	if err == nil && code != agentapi.CodeNotAvailable && code != agentapi.CodeLimited {
		err = fmt.Errorf("code %d: %s", code, oneLine(message))
	}
	return err
}

func statusDaemonDown(k *kit) error {
	if err := k.subject.Outside.Down(k.ctx); err != nil {
		return err
	}
	return errors.Join(k.unavailable(nil), k.subject.Outside.Up(k.ctx))
}

func statusExhausted(k *kit) error {
	_, narrow, err := k.exhaust()
	if err != nil {
		return err
	}
	return k.eventually(soon, func() error { return k.unavailable(narrow) })
}

func statusBroken(k *kit) error {
	_, _, err := k.fails(call{command: "STATUS", config: k.subject.Broken})
	return err
}
