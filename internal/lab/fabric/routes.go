// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the fabric's routes among the kernel's own.
const routeProtocol = unix.RTPROT_STATIC

// setRoute registers an address or delegated prefix on an ENI, or moves it there: one message, so that there is no
// moment without a route.
func (f *Fabric) setRoute(r route, index map[string]int) error {
	nl := &netlink.Route{Dst: ipNet(r.dst), LinkIndex: index[r.link], Protocol: routeProtocol}
	if r.dst.Addr().Is4() {
		nl.Scope = netlink.SCOPE_LINK
	}
	if err := f.vpc.RouteReplace(nl); err != nil {
		return fmt.Errorf("route %s to %s: %w", r.dst, r.link, err)
	}
	return nil
}

func (f *Fabric) removeRoute(dst netip.Prefix) error {
	return f.deleteRoute(&netlink.Route{Dst: ipNet(dst), Type: unix.RTN_UNICAST, Protocol: routeProtocol, Scope: netlink.SCOPE_NOWHERE})
}

// addUnreachable refuses the rest of one of the VPC's own blocks. Without it, a default route in the VPC's namespace
// would make proxy ARP answer for every address that nobody holds.
func (f *Fabric) addUnreachable(p netip.Prefix) error {
	r := &netlink.Route{Dst: ipNet(p), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol}
	if err := f.vpc.RouteReplace(r); err != nil {
		return fmt.Errorf("make the rest of %s unreachable: %w", p, err)
	}
	return nil
}

func (f *Fabric) removeUnreachable(p netip.Prefix) error {
	return f.deleteRoute(&netlink.Route{Dst: ipNet(p), Type: unix.RTN_UNREACHABLE, Protocol: routeProtocol, Scope: netlink.SCOPE_NOWHERE})
}

func (f *Fabric) deleteRoute(r *netlink.Route) error {
	if err := f.vpc.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route to %s: %w", r.Dst, err)
	}
	return nil
}

// addGateway makes a subnet's router address answer on every ENI and to every subnet.
func (f *Fabric) addGateway(a netip.Addr) error {
	if err := f.vpc.AddrReplace(&netlink.Dummy{LinkAttrs: lo()}, &netlink.Addr{IPNet: ipNet(single(a))}); err != nil {
		return fmt.Errorf("add gateway %s: %w", a, err)
	}
	return nil
}

func (f *Fabric) removeGateway(a netip.Addr) error {
	err := f.vpc.AddrDel(&netlink.Dummy{LinkAttrs: lo()}, &netlink.Addr{IPNet: ipNet(single(a))})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove gateway %s: %w", a, err)
	}
	return nil
}

// lo names the loopback link, whose index is 1 in every namespace.
func lo() netlink.LinkAttrs { return netlink.LinkAttrs{Name: "lo", Index: 1} }

// setProxy adds or removes a proxy NDP entry. Every ENI in the owner's subnet but the owner itself needs one, since the
// kernel's proxy NDP, other than its proxy ARP, does not follow routes.
func (f *Fabric) setProxy(p proxy, index map[string]int, present bool) error {
	n := &netlink.Neigh{
		LinkIndex: index[p.link], Family: netlink.FAMILY_V6, Flags: netlink.NTF_PROXY, IP: p.addr.AsSlice(),
	}
	if present {
		if err := f.vpc.NeighSet(n); err != nil {
			return fmt.Errorf("answer for %s on %s: %w", p.addr, p.link, err)
		}
		return nil
	}
	if err := f.vpc.NeighDel(n); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("stop answering for %s on %s: %w", p.addr, p.link, err)
	}
	return nil
}
