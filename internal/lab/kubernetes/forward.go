// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubernetes

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// Forwarder carries connections from a network namespace to the API server.
type Forwarder struct {
	listener net.Listener
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

// Forward makes the API server reachable in the network namespace at netnsPath, whose loopback link is up: at the same
// address as outside, so that URL and kubeconfig are the same everywhere. The caller closes the forwarder before it
// removes the namespace, which would outlive its name otherwise.
func (c *Cluster) Forward(ctx context.Context, netnsPath string) (*Forwarder, error) {
	listener, err := pod.Listen(ctx, netnsPath, c.address)
	if err != nil {
		return nil, err
	}
	live, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &Forwarder{listener: listener, stop: stop}
	f.wg.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return // closed
			}
			f.wg.Go(func() { carry(live, from, c.address.String()) })
		}
	})
	return f, nil
}

// Close ends the forwarding and its connections, and waits until nothing of it holds the namespace. Closing twice
// succeeds.
func (f *Forwarder) Close() error {
	f.stop()
	err := f.listener.Close()
	f.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// carry copies both ways until one side ends or ctx does; then both are closed. A client that closes its side of TLS is
// done, so nothing is lost.
func carry(ctx context.Context, from net.Conn, address string) {
	defer from.Close()
	to, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return // the client sees its connection end
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // whoever ends it knows why
			done()
		})
	}
	<-ctx.Done()
	from.Close()
	to.Close()
	wg.Wait()
}
