// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// protocol marks the routes and rules that are ours; no routing daemon uses the number.
// https://github.com/iproute2/iproute2/blob/main/etc/iproute2/rt_protos
const protocol = 77

// pod is a network namespace with a netlink socket in it.
type pod struct {
	ns ns.NetNS
	h  netlinksafe.Handle
}

func enter(path string) (*pod, error) {
	n, err := ns.GetNS(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	h, err := netlinksafe.NewHandleAt(netns.NsHandle(n.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink in %s: %w", path, err), n.Close())
	}
	return &pod{ns: n, h: h}, nil
}

func (p *pod) leave() {
	p.h.Close()
	_ = p.ns.Close() // a file that was only read
}

// configure gives the interface its addresses, sets it up, and adds routes and rules. It returns the routes that it added. What is
// left behind by a failure is removed with the interface by [pod.remove].
func (p *pod) configure(ctx context.Context, c Child, index int) ([]route, error) {
	seen, err := p.look(index)
	if err != nil {
		return nil, err
	}
	want := decide(c, index, seen)
	l := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index, Name: c.IfName}}
	if err := p.sysctls(c, want.arpIgnore); err != nil {
		return nil, err
	}
	for _, a := range c.Addresses {
		if err := p.addAddress(ctx, l, a.Prefix); err != nil {
			return nil, err
		}
	}
	if err := p.h.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("set %s up: %w", c.IfName, err)
	}
	var added []route
	for _, r := range want.routes {
		err := p.h.RouteAdd(r.netlink())
		// What the main table and the first interface's have already stays: the one is not ours, the other may be left of an
		// Add that was killed.
		if errors.Is(err, unix.EEXIST) && r.table != tableBase+index {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("add route %s: %w", r, err)
		}
		added = append(added, r)
	}
	for _, r := range want.rules {
		if err := p.h.RuleAdd(r.netlink()); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("add rule %s: %w", r, err)
		}
	}
	return added, nil
}

// look reads what the plan depends on.
func (p *pod) look(index int) (surroundings, error) {
	var s surroundings
	addrs, err := netlinkAddrs(p.h)
	if err != nil {
		return s, err
	}
	for _, a := range addrs {
		prefix, ok := prefixOf(a.IPNet)
		if ok && a.LinkIndex != index && a.Scope == unix.RT_SCOPE_UNIVERSE && !prefix.Addr().IsLoopback() {
			s.addresses = append(s.addresses, located{a.LinkIndex, prefix})
		}
	}
	routes, err := p.h.RouteList(nil, netlink.FAMILY_ALL) // of the main table
	if err != nil {
		return s, fmt.Errorf("list routes: %w", err)
	}
	for i := range routes {
		if r, ok := fromNetlink(&routes[i]); ok {
			s.main = append(s.main, r)
		}
	}
	rules, err := p.ownRules()
	if err != nil {
		return s, err
	}
	for _, r := range rules {
		s.ruled = append(s.ruled, r.Table-tableBase)
	}
	return s, nil
}

func netlinkAddrs(h netlinksafe.Handle) ([]netlink.Addr, error) {
	for range 5 { // a dump that changed while it was read is read again, as netlinksafe does for the package's own socket
		addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			if err != nil {
				err = fmt.Errorf("list addresses: %w", err)
			}
			return addrs, err
		}
	}
	return nil, errors.New("list addresses: the list kept changing")
}

// addAddress waits for an address that another child of the same master is about to lose.
func (p *pod) addAddress(ctx context.Context, l netlink.Link, prefix netip.Prefix) error {
	const pause = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, addressTimeout)
	defer cancel()
	a := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the VPC answers for addresses of other ENIs, and EC2 vouches for ours
	}
	for {
		err := p.h.AddrAdd(l, a)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("add address %s to %s: %w", prefix, l.Attrs().Name, err)
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w; another child of the same ENI link has it", err)
		}
	}
}

// sysctls are set before the interface is up.
func (p *pod) sysctls(c Child, arpIgnore bool) error {
	values := [][2]string{
		// The address is announced when the interface comes up, so that siblings that knew it elsewhere ask again.
		{"ipv4/conf/" + c.IfName + "/arp_notify", "1"},
		// No duplicate address detection, which [pod.addAddress] turns off for the addresses from EC2: the link-local one is
		// usable at once, too, and an address that the application takes over from another ENI is not found to be a
		// duplicate because the VPC still answers for its last holder.
		{"ipv6/conf/" + c.IfName + "/accept_dad", "0"},
	}
	if arpIgnore {
		values = append(values, [2]string{"ipv4/conf/all/arp_ignore", "1"})
	}
	for _, a := range c.Addresses {
		if a.Prefix.Addr().Is6() {
			values = append(values,
				[2]string{"ipv6/conf/" + c.IfName + "/disable_ipv6", "0"},
				// As with IPv4, addresses survive that the interface is set down and up again.
				[2]string{"ipv6/conf/" + c.IfName + "/keep_addr_on_down", "1"})
			break
		}
	}
	values = append(values, silence(c.IfName)...)
	return p.ns.Do(func(ns.NetNS) error { return writeSysctls(values) })
}

// silence makes a link take addresses and routes from us alone, not from the VPC router's advertisements.
func silence(link string) [][2]string {
	return [][2]string{{"ipv6/conf/" + link + "/accept_ra", "0"}, {"ipv6/conf/" + link + "/autoconf", "0"}}
}

// Where the sysctls of the network namespace are whose thread opens them: in a container, whose own /proc/sys is read-only, the
// host's are there if it was given them.
const (
	sysctlDir     = "/proc/sys/net"
	hostSysctlDir = "/host/proc/sys/net"
)

// writeSysctls leaves out files that the kernel does not have.
func writeSysctls(values [][2]string) error {
	for _, v := range values {
		err := os.WriteFile(filepath.Join(sysctlDir, v[0]), []byte(v[1]), 0)
		if errors.Is(err, unix.EROFS) && os.WriteFile(filepath.Join(hostSysctlDir, v[0]), []byte(v[1]), 0) == nil {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
