// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// metrics are what Prometheus reads; docs/metrics.md explains each. The registry is the agent's own: nothing registers
// behind its back. No label takes a value from a pod, and each but those of the worker's ENIs has a closed set.
type metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.HistogramVec
	calls      *prometheus.CounterVec
	errors     *prometheus.CounterVec
	throttles  *prometheus.CounterVec
	latency    *prometheus.HistogramVec
	refills    prometheus.Histogram
	tombstones *prometheus.CounterVec
	happenings map[pool.Happening]prometheus.Counter
	gauges     *gauges
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: histograms("multusvpc_request_duration_seconds",
			"Duration of the plugins' and pods' requests by method and CNI error code, 0 for none.", prometheus.ExponentialBuckets(0.0001, 3, 12), "method", "code"),
		calls:     counters("multusvpc_ec2_calls_total", "EC2 calls by action.", "action"),
		errors:    counters("multusvpc_ec2_errors_total", "EC2 calls that failed by action and EC2's error code, or why there was no answer.", "action", "error"),
		throttles: counters("multusvpc_ec2_throttles_total", "EC2 calls that EC2 refused because of the account's request rate, by action.", "action"),
		latency: histograms("multusvpc_ec2_call_duration_seconds",
			"Duration of EC2 calls by action.", prometheus.ExponentialBuckets(0.01, 2, 12), "action"),
		refills: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "multusvpc_refill_duration_seconds", Help: "Time from EC2's answer to an assign call until the addresses are confirmed and in stock.",
			Buckets: prometheus.ExponentialBuckets(0.1, 2, 10),
		}),
		tombstones: counters("multusvpc_tombstones_total", "Notes of a DEL that came while no agent ran, by what they did.", "result"),
		gauges:     &gauges{},
	}
	m.happenings = map[pool.Happening]prometheus.Counter{
		pool.Conflict:  counter("multusvpc_assign_conflicts_total", "Assign calls that EC2 refused because another ENI holds an address."),
		pool.Lost:      counter("multusvpc_addresses_lost_total", "Addresses that a pod uses and EC2 no longer has on the worker's ENI."),
		pool.Contested: counter("multusvpc_addresses_contested_total", "Lost addresses that another ENI was found to hold."),
		pool.Reaped:    counter("multusvpc_attachments_reaped_total", "Attachments that were released because their network namespace is gone."),
	}
	m.registry.MustRegister(m.requests, m.calls, m.errors, m.throttles, m.latency, m.refills, m.tombstones, m.gauges)
	for _, c := range m.happenings {
		m.registry.MustRegister(c)
	}
	m.happenings[pool.Buried], m.happenings[pool.Outdated] = m.tombstones.WithLabelValues("released"), m.tombstones.WithLabelValues("outdated")
	m.begin()
	m.expect(ec2eni.Actions())
	return m
}

// begin makes the series that alerts compare with before, so that the first event is an increase.
func (m *metrics) begin() {
	for method := range methods {
		m.requests.WithLabelValues(string(method), "0")
	}
	for method := range podMethods {
		m.requests.WithLabelValues(string(method), "0")
	}
}

// expect is begin for the actions that the agent will ask of EC2.
func (m *metrics) expect(actions []string) {
	for _, action := range actions {
		m.calls.WithLabelValues(action)
		m.throttles.WithLabelValues(action)
		m.latency.WithLabelValues(action)
	}
}

// wire has a pool count here.
func (m *metrics) wire(cfg *pool.Config) {
	cfg.Count = func(what pool.Happening) { m.happenings[what].Inc() }
	cfg.Refill = func(d time.Duration) { m.refills.Observe(d.Seconds()) }
}

// request counts one request of a plugin or a pod.
func (m *metrics) request(method agentapi.Method, e *agentapi.Error, took time.Duration) {
	code := uint(0)
	if e != nil {
		code = e.Code
	}
	_, plugins := methods[method]
	_, pods := podMethods[method]
	if !plugins && !pods {
		method = "unknown" // what a client sends must not become a label
	}
	m.requests.WithLabelValues(string(method), strconv.FormatUint(uint64(code), 10)).Observe(took.Seconds())
}

// call counts one EC2 call.
func (m *metrics) call(c ec2eni.Call) {
	m.calls.WithLabelValues(c.Action).Inc()
	m.latency.WithLabelValues(c.Action).Observe(c.Duration.Seconds())
	if c.Outcome == ec2eni.OutcomeOK {
		return
	}
	m.errors.WithLabelValues(c.Action, errorLabel(c.Outcome)).Inc()
	if ec2eni.Throttled(c.Outcome) {
		m.throttles.WithLabelValues(c.Action).Inc()
	}
}

// errorLabel keeps EC2's codes that have a meaning to the agent or its operator; the log has all of them.
func errorLabel(outcome string) string {
	if slices.Contains(errorLabels(), outcome) {
		return outcome
	}
	return "other"
}

func errorLabels() []string {
	return append(ec2eni.Codes(), ec2eni.OutcomeNotSent, ec2eni.OutcomeTimeout, ec2eni.OutcomeCancelled, ec2eni.OutcomeNoReply)
}
