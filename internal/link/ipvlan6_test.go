// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package link

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	labpod "github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// routed is an ENI's link whose far end is a router: fe80:ec2::1 and 10.10.1.1, with hosts of other subnets behind it.
func routed(t *testing.T) attachment.Link {
	t.Helper()
	master := ready(t, "eth1", "0a:00:00:00:00:01")
	far, err := netlink.LinkByName("eth1-far")
	if err != nil {
		t.Error(err)
		return master
	}
	router := newNetns(t)
	n, err := enter(router)
	if err != nil {
		t.Error(err)
		return master
	}
	defer n.leave()
	if err = netlink.LinkSetNsFd(far, int(n.ns.Fd())); err != nil {
		t.Error(err)
	}
	lo, err := n.h.LinkByName("lo")
	if err != nil {
		t.Error(err)
	}
	for link, addresses := range map[netlink.Link][]string{
		far: {"10.10.1.1/24", "fe80:ec2::1/64", "2001:db8:1::ffff/64"},
		lo:  {"10.10.9.9/32", "2001:db8:9::9/128"},
	} {
		for _, a := range addresses {
			if err := n.h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(a)), Flags: unix.IFA_F_NODAD}); err != nil {
				t.Errorf("add %s: %v", a, err)
			}
		}
		if err := n.h.LinkSetUp(link); err != nil {
			t.Error(err)
		}
	}
	advertise(t, router, far.Attrs().Index)
	return master
}

// advertise floods the link with router advertisements until the test ends: a prefix, and the router as the default
// gateway (RFC 4861, section 4.2).
func advertise(t *testing.T, router string, index int) {
	t.Helper()
	message := []byte{
		134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, // router advertisement, lifetime 1800 s
		3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0, // prefix information: on-link, autonomous, 1800 s
		0x20, 1, 0xd, 0xb8, 0, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // 2001:db8:bb::/64
	}
	var s int
	if err := netns.Do(router, func() (err error) {
		if s, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6); err != nil {
			return err
		}
		for option, v := range map[int]int{unix.IPV6_MULTICAST_HOPS: 255, unix.IPV6_MULTICAST_IF: index} {
			if err := unix.SetsockoptInt(s, unix.IPPROTO_IPV6, option, v); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
		return
	}
	everyNode := &unix.SockaddrInet6{Addr: netip.IPv6LinkLocalAllNodes().As16(), ZoneId: uint32(index)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		sent := 0
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				ended <- sent
				return
			case <-tick.C:
				if unix.Sendto(s, message, 0, everyNode) == nil {
					sent++
				}
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		if sent := <-ended; sent == 0 {
			t.Error("no router advertisement was sent")
		}
		_ = unix.Close(s)
	})
}

func dual(master attachment.Link, path, container, v4, v6 string) Child {
	c := Child{
		Key: keyOf(container, "net1"), Netns: path, Master: master, SourceRouting: true,
		Routes: []netconf.Route{to("0.0.0.0/0"), to("::/0")},
	}
	if v4 != "" {
		c.Addresses = append(c.Addresses, addr(v4, "10.10.1.1"))
	}
	if v6 != "" {
		c.Addresses = append(c.Addresses, addr(v6, "fe80:ec2::1"))
	}
	return c
}

// TestDualStackChildrenReachTheirPeersAtOnce pings siblings, hosts of the subnet and hosts behind the router as soon as
// Add has returned; a flood of router advertisements changes nothing in the pods.
func TestDualStackChildrenReachTheirPeersAtOnce(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		master := routed(t)
		first, second, third := newNetns(t), newNetns(t), newNetns(t)
		empty := snapshot(t, third)
		for _, c := range []Child{
			dual(master, first, "c1", "10.10.1.70/24", "2001:db8:1::70/64"),
			dual(master, second, "c2", "", "2001:db8:1::71/64"),
		} {
			if len(c.Addresses) == 1 {
				c.Routes = c.Routes[1:]
			}
			if _, err := Add(t.Context(), c); err != nil {
				t.Error(err)
			}
		}
		c := dual(master, third, "c3", "10.10.1.72/24", "2001:db8:1::72/64")
		made, err := Add(t.Context(), c)
		if err != nil {
			t.Error(err)
			return
		}
		added := time.Now()
		for _, peer := range []string{
			"2001:db8:9::9", "2001:db8:1::70", "2001:db8:1::71", "2001:db8:1::ffff", "10.10.9.9", "10.10.1.70", "10.10.1.1",
		} {
			reach(t, third, peer)
		}
		t.Logf("all peers answered within %s of the interface being there", time.Since(added).Round(time.Millisecond))
		reach(t, second, "2001:db8:1::72")
		reach(t, second, "2001:db8:9::9")

		c.Routes = made.Routes
		if err := Check(c); err != nil {
			t.Errorf("Check: %v", err)
		}
		quiet(t, third)
		for range 2 {
			if err := Del(third, c.Key); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(empty, snapshot(t, third)); diff != "" {
			t.Errorf("left behind (-before +after):\n%s", diff)
		}
	})
}

func reach(t *testing.T, from, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if rtt, err := labpod.Ping(ctx, from, netip.MustParseAddr(to)); err != nil {
		t.Errorf("%s: %v", to, err)
	} else if rtt > time.Second {
		t.Errorf("%s answered after %s", to, rtt)
	}
}

// quiet holds that no advertisement has left a trace.
func quiet(t *testing.T, path string) {
	t.Helper()
	if got := snapshot(t, path); strings.Contains(got, "2001:db8:bb:") {
		t.Errorf("a route was advertised into the pod:\n%s", got)
	}
	p, err := enter(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer p.leave()
	routes, err := p.h.RouteList(nil, netlink.FAMILY_V6)
	if err != nil {
		t.Error(err)
	}
	defaults := 0
	for i := range routes {
		if r, ok := fromNetlink(&routes[i]); ok && r.IsDefault() {
			defaults++
			if r.Gateway != netip.MustParseAddr("fe80:ec2::1") || routes[i].Protocol != protocol {
				t.Errorf("default route by %s of protocol %s", r.Gateway, routes[i].Protocol)
			}
		}
	}
	if defaults != 1 {
		t.Errorf("%d default routes, want 1", defaults)
	}
	addrs, err := netlinkAddrs(p.h)
	if err != nil {
		t.Error(err)
	}
	for _, a := range addrs {
		if a.Scope == unix.RT_SCOPE_UNIVERSE && a.IP.To4() == nil && !a.IP.IsLoopback() && !a.IP.Equal(net.ParseIP("2001:db8:1::72")) {
			t.Errorf("address %s came from elsewhere", a.IP)
		}
	}
}
