// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// netlinkRoute is the one netlink family that the fabric's handles need.
const netlinkRoute = unix.NETLINK_ROUTE

// vpcSysctls turn a fresh namespace into the VPC's router. conf/default is copied when a device appears, so they must
// be written before the first ENI is made.
// https://docs.kernel.org/networking/ip-sysctl.html
func vpcSysctls() map[string]string {
	return map[string]string{
		"ipv4/ip_forward":             "1",
		"ipv4/conf/default/proxy_arp": "1", // answer for what is routed elsewhere; never for what the asking link itself holds
		// The source check sees no ARP, rp_filter does: an ENI cannot even resolve its gateway from an address that it does
		// not hold. The effective value is max(all, device).
		"ipv4/conf/default/rp_filter": "1",
		// A redirect is sent when "all" or the device allows it.
		"ipv4/conf/default/send_redirects": "0",
		"ipv4/conf/all/send_redirects":     "0",
		"ipv6/conf/all/forwarding":         "1",
		"ipv6/conf/default/proxy_ndp":      "1",
		"ipv6/conf/default/accept_dad":     "0",
	}
}

// writeSysctls sets the values below /proc/sys/net of the calling thread's namespace. IPv6 is left out where the kernel
// has none.
func writeSysctls(values map[string]string) error {
	for key, value := range values {
		err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(key, "ipv6/") {
			continue
		}
		if err != nil {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}

// prepareVPC makes the VPC's empty namespace a router with a source check.
func (f *Fabric) prepareVPC() error {
	if err := netns.Do(f.Netns(vpcName), func() error { return writeSysctls(vpcSysctls()) }); err != nil {
		return fmt.Errorf("prepare the VPC's namespace: %w", err)
	}
	lo, err := f.vpc.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo in the VPC's namespace: %w", err)
	}
	if err := f.vpc.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up in the VPC's namespace: %w", err)
	}
	return f.addSourceCheck()
}

// read is the state of the VPC's namespace.
func (f *Fabric) read() (state, error) {
	s := newState()
	links, err := f.vpc.LinkList()
	if err != nil {
		return state{}, fmt.Errorf("list links of the VPC's namespace: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		if strings.HasPrefix(l.Attrs().Name, fabricEndPrefix) {
			s.links[l.Attrs().Name] = l.Attrs().Alias
		}
	}
	if err = f.readGateways(s); err != nil {
		return state{}, err
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		var routes []netlink.Route
		routes, err = f.vpc.RouteListFiltered(family, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return state{}, fmt.Errorf("list routes of the VPC's namespace: %w", err)
		}
		for _, r := range routes {
			dst := prefixOf(r.Dst)
			if r.Type == unix.RTN_UNREACHABLE {
				s.unreachable[dst] = true
			} else {
				s.routes[dst] = names[r.LinkIndex]
			}
		}
	}
	neighbours, err := f.vpc.NeighProxyList(0, netlink.FAMILY_V6)
	if err != nil {
		return state{}, fmt.Errorf("list proxy NDP of the VPC's namespace: %w", err)
	}
	for _, n := range neighbours {
		addr, _ := netip.AddrFromSlice(n.IP)
		s.proxies[proxy{addr: addr, link: names[n.LinkIndex]}] = true
	}
	return s, nil
}

// readGateways adds the IPv4 addresses of lo other than its own.
func (f *Fabric) readGateways(s state) error {
	lo, err := f.vpc.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo in the VPC's namespace: %w", err)
	}
	addrs, err := f.vpc.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list gateways of the VPC's namespace: %w", err)
	}
	for _, a := range addrs {
		if addr := prefixOf(a.IPNet).Addr(); !addr.IsLoopback() {
			s.gateways[addr] = true
		}
	}
	return nil
}

// change carries out what leads from have to want. Links that go take their routes along; a route moves before the
// proxy entries of its old place go, so that an address never has none.
func (f *Fabric) change(ctx context.Context, have, want state) error {
	c := diff(have, want)
	if err := each(ctx, c.removeLinks, f.removeLink); err != nil {
		return err
	}
	if err := each(ctx, c.addGateways, f.addGateway); err != nil {
		return err
	}
	if err := each(ctx, c.addUnreachable, f.addUnreachable); err != nil {
		return err
	}
	if err := f.addLinks(ctx, c.addLinks, want); err != nil {
		return err
	}
	index, err := f.indexes()
	if err != nil {
		return err
	}
	steps := []func() error{
		func() error {
			return each(ctx, c.addProxies, func(p proxy) error { return f.setProxy(p, index, true) })
		},
		func() error { return each(ctx, c.setRoutes, func(r route) error { return f.setRoute(r, index) }) },
		func() error { return each(ctx, c.removeRoutes, f.removeRoute) },
		func() error {
			return each(ctx, c.removeProxies, func(p proxy) error { return f.setProxy(p, index, false) })
		},
		func() error { return each(ctx, c.removeUnreachable, f.removeUnreachable) },
		func() error { return each(ctx, c.removeGateways, f.removeGateway) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// each calls do for every item until one fails or ctx ends.
func each[T any](ctx context.Context, items []T, do func(T) error) error {
	for _, item := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := do(item); err != nil {
			return err
		}
	}
	return nil
}

// indexes of the links in the VPC's namespace, by name.
func (f *Fabric) indexes() (map[string]int, error) {
	links, err := f.vpc.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links of the VPC's namespace: %w", err)
	}
	index := map[string]int{}
	for _, l := range links {
		index[l.Attrs().Name] = l.Attrs().Index
	}
	return index, nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
