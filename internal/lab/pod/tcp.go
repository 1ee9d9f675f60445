// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pod

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// Listen opens a TCP listener inside the namespace at netnsPath. Until it is closed it keeps the namespace alive.
func Listen(ctx context.Context, netnsPath string, at netip.AddrPort) (net.Listener, error) {
	var l net.Listener
	err := netns.Do(netnsPath, func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", at.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen in %s: %w", netnsPath, err)
	}
	return l, nil
}

// Echo is a TCP server that sends back what it receives.
type Echo struct {
	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]bool // nil once closed
	wg       sync.WaitGroup
}

// ServeEcho starts an echo server inside the namespace at netnsPath. The caller closes it.
func ServeEcho(ctx context.Context, netnsPath string, at netip.AddrPort) (*Echo, error) {
	l, err := Listen(ctx, netnsPath, at)
	if err != nil {
		return nil, err
	}
	e := &Echo{listener: l, conns: map[net.Conn]bool{}}
	e.wg.Go(e.accept)
	return e, nil
}

// Close ends the server and its connections, and waits until nothing of it holds the namespace.
func (e *Echo) Close() error {
	err := e.listener.Close()
	e.mu.Lock()
	for c := range e.conns {
		c.Close()
	}
	e.conns = nil
	e.mu.Unlock()
	e.wg.Wait()
	return err
}

func (e *Echo) accept() {
	for {
		c, err := e.listener.Accept()
		if err != nil {
			return
		}
		if !e.track(c) {
			c.Close()
			return
		}
		e.wg.Go(func() {
			defer e.forget(c)
			_, _ = io.Copy(c, c) // the client decides how it ends
		})
	}
}

func (e *Echo) track(c net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		return false
	}
	e.conns[c] = true
	return true
}

func (e *Echo) forget(c net.Conn) {
	c.Close()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// Exchange connects from the namespace at netnsPath to an echo server, sends a line, and returns how long it took until
// the line was back.
func Exchange(ctx context.Context, netnsPath string, to netip.AddrPort) (time.Duration, error) {
	start := time.Now()
	var c net.Conn
	err := netns.Do(netnsPath, func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("connect to %s: %w", to, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	const line = "an address that the VPC knows\n"
	if _, err = io.WriteString(c, line); err != nil {
		return 0, fmt.Errorf("send to %s: %w", to, err)
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("receive from %s: %w", to, err)
	}
	if got != line {
		return 0, errors.New("echo came back changed: " + got)
	}
	return time.Since(start), nil
}
