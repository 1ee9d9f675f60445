// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// metrics are what Prometheus and the probes read of a sidecar.
type metrics struct {
	registry  *prometheus.Registry
	calls     *prometheus.CounterVec
	addresses *prometheus.GaugeVec
	claims    prometheus.Histogram
	contests  prometheus.Counter
	report    atomic.Pointer[podsync.Report]
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "multusvpc_sync_ec2_calls_total", Help: "EC2 calls by action and result: ok, or EC2's error code.",
		}, []string{"action", "result"}),
		addresses: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "multusvpc_sync_addresses", Help: "Addresses of the pod by state: pending, registered, contested or leaving.",
		}, []string{"state"}),
		claims: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "multusvpc_sync_claim_seconds", Help: "Time from an address appearing on an interface until its registration is asked for.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		contests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "multusvpc_sync_contests_total", Help: "Addresses found on another ENI while the pod carried them.",
		}),
	}
	m.registry.MustRegister(m.calls, m.addresses, m.claims, m.contests)
	m.changed(podsync.Report{})
	m.report.Store(nil) // not ready before the first look
	return m
}

func (m *metrics) call(c ec2eni.Call) { m.calls.WithLabelValues(c.Action, c.Outcome).Inc() }

func (m *metrics) claimed(after time.Duration) { m.claims.Observe(after.Seconds()) }

// changed takes in what the syncer reports.
func (m *metrics) changed(r podsync.Report) {
	count := map[string]float64{podsync.Pending: 0, podsync.Registered: 0, podsync.Contested: 0, podsync.Leaving: 0}
	before := map[string]bool{}
	if old := m.report.Load(); old != nil {
		for _, a := range old.Addresses {
			before[a.Addr.String()] = a.State == podsync.Contested
		}
	}
	for _, a := range r.Addresses {
		count[a.State]++
		if a.State == podsync.Contested && !before[a.Addr.String()] {
			m.contests.Inc()
		}
	}
	for state, n := range count {
		m.addresses.WithLabelValues(state).Set(n)
	}
	m.report.Store(&r)
}

// readiness is nil when all that the pod was promised is registered, else it says what is missing.
func (m *metrics) readiness(p podsync.Promise) error {
	r := m.report.Load()
	if r == nil {
		return errors.New("the pod's interfaces have not been read")
	}
	missing, err := p.Kept(*r)
	if err == nil && missing != "" {
		err = errors.New(missing)
	}
	return err
}

// serve answers /metrics, /healthz (the process lives) and /readyz (all is registered) until ctx ends.
func (m *metrics) serve(ctx context.Context, address string, p podsync.Promise) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET "+readyPath, func(w http.ResponseWriter, _ *http.Request) {
		if err := m.readiness(p); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	const slowClient = 5 * time.Second
	server := &http.Server{Handler: mux, ReadTimeout: slowClient, WriteTimeout: slowClient}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
