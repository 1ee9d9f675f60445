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
	buf := make([]byte, 1500)
	for sent := byte(0); ctx.Err() == nil; sent++ {
		start := time.Now()
		_, last := conn.Write([]byte{sent})
		for last == nil {
			deadline := start.Add(pingInterval)
			if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
				deadline = end
			}
			if err := conn.SetReadDeadline(deadline); err != nil {
				return 0, err
			}
			var n int
			if n, last = conn.Read(buf); last == nil && n == 1 && buf[0] == sent {
				return time.Since(start), nil
			}
		}
		err = last
		if isTimeout(last) {
			continue
		}
		select { // refused or unreachable, at once
		case <-time.After(pingInterval):
		case <-ctx.Done():
		}
	}
	return 0, fmt.Errorf("send to %s: %w: %w", to, ErrNoReply, err)
}
