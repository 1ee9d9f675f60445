// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// router is the VPC's, on every link.
var router = netip.MustParseAddr("fe80:ec2::1")

// TestRouterAdvertisementsChangeNothing floods every ENI's link with router advertisements while pods are attached and
// run. Nothing in the pods and on the workers comes from them.
func TestRouterAdvertisementsChangeNothing(t *testing.T) {
	g := raise(t, dualStack)
	early := g.attachKind(t, kindOfPod{"before the flood", "worker-1", 1, "reservation", dual}) // brings a late link up
	far := g.attachKind(t, kindOfPod{"on the other worker", "worker-2", 1, "reservation", six})
	places := map[string]string{"worker-1": g.nodes["worker-1"].Netns, "worker-2": g.nodes["worker-2"].Netns, "early": early.pod.Netns, "far": far.pod.Netns}
	for _, i := range []nic{early, far} {
		reach(t, patience, i.pod, router.WithZone("net1"))
	}
	before := map[string][]string{}
	for name, path := range places {
		before[name] = everything(t, path)
	}
	f := g.flood(t)
	f.await(t, 200)
	during := g.attachKind(t, kindOfPod{"in the flood", "worker-1", 1, "reservation", dual})
	undoubted(t, during.pod)
	late := g.attachKind(t, kindOfPod{"in the flood, by a link that is down", "worker-2", 2, "prefix", six})
	undoubted(t, late.pod)
	for _, i := range []nic{during, late} {
		last := i.endpoints()[len(i.addrs)-1]
		last.serveEcho(t)
		for _, o := range []nic{early, far} {
			e := o.endpoints()[len(o.addrs)-1]
			reach(t, patience, e.pod, last.addr)
			e.tcp(t, patience, last.addr)
		}
	}
	f.await(t, 400)
	for name, path := range places {
		after := everything(t, path)
		switch name {
		case "worker-2": // its second link was brought up for a pod, and has a link-local address since
			before[name], after = without(before[name], "eth2"), without(after, "eth2")
			fallthrough
		case "worker-1": // that there is a router is known to whoever hears one; that it is used is not
			before[name], after = without(before[name], "neighbour"), without(after, "neighbour")
		}
		if diff := cmp.Diff(before[name], after); diff != "" {
			t.Errorf("%s has changed (-before the flood +in it):\n%s", name, diff)
		}
	}
	for name, path := range map[string]string{"during": during.pod.Netns, "late": late.pod.Netns, "worker-2": g.nodes["worker-2"].Netns} {
		for _, line := range everything(t, path) {
			for _, trace := range []string{"2001:db8:bad", "fe80::bad", "protocol 9", "mtu 1280", "hop_limit 3"} {
				if strings.Contains(line, trace) {
					t.Errorf("%s: advertised: %s", name, line)
				}
			}
		}
		unexpected(t, path, map[string][]netip.Addr{"during": during.addrs, "late": late.addrs}[name])
	}
	t.Logf("%d advertisements, %.0f a second", f.sent.Load(), float64(f.sent.Load())/time.Since(f.start).Seconds())
}

// unexpected demands that the namespace has no global IPv6 address but these.
func unexpected(t *testing.T, path string, want []netip.Addr) {
	t.Helper()
	for _, line := range look(t, path).Addresses {
		p := netip.MustParsePrefix(strings.Fields(line)[1])
		if p.Addr().Is6() && !slices.Contains(want, p.Addr()) {
			t.Errorf("%s: address %s, which nobody gave", path, line)
		}
	}
}

func without(lines []string, word string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.Contains(l, word) })
}

// everything is all that a router advertisement could change in a namespace, whoever made it.
func everything(t *testing.T, path string) []string {
	t.Helper()
	h, err := pod.Handle(path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		say("link %s mtu %d", a.Name, a.MTU)
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		say("address %s on %s flags %#x valid %d preferred %d", a.IPNet, names[a.LinkIndex], a.Flags, a.ValidLft, a.PreferedLft)
	}
	routes, err := h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		say("route %s via %v dev %s table %d type %d protocol %d metric %d mtu %d hoplimit %d src %v", r.Dst, r.Gw, names[r.LinkIndex],
			r.Table, r.Type, r.Protocol, r.Priority, r.MTU, r.Hoplimit, r.Src)
	}
	rules, err := h.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		say("rule %s", r)
	}
	neighbours, err := h.NeighList(0, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbours {
		if n.IP.Equal(router.AsSlice()) { // others come and go
			say("neighbour %s at %s on %s", n.IP, n.HardwareAddr, names[n.LinkIndex])
		}
	}
	return slices.Concat(slices.Sorted(slices.Values(lines)), sysctls(t, path, names))
}

// sysctls are those that the kernel sets by router advertisements (RFC 4861, section 6.3.4).
func sysctls(t *testing.T, path string, names map[int]string) []string {
	t.Helper()
	var lines []string
	err := netns.Do(path, func() error {
		for _, name := range slices.Sorted(maps.Values(names)) {
			for _, file := range []string{"conf/" + name + "/hop_limit", "conf/" + name + "/mtu", "neigh/" + name + "/base_reachable_time_ms", "neigh/" + name + "/retrans_time_ms"} {
				value, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6", file))
				if err != nil {
					return err
				}
				_, key := filepath.Split(file)
				lines = append(lines, fmt.Sprintf("%s of %s: %s %s", file, name, key, bytes.TrimSpace(value)))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// flood sends router advertisements on every ENI's link.
type flood struct {
	sent  atomic.Int64
	start time.Time
}

// flood goes on until the test ends.
func (g *ground) flood(t *testing.T) *flood {
	t.Helper()
	vpc := g.lab.Fabric.Netns("vpc")
	links, err := fabricEnds(vpc)
	if err != nil {
		t.Fatal(err)
	}
	var socket int
	if err := netns.Do(vpc, func() (err error) {
		socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	f := &flood{start: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.send(ctx, socket, links) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("send router advertisements: %v", err)
		}
		_ = unix.Close(socket)
	})
	return f
}

// floodInterval is between two advertisements on each link.
const floodInterval = 5 * time.Millisecond

func (f *flood) send(ctx context.Context, socket int, links []netlink.LinkAttrs) error {
	tick := time.NewTicker(floodInterval)
	defer tick.Stop()
	everyNode := [8]byte{0x33, 0x33, 0, 0, 0, 1}
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, l := range links {
			to := &unix.SockaddrLinklayer{Protocol: 0xdd86, Ifindex: l.Index, Halen: 6, Addr: everyNode} // IPv6, in network order
			if err := unix.Sendto(socket, advertisements(l.HardwareAddr)[round%3], 0, to); err != nil {
				return err
			}
			f.sent.Add(1)
		}
	}
}

// await waits until so many advertisements more were sent.
func (f *flood) await(t *testing.T, more int64) {
	t.Helper()
	goal := f.sent.Load() + more
	await(t, "router advertisements are sent", func() error {
		if n := f.sent.Load(); n < goal {
			return fmt.Errorf("%d of %d", n, goal)
		}
		return nil
	})
}

// fabricEnds are the ENIs' links in the VPC's namespace.
func fabricEnds(vpc string) ([]netlink.LinkAttrs, error) {
	h, err := pod.Handle(vpc)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	var ends []netlink.LinkAttrs
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "eni-") {
			ends = append(ends, *l.Attrs())
		}
	}
	return ends, err
}

// advertisements are of the VPC's router, of another one, and the router's farewell, which takes back what it is said to
// have given: a lifetime of zero (RFC 4861, section 6.3.4).
func advertisements(mac net.HardwareAddr) [][]byte {
	rogue := net.HardwareAddr{2, 0, 0, 0, 0xb, 0xad}
	return [][]byte{
		advertisement(router, mac, 1800),
		advertisement(netip.MustParseAddr("fe80::bad"), rogue, 1800),
		advertisement(router, mac, 0),
	}
}

// advertisement is a packet with everything that Linux believes: a default router of high preference, hop limit, timers,
// MTU, prefixes to make addresses of, among them the subnet's own (RFC 4861, section 4.2), and routes (RFC 4191).
func advertisement(from netip.Addr, mac net.HardwareAddr, lifetime uint16) []byte {
	b := []byte{134, 0, 0, 0, 3, 0xc8} // hop limit 3; managed, other, high preference
	b = binary.BigEndian.AppendUint16(b, lifetime)
	b = append(b, 0, 0, 0x03, 0xe8, 0, 0, 0x03, 0xe8) // reachable time and retransmission timer
	b = append(append(b, 1, 1), mac...)
	b = append(b, 5, 1, 0, 0, 0, 0, 0x05, 0) // MTU 1280
	for _, p := range []string{"2001:db8:bad::", "2001:db8:77:1::", "2001:db8:77:2::"} {
		b = append(b, 3, 4, 64, 0xc0) // on-link, autonomous
		b = binary.BigEndian.AppendUint32(b, uint32(lifetime))
		b = binary.BigEndian.AppendUint32(b, uint32(lifetime))
		b = append(append(b, 0, 0, 0, 0), netip.MustParseAddr(p).AsSlice()...)
	}
	for _, r := range []string{"::/0", "2001:db8:bad2::/48"} {
		p := netip.MustParsePrefix(r)
		b = append(b, 24, 3, byte(p.Bits()), 8)
		b = binary.BigEndian.AppendUint32(b, uint32(lifetime))
		b = append(b, p.Addr().AsSlice()...)
	}
	to := netip.IPv6LinkLocalAllNodes()
	binary.BigEndian.PutUint16(b[2:], checksum(slices.Concat(from.AsSlice(), to.AsSlice(),
		[]byte{0, 0, 0, byte(len(b)), 0, 0, 0, unix.IPPROTO_ICMPV6}, b)))
	return slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(b)), unix.IPPROTO_ICMPV6, 255}, from.AsSlice(), to.AsSlice(), b)
}

// checksum is that of the Internet (RFC 1071), of an even number of bytes.
func checksum(m []byte) uint16 {
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
