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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/multus-vpc/multus-vpc/internal/webhook"
)

// metrics are what Prometheus and the probes read.
type metrics struct {
	registry *prometheus.Registry
	reviews  *prometheus.HistogramVec
	ready    func() error
}

func newMetrics(certificate keeper) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		reviews: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "multusvpc_injector_review_seconds", Help: "Reviews of pods by result (patched, unchanged, refused, failed, malformed) and mode (init, sidecar, native, none).",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"result", "mode"}),
		ready: certificate.Ready,
	}
	m.registry.MustRegister(m.reviews, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "multusvpc_injector_certificate_expiry_seconds", Help: "When the webhook's certificate expires, in seconds since 1970; 0 when there is none.",
		}, func() float64 {
			if end := certificate.Expires(); !end.IsZero() {
				return float64(end.Unix())
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "multusvpc_injector_certificate_failures_total", Help: "Looks at the certificates that failed: the API could not be read or written.",
		}, func() float64 { return float64(certificate.Failures()) }))
	return m
}

func (m *metrics) observe(result webhook.Result, mode string, took time.Duration) {
	m.reviews.WithLabelValues(string(result), mode).Observe(took.Seconds())
}

var errLeaving = errors.New("leaving")

// handler answers /metrics, /healthz (the process lives) and /readyz (a review can be served, and will be for a while).
func (m *metrics) handler(leaving context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := m.ready()
		if leaving.Err() != nil {
			err = errLeaving
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// serve answers until ctx ends. From the end of leaving on, the replica is not ready.
func (m *metrics) serve(ctx, leaving context.Context, ln net.Listener) error {
	const slowClient = 5 * time.Second
	server := &http.Server{Handler: m.handler(leaving), ReadHeaderTimeout: slowClient, WriteTimeout: slowClient}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
