// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// headerTimeout bounds how long a client may take to send a request's header: all clients are on this machine.
	headerTimeout = 10 * time.Second
	// drainTimeout is what requests in flight get when the lab stops: enough for a usual latency, not for a slow fault.
	drainTimeout = 500 * time.Millisecond
)

// serve answers requests on l in the group's goroutines until ctx ends, and then closes l.
func serve(ctx context.Context, group *errgroup.Group, l net.Listener, h http.Handler, logger *log.Logger) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, ErrorLog: logger}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := server.Shutdown(drain); err == nil {
			return nil
		}
		return server.Close()
	})
}
