// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sticky

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

const (
	// askInterval is how exactly an outage is measured.
	askInterval = 25 * time.Millisecond
	port        = 7
)

// app answers every packet with who it is.
type app struct {
	conn net.PacketConn
	done chan struct{}
}

// serve starts the pod's app.
func (g *ground) serve(s *sandbox, addr netip.Addr, who string) *app {
	g.t.Helper()
	a := &app{done: make(chan struct{})}
	g.must(netns.Do(s.Netns, func() (err error) {
		a.conn, err = new(net.ListenConfig).ListenPacket(g.ctx, "udp", netip.AddrPortFrom(addr, port).String())
		return err
	}))
	go func() {
		defer close(a.done)
		buf := make([]byte, 16)
		for {
			_, from, err := a.conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = a.conn.WriteTo([]byte(who), from) // it asks again
		}
	}()
	g.t.Cleanup(a.stop)
	return a
}

func (a *app) stop() {
	a.conn.Close()
	<-a.done
}

// reply is who answered, and when.
type reply struct {
	who string
	at  time.Time
}

// watch asks a pod all the time who it is.
type watch struct {
	conn net.Conn
	wg   sync.WaitGroup
	stop context.CancelFunc

	mu      sync.Mutex
	replies []reply
	news    chan struct{} // closed when replies grows
}

// watch asks from the sandbox until the test ends.
func (g *ground) watch(from *sandbox, addr netip.Addr) *watch {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.ctx)
	w := &watch{stop: cancel, news: make(chan struct{})}
	g.must(netns.Do(from.Netns, func() (err error) {
		w.conn, err = new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(addr, port).String())
		return err
	}))
	w.wg.Go(func() {
		tick := time.NewTicker(askInterval)
		defer tick.Stop()
		for {
			_, _ = w.conn.Write([]byte("who?")) // what the network said of the one before is no news
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	w.wg.Go(func() {
		buf := make([]byte, 64)
		for ctx.Err() == nil {
			if n, err := w.conn.Read(buf); err == nil {
				w.note(reply{string(buf[:n]), time.Now()})
			}
		}
	})
	g.t.Cleanup(w.close)
	return w
}

func (w *watch) close() {
	w.stop()
	w.conn.Close()
	w.wg.Wait()
}

func (w *watch) note(r reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replies = append(w.replies, r)
	close(w.news)
	w.news = make(chan struct{})
}

// first waits for the first reply of one, and says when it came and how long after the last of anybody else.
func (w *watch) first(ctx context.Context, who string) (at time.Time, outage time.Duration, err error) {
	for {
		w.mu.Lock()
		news := w.news
		var last time.Time
		for _, r := range w.replies {
			if r.who == who {
				w.mu.Unlock()
				return r.at, r.at.Sub(last), nil
			}
			last = r.at
		}
		w.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return time.Time{}, 0, context.Cause(ctx)
		}
	}
}
