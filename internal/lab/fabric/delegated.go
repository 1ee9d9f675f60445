// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// answerer answers neighbour solicitations for addresses of delegated IPv6 prefixes, as the VPC does on every ENI of the
// subnet but the holder's. The kernel's proxy NDP knows single addresses only. IPv4 needs nothing of the kind.
type answerer struct {
	socket *os.File // a packet socket in the VPC's namespace
	raw    syscall.RawConn
	ended  chan struct{}
	known  atomic.Pointer[delegations]
}

// delegations are what the answerer goes by.
type delegations struct {
	links   map[int]delegatedLink // by index
	holders map[netip.Prefix]int  // /80 prefix → index of the ENI's link
}

type delegatedLink struct {
	subnet string
	mac    net.HardwareAddr
}

// Where things are in a neighbour solicitation with its IPv6 header (RFC 8200 section 3, RFC 4861 section 4.3).
const (
	ipv6NextHeader = 6
	ipv6Dest       = 24
	icmpType       = 40
	ndTarget       = 48
	ndLength       = 64 // to the end of the target

	solicitation, advertisement = 135, 136
	ndHopLimit                  = 255
)

// answer starts an answerer in the namespace at path.
func answer(path string) (*answerer, error) {
	var fd int
	err := netns.Do(path, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_IPV6)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	a := &answerer{socket: os.NewFile(uintptr(fd), "neighbour solicitations"), ended: make(chan struct{})}
	a.known.Store(&delegations{})
	only := []unix.SockFilter{ // solicitations; nothing else costs anything
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ipv6NextHeader},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMPV6, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: icmpType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: solicitation, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(only)), Filter: &only[0]})
	if err == nil {
		a.raw, err = a.socket.SyscallConn()
	}
	if err != nil {
		_ = a.socket.Close() // nothing was written
		return nil, fmt.Errorf("listen for neighbour solicitations: %w", err)
	}
	go a.serve()
	return a, nil
}

func (a *answerer) close() error {
	err := a.socket.Close()
	<-a.ended
	return err
}

func (a *answerer) serve() {
	defer close(a.ended)
	buf := make([]byte, 1500)
	for {
		var n int
		var from unix.Sockaddr
		var failed error
		if err := a.raw.Read(func(fd uintptr) (done bool) {
			n, from, failed = unix.Recvfrom(int(fd), buf, 0)
			return failed != unix.EAGAIN
		}); err != nil {
			return // closed
		}
		if failed != nil {
			continue // a link that went down reports it once
		}
		if reply, to := a.known.Load().reply(buf[:n], from); reply != nil {
			// What is lost is asked for again.
			_ = a.raw.Write(func(fd uintptr) (done bool) { return unix.Sendto(int(fd), reply, 0, to) != unix.EAGAIN })
		}
	}
}

// reply is the advertisement that answers a solicitation, if the VPC answers it.
func (d *delegations) reply(packet []byte, from unix.Sockaddr) ([]byte, *unix.SockaddrLinklayer) {
	asker, ok := from.(*unix.SockaddrLinklayer)
	if !ok || len(packet) < ndLength || packet[ipv6NextHeader+1] != ndHopLimit {
		return nil, nil
	}
	target, _ := netip.AddrFromSlice(packet[ndTarget:ndLength])
	link, ok := d.links[asker.Ifindex]
	if !ok || !d.elsewhere(target, asker.Ifindex) {
		return nil, nil
	}
	source, _ := netip.AddrFromSlice(packet[8:ipv6Dest])
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IPV6), Ifindex: asker.Ifindex, Halen: 6, Addr: asker.Addr}
	solicited := byte(0x40)
	if source.IsUnspecified() { // duplicate address detection: all nodes shall hear it (RFC 4861, section 7.2.4)
		source, solicited = netip.IPv6LinkLocalAllNodes(), 0
		to.Addr = [8]byte{0x33, 0x33, 0, 0, 0, 1}
	}
	return neighbourAdvertisement(source, target, link.mac, solicited), to
}

// elsewhere reports whether another ENI of the link's subnet holds the prefix that a lies in.
func (d *delegations) elsewhere(a netip.Addr, link int) bool {
	p, err := a.Prefix(80)
	if err != nil {
		return false
	}
	holder, ok := d.holders[p]
	return ok && holder != link && d.links[holder].subnet == d.links[link].subnet
}

// neighbourAdvertisement is the packet (RFC 4861, section 4.4) with its IPv6 header, from the VPC's router. As a proxy's,
// it does not override what the asker knows.
func neighbourAdvertisement(to, target netip.Addr, mac net.HardwareAddr, flags byte) []byte {
	body := append([]byte{advertisement, 0, 0, 0, flags, 0, 0, 0}, target.AsSlice()...)
	body = append(body, 2, 1) // target link-layer address
	body = append(body, mac...)
	pseudo := bytes.Join([][]byte{routerIPv6.AsSlice(), to.AsSlice(), {0, 0, 0, byte(len(body)), 0, 0, 0, unix.IPPROTO_ICMPV6}, body}, nil)
	binary.BigEndian.PutUint16(body[2:], internetChecksum(pseudo))
	header := []byte{0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, ndHopLimit}
	return bytes.Join([][]byte{header, routerIPv6.AsSlice(), to.AsSlice(), body}, nil)
}

// internetChecksum of a message of even length (RFC 1071).
func internetChecksum(m []byte) uint16 {
	var sum uint32
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// delegate tells the answerer who holds which prefix.
func (f *Fabric) delegate(want state) error {
	links, err := f.vpc.LinkList()
	if err != nil {
		return fmt.Errorf("list links of the VPC's namespace: %w", err)
	}
	d := &delegations{links: map[int]delegatedLink{}, holders: map[netip.Prefix]int{}}
	index := map[string]int{}
	for _, l := range links {
		a := l.Attrs()
		index[a.Name] = a.Index
		if e, ok := want.enis[a.Name]; ok {
			d.links[a.Index] = delegatedLink{subnet: e.Subnet, mac: a.HardwareAddr}
		}
	}
	for p, end := range want.routes {
		if p.Addr().Is6() && !p.IsSingleIP() {
			d.holders[p] = index[end]
		}
	}
	f.answerer.known.Store(d)
	return nil
}
