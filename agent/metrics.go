// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// metrics are what Prometheus reads. The registry is the agent's own: nothing registers behind its back.
type metrics struct {
	registry  *prometheus.Registry
	calls     *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	requests  *prometheus.HistogramVec
	conflicts prometheus.Counter
	refills   prometheus.Histogram
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
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "multusvpc_request_seconds", Help: "Duration of the plugins' requests by method (add, del, check, …) and CNI error code, 0 for none.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 3, 12),
		}, []string{"method", "code"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "multusvpc_assign_conflicts_total", Help: "Assign calls that EC2 refused because another ENI holds an address.",
		}),
		refills: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "multusvpc_refill_seconds", Help: "Time from EC2's answer to an assign call until the addresses are confirmed and in stock.",
			Buckets: prometheus.ExponentialBuckets(0.1, 2, 10),
		}),
	}
	m.registry.MustRegister(m.calls, m.latency, m.requests, m.conflicts, m.refills)
	return m
}

// request counts one request of a plugin.
func (m *metrics) request(method agentapi.Method, e *agentapi.Error, took time.Duration) {
	code := uint(0)
	if e != nil {
		code = e.Code
	}
	if _, known := methods[method]; !known {
		method = "unknown" // what a client sends must not become a label
	}
	m.requests.WithLabelValues(string(method), strconv.FormatUint(uint64(code), 10)).Observe(took.Seconds())
}

// watch exports the node's addresses and attachments as they are when they are asked for.
func (m *metrics) watch(node *pool.Node) { m.registry.MustRegister(gauges{node}) }

// gauges collects the node's state.
type gauges struct{ node *pool.Node }

var (
	addressesDesc = prometheus.NewDesc("multusvpc_addresses", "Addresses on the worker's ENIs by ENI and state of the ownership table.", []string{"eni", "state"}, nil)
	slotsDesc     = prometheus.NewDesc("multusvpc_eni_slots", "Secondary IPv4 addresses that the instance type allows per ENI.", []string{"eni"}, nil)
	holdsDesc     = prometheus.NewDesc("multusvpc_attachments", "Attachments by state: held, cooling, lost or guest.", []string{"state"}, nil)
	problemsDesc  = prometheus.NewDesc("multusvpc_problems", "Things that an operator should look at; the status request words them.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{addressesDesc, slotsDesc, holdsDesc, problemsDesc} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. A state that no address is in is reported as 0, so that alerts see it end.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	s := g.node.Status()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for _, e := range s.ENIs {
		count := map[ownership.State]int{}
		for _, a := range e.Addresses {
			count[a.State]++
		}
		for _, state := range ownership.States()[1:] {
			gauge(addressesDesc, count[state], string(e.ENI.ID), state.String())
		}
		gauge(slotsDesc, e.Slots, string(e.ENI.ID))
	}
	holds := map[ownership.State]int{}
	for _, h := range s.Holds {
		holds[h.State]++
	}
	for _, state := range []ownership.State{ownership.Held, ownership.Cooling, ownership.Lost, ownership.Guest} {
		gauge(holdsDesc, holds[state], state.String())
	}
	gauge(problemsDesc, len(s.Problems))
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
