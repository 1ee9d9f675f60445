// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pod

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// Packets is a UDP server that sends back what it receives, from the address that it was sent to.
type Packets struct {
	conn *net.UDPConn
	wg   sync.WaitGroup
}

// ServePackets starts a UDP echo server inside the namespace at netnsPath. The caller closes it; until then it keeps the
// namespace alive.
func ServePackets(ctx context.Context, netnsPath string, at netip.AddrPort) (*Packets, error) {
	var conn net.PacketConn
	err := netns.Do(netnsPath, func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, "udp", at.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen in %s: %w", netnsPath, err)
	}
	p := &Packets{conn: conn.(*net.UDPConn)}
	p.wg.Go(p.serve)
	return p, nil
}

// Close ends the server, and waits until nothing of it holds the namespace.
func (p *Packets) Close() error {
	err := p.conn.Close()
	p.wg.Wait()
	return err
}

func (p *Packets) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = p.conn.WriteToUDPAddrPort(buf[:n], from) // the client sends again
	}
}

// ExchangePackets sends packets from the namespace at netnsPath to a UDP echo server until one is back, and returns how
// long that one took. When ctx ends first, the error matches [ErrNoReply].
func ExchangePackets(ctx context.Context, netnsPath string, to netip.AddrPort) (time.Duration, error) {
	var conn net.Conn
	err := netns.Do(netnsPath, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "udp", to.String())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("send to %s: %w", to, err)
	}
	defer conn.Close()
	for mark := byte(0); ctx.Err() == nil; mark++ {
		var rtt time.Duration
		if rtt, err = exchangePacket(conn, mark); err == nil {
			return rtt, nil
		}
		if isTimeout(err) {
			continue
		}
		select { // refused or unreachable, at once
		case <-time.After(pingInterval):
		case <-ctx.Done():
		}
	}
	return 0, fmt.Errorf("send to %s: %w: %w", to, ErrNoReply, err)
}

// exchangePacket sends a packet and waits for it to come back, for an interval.
func exchangePacket(conn net.Conn, mark byte) (time.Duration, error) {
	sent := time.Now()
	if err := conn.SetDeadline(sent.Add(pingInterval)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte{mark}); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, err
		}
		if n == 1 && buf[0] == mark { // and no earlier one that is late
			return time.Since(sent), nil
		}
	}
}
