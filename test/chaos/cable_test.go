// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// fate is what a cable does to what is sent over it.
type fate int

const (
	whole   fate = iota
	hung         // nothing arrives on either side; connections stay open
	deaf         // requests arrive and take effect, answers do not come
	refused      // nobody listens, and connections are reset
	numFates
)

func (f fate) String() string { return [...]string{"whole", "hung", "deaf", "refused"}[f] }

// cable is a service in a worker's network namespace, with what lies between it and the worker's agent. It is plugged in
// and cut by its worker.
type cable struct {
	netns   string
	at      netip.AddrPort
	handler http.Handler
	open    atomic.Int64 // requests that are not answered

	cutting sync.Mutex // one change at a time
	server  *http.Server
	served  chan struct{}

	mu   sync.Mutex
	fate fate
	news chan struct{} // closed when the fate changes
}

func newCable(netns string, at netip.AddrPort, service http.Handler) *cable {
	c := &cable{netns: netns, at: at, news: make(chan struct{})}
	c.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.open.Add(1)
		defer c.open.Add(-1)
		// A request that has arrived takes effect, whatever becomes of its sender.
		service.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	})
	return c
}

// plug begins to listen.
func (c *cable) plug() error {
	inner, err := c.listen()
	if err != nil {
		return err
	}
	c.server, c.served = &http.Server{Handler: c.handler}, make(chan struct{})
	go func(server *http.Server, served chan struct{}) {
		defer close(served)
		_ = server.Serve(&socket{inner, c}) // ends when it is closed
	}(c.server, c.served)
	return nil
}

// listen opens the socket again. A process that is just being started has a copy of the one before until its exec.
func (c *cable) listen() (net.Listener, error) {
	const limit = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		l, err := pod.Listen(ctx, c.netns, c.at)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// unplug resets what is open, and with it what a cut held back.
func (c *cable) unplug() error {
	if c.server == nil {
		return nil
	}
	err := c.server.Close()
	<-c.served
	c.server = nil
	return err
}

// close ends the service.
func (c *cable) close() error {
	c.cutting.Lock()
	defer c.cutting.Unlock()
	return c.unplug()
}

// cut gives the cable another fate. What a fate before has held back arrives now, if late, and otherwise never does.
func (c *cable) cut(f fate, late bool) error {
	c.cutting.Lock()
	defer c.cutting.Unlock()
	was := c.set(whole)
	var err error
	switch {
	case f == refused:
		err = c.unplug()
	case was == refused:
		err = c.plug()
	case was != whole && !late:
		err = errors.Join(c.unplug(), c.plug())
	}
	c.set(f)
	return err
}

func (c *cable) set(f fate) (was fate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, c.fate = c.fate, f
	close(c.news)
	c.news = make(chan struct{})
	return was
}

// wait returns when the fate is none of those, or false when gone is closed.
func (c *cable) wait(gone <-chan struct{}, held ...fate) bool {
	for {
		c.mu.Lock()
		now, news := c.fate, c.news
		c.mu.Unlock()
		if !slices.Contains(held, now) {
			return true
		}
		select {
		case <-news:
		case <-gone:
			return false
		}
	}
}

// socket hands out connections that share the cable's fate.
type socket struct {
	net.Listener
	cable *cable
}

// Accept implements [net.Listener].
func (s *socket) Accept() (net.Conn, error) {
	inner, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &strand{Conn: inner, cable: s.cable, gone: make(chan struct{})}, nil
}

// strand is one connection.
type strand struct {
	net.Conn
	cable *cable
	once  sync.Once
	gone  chan struct{}
}

// Read implements [net.Conn]: what has arrived is held back while the cable is cut.
func (s *strand) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if !s.cable.wait(s.gone, hung) {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write implements [net.Conn].
func (s *strand) Write(b []byte) (int, error) {
	if !s.cable.wait(s.gone, hung, deaf) {
		return 0, net.ErrClosed
	}
	return s.Conn.Write(b)
}

// Close implements [net.Conn].
func (s *strand) Close() error {
	s.once.Do(func() { close(s.gone) })
	return s.Conn.Close()
}
