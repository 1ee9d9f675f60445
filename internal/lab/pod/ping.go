// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pod

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// ErrNoReply says that nothing came back before the context ended.
var ErrNoReply = errors.New("no reply")

// pingInterval is between two echo requests: short enough to see an address start to answer, long enough for a reply.
const pingInterval = 100 * time.Millisecond

// Ping sends ICMP echo requests from the namespace at netnsPath until one is answered, and returns its round trip. When
// ctx ends first, the error matches [ErrNoReply]. The zone of a link-local address is the name of an interface there.
func Ping(ctx context.Context, netnsPath string, to netip.Addr) (time.Duration, error) {
	return PingFrom(ctx, netnsPath, netip.Addr{}, to)
}

// PingFrom is [Ping] with the source address given.
func PingFrom(ctx context.Context, netnsPath string, from, to netip.Addr) (time.Duration, error) {
	var conn *net.IPConn
	err := netns.Do(netnsPath, func() (err error) {
		conn, err = dialICMP(from, to)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ping %s: %w", to, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	p := pinger{conn: conn, id: uint16(rand.Uint32()), v6: to.Is6()}
	for ctx.Err() == nil {
		rtt, ok, err := p.once()
		if ok {
			return rtt, nil
		}
		if err != nil {
			p.last = err
		}
	}
	return 0, fmt.Errorf("ping %s: %w: %d sent%s", to, ErrNoReply, p.seq, p.reason())
}

// dialICMP opens a raw socket in the calling thread's namespace.
func dialICMP(from, to netip.Addr) (*net.IPConn, error) {
	network := "ip4:icmp"
	remote := &net.IPAddr{IP: to.AsSlice()}
	if to.Is6() {
		network = "ip6:ipv6-icmp"
	}
	if to.Zone() != "" {
		link, err := net.InterfaceByName(to.Zone())
		if err != nil {
			return nil, err
		}
		remote.Zone = fmt.Sprint(link.Index) // package net caches names, over all namespaces
	}
	var local *net.IPAddr
	if from.IsValid() {
		local = &net.IPAddr{IP: from.AsSlice()}
	}
	return net.DialIP(network, local, remote)
}

// pinger is one sequence of echo requests.
type pinger struct {
	conn *net.IPConn
	id   uint16
	seq  uint16
	v6   bool
	last error // why one failed, as the kernel said
}

// ICMP message types (RFC 792, RFC 4443).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// once sends a request and waits for its reply, for an interval. Without one, err is why, as far as the kernel told.
func (p *pinger) once() (rtt time.Duration, ok bool, err error) {
	p.seq++
	request := p.message()
	sent := time.Now()
	deadline := sent.Add(pingInterval)
	_, failed := p.conn.Write(request) // an ICMP error to an earlier request comes up here; wait all the same
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		return 0, false, err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := p.conn.ReadFromIP(buf)
		switch {
		case err == nil && p.answers(buf[:n]):
			return time.Since(sent), true, nil
		case errors.Is(err, net.ErrClosed) || isTimeout(err):
			return 0, false, failed
		case err != nil:
			failed = err
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// message is an echo request. The kernel fills the checksum of ICMPv6 in.
func (p *pinger) message() []byte {
	m := make([]byte, 16)
	m[0] = echoRequest4
	if p.v6 {
		m[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(m[4:], p.id)
	binary.BigEndian.PutUint16(m[6:], p.seq)
	if !p.v6 {
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	return m
}

// answers reports whether m is the reply to the last request.
func (p *pinger) answers(m []byte) bool {
	reply := byte(echoReply4)
	if p.v6 {
		reply = echoReply6
	}
	return len(m) >= 8 && m[0] == reply &&
		binary.BigEndian.Uint16(m[4:]) == p.id && binary.BigEndian.Uint16(m[6:]) == p.seq
}

func (p *pinger) reason() string {
	if p.last == nil {
		return ""
	}
	return ", " + strings.TrimPrefix(p.last.Error(), "write ip ")
}

// checksum is the Internet checksum (RFC 1071) of a message of even length.
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
