// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// stuckAfter is how long reading the agent's own state may take before it counts as dead: it takes microseconds, and
// kubelet's probes wait 1 s unless they are told otherwise.
const stuckAfter = 900 * time.Millisecond

// handler answers /metrics, /healthz (the process works, and should not be killed) and /readyz (every ADD can be served).
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { answerProbe(w, m.alive(r.Context())) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { answerProbe(w, m.ready(r.Context())) })
	return mux
}

func answerProbe(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// alive is nil while the agent's state can be read. One that waits for the metadata or EC2 is alive: to kill it helps
// nobody.
func (m *metrics) alive(ctx context.Context) error {
	_, err := m.status(ctx)
	return err
}

// ready is nil when an ADD can be served, on every ENI that the worker is to have.
func (m *metrics) ready(ctx context.Context) error {
	node := m.gauges.node.Load()
	if node == nil {
		return errors.New("the instance metadata has not answered yet")
	}
	s, err := m.status(ctx)
	if err == nil && isReady(node) {
		if missing := node.missing(s); missing != "" {
			return errors.New(missing)
		}
		return nil
	}
	if err == nil && len(s.Problems) > 0 {
		err = errors.New(s.Problems[0])
	}
	if err == nil { // ready in this very moment
		return nil
	}
	return fmt.Errorf("the worker's ENIs are not known yet: %w", err)
}

// status is the worker's, the zero value before there is a node.
func (m *metrics) status(ctx context.Context) (pool.Status, error) {
	node := m.gauges.node.Load()
	if node == nil {
		return pool.Status{}, nil
	}
	got := make(chan pool.Status, 1)
	go func() { got <- node.Status() }()
	late := time.NewTimer(stuckAfter)
	defer late.Stop()
	select {
	case s := <-got:
		return s, nil
	case <-ctx.Done():
		return pool.Status{}, ctx.Err()
	case <-late.C:
		return pool.Status{}, fmt.Errorf("the agent's state could not be read for %s: it is stuck", stuckAfter)
	}
}

// serve answers until ctx ends.
func (m *metrics) serve(ctx context.Context, address string) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	const slowClient = 5 * time.Second
	server := &http.Server{Handler: m.handler(), ReadHeaderTimeout: slowClient}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
