// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// TestIPVlanPodsPingExactlyWhenRouted is the ground under the whole project, with nothing of the project in between: a
// router namespace that knows an address only by a host route to the link that holds it, two workers, and an ipvlan pod
// on each. It also shows that the place the runner chose can do all of that.
func TestIPVlanPodsPingExactlyWhenRouted(t *testing.T) {
	vpc, worker1, worker2 := newSpace(t), newSpace(t), newSpace(t)
	pod1, pod2 := newSpace(t), newSpace(t)
	vpc.sysctl(t, "net/ipv4/ip_forward", "1")
	vpc.sysctl(t, "net/ipv4/conf/default/proxy_arp", "1")
	vpc.sysctl(t, "net/ipv4/conf/default/rp_filter", "1")
	vpc.sysctl(t, "net/ipv4/conf/all/send_redirects", "0")
	vpc.sysctl(t, "net/ipv4/conf/default/send_redirects", "0")
	vpc.up(t, "lo")
	vpc.addr(t, "lo", "10.10.1.1/32")

	connect(t, vpc, "eni-1", worker1, "eth1")
	connect(t, vpc, "eni-2", worker2, "eth1")
	child(t, worker1, "eth1", pod1, "10.10.1.70/24")
	child(t, worker2, "eth1", pod2, "10.10.1.71/24")
	to1, to2 := netip.MustParseAddr("10.10.1.70"), netip.MustParseAddr("10.10.1.71")

	expect := func(when string, want bool) {
		t.Helper()
		if err := pod1.ping(t, to2); (err == nil) != want {
			t.Errorf("%s: pod 1 pings pod 2: got %v, want success %t", when, err, want)
		}
	}
	expect("neither address is routed", false)
	vpc.route(t, "eni-2", to2)
	expect("only the target is routed", false)
	vpc.route(t, "eni-1", to1)
	expect("both are routed", true)
	vpc.route(t, "eni-1", to2)
	expect("the target is routed to the other link", false)
}

// space is a network namespace of this test, with a netlink socket in it.
type space struct {
	handle netns.NsHandle
	link   *netlink.Handle
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := &space{}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread belongs to the new namespace
		var err error
		s.handle, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatalf("new namespace: %v", err)
	}
	link, err := netlink.NewHandleAt(s.handle, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatalf("netlink in namespace: %v", err)
	}
	s.link = link
	t.Cleanup(func() {
		link.Close()
		if err := s.handle.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// do runs f on a thread in the namespace; the thread dies with it.
func (s *space) do(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.handle); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (s *space) sysctl(t *testing.T, name, value string) {
	t.Helper()
	err := s.do(t, func() error { return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644) })
	if err != nil {
		t.Fatalf("sysctl %s: %v", name, err)
	}
}

func (s *space) find(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := s.link.LinkByName(name)
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
	return link
}

func (s *space) up(t *testing.T, name string) {
	t.Helper()
	if err := s.link.LinkSetUp(s.find(t, name)); err != nil {
		t.Fatalf("link %s up: %v", name, err)
	}
}

func (s *space) addr(t *testing.T, name, prefix string) {
	t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.link.AddrAdd(s.find(t, name), addr); err != nil {
		t.Fatalf("address %s on %s: %v", prefix, name, err)
	}
}

func (s *space) route(t *testing.T, name string, to netip.Addr) {
	t.Helper()
	route := &netlink.Route{
		LinkIndex: s.find(t, name).Attrs().Index,
		Dst:       &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Scope:     netlink.SCOPE_LINK,
	}
	if err := s.link.RouteReplace(route); err != nil {
		t.Fatalf("route %s to %s: %v", to, name, err)
	}
}

// connect makes a veth pair whose router end answers ARP without the usual random delay.
func connect(t *testing.T, vpc *space, port string, worker *space, name string) {
	t.Helper()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: name, PeerNamespace: netlink.NsFd(int(worker.handle)),
	}
	if err := vpc.link.LinkAdd(veth); err != nil {
		t.Fatalf("veth %s: %v", port, err)
	}
	vpc.sysctl(t, "net/ipv4/neigh/"+port+"/proxy_delay", "0")
	vpc.up(t, port)
	worker.up(t, name)
}

func child(t *testing.T, worker *space, master string, pod *space, prefix string) {
	t.Helper()
	link := &netlink.IPVlan{
		LinkAttrs: netlink.LinkAttrs{
			Name: "net1", ParentIndex: worker.find(t, master).Attrs().Index, Namespace: netlink.NsFd(int(pod.handle)),
		},
		Mode: netlink.IPVLAN_MODE_L2,
	}
	if err := worker.link.LinkAdd(link); err != nil {
		t.Fatalf("ipvlan on %s: %v", master, err)
	}
	pod.up(t, "net1")
	pod.addr(t, "net1", prefix)
}

// ping sends echo requests every 100 ms and returns nil at the first reply within two seconds: longer than a
// neighbour entry needs to be tried again (1 s), so an address that was unreachable before gets its chance.
func (s *space) ping(t *testing.T, to netip.Addr) error {
	t.Helper()
	var conn net.PacketConn
	err := s.do(t, func() (err error) {
		conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		t.Fatalf("open ICMP socket: %v", err)
	}
	defer conn.Close()
	echo := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}
	binary.BigEndian.PutUint16(echo[2:], checksum(echo))
	deadline := time.Now().Add(2 * time.Second)
	reply := make([]byte, 1500)
	for time.Now().Before(deadline) {
		if _, err := conn.WriteTo(echo, &net.IPAddr{IP: to.AsSlice()}); err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		n, from, err := conn.ReadFrom(reply)
		if err == nil && n >= 8 && reply[0] == 0 && from.String() == to.String() {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.EHOSTUNREACH) {
			return err
		}
	}
	return fmt.Errorf("no reply from %s", to)
}

func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
