// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
)

// metrics are what Prometheus reads. The registry is the agent's own: nothing registers behind its back.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	latency  *prometheus.HistogramVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "multusvpc_ec2_calls_total", Help: "EC2 calls by action and result: ok, or EC2's error code.",
		}, []string{"action", "result"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "multusvpc_ec2_call_seconds", Help: "Duration of EC2 calls by action.",
			Buckets: prometheus.ExponentialBuckets(0.01, 2, 12),
		}, []string{"action"}),
	}
	m.registry.MustRegister(m.calls, m.latency)
	return m
}

// call counts one EC2 call.
func (m *metrics) call(c ec2eni.Call) {
	m.calls.WithLabelValues(c.Action, c.Outcome).Inc()
	m.latency.WithLabelValues(c.Action).Observe(c.Duration.Seconds())
}

// serve answers /metrics, /healthz (the process lives) and /readyz (an ADD can be served) until ctx ends.
func (m *metrics) serve(ctx context.Context, address string, ready <-chan struct{}) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-ready:
			w.WriteHeader(http.StatusOK)
		default:
			http.Error(w, "the worker's ENIs are not known yet", http.StatusServiceUnavailable)
		}
	})
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	const slowClient = 5 * time.Second
	server := &http.Server{Handler: mux, ReadHeaderTimeout: slowClient}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
