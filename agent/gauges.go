// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// gauges collects the node's state as it is when it is asked for; nothing but that it is not ready before there is one.
type gauges struct{ node atomic.Pointer[worker] }

var (
	buildDesc     = prometheus.NewDesc("multusvpc_build_info", "1, with the agent's version.", []string{"version"}, nil)
	readyDesc     = prometheus.NewDesc("multusvpc_ready", "1 when the agent knows the worker's ENIs and can serve an ADD, else 0.", nil, nil)
	addressesDesc = prometheus.NewDesc("multusvpc_addresses", "Addresses on the worker's ENIs by ENI and state of the ownership table.", []string{"eni", "state"}, nil)
	prefixesDesc  = prometheus.NewDesc("multusvpc_prefixes", "Delegated prefixes on the worker's ENIs by ENI and state of the ownership table.", []string{"eni", "state"}, nil)
	slotsDesc     = prometheus.NewDesc("multusvpc_eni_slots", "Secondary IPv4 addresses that the instance type allows per ENI.", []string{"eni"}, nil)
	activeDesc    = prometheus.NewDesc("multusvpc_eni_active", "1 when the agent keeps stock on the ENI, else 0.", []string{"eni"}, nil)
	linkDesc      = prometheus.NewDesc("multusvpc_eni_link_up", "1 when the ENI's link is on the host and up, else 0.", []string{"eni"}, nil)
	placedDesc    = prometheus.NewDesc("multusvpc_interfaces_in_place", "1 when the worker has the ENIs that the configuration's interfaces and awaitInterfaces say, else 0.", nil, nil)
	holdsDesc     = prometheus.NewDesc("multusvpc_attachments", "Attachments by state.", []string{"state"}, nil)
	problemsDesc  = prometheus.NewDesc("multusvpc_problems", "Things that an operator should look at; the status request words them.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (*gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, readyDesc, addressesDesc, prefixesDesc, slotsDesc, activeDesc, linkDesc, placedDesc, holdsDesc, problemsDesc} {
		ch <- d
	}
}

// holdStates are the states that an attachment can be in.
var holdStates = [...]ownership.State{ownership.Held, ownership.Cooling, ownership.Lost, ownership.Guest}

// Collect implements [prometheus.Collector]. A state that nothing is in is reported as 0, so that alerts see it end.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(buildDesc, 1, version())
	node := g.node.Load()
	gauge(readyDesc, number(isReady(node)))
	if node == nil {
		return
	}
	s := node.Status()
	gauge(placedDesc, number(node.missing(s) == ""))
	for _, e := range s.ENIs {
		id := string(e.ENI.ID)
		addresses, prefixes := map[ownership.State]int{}, map[ownership.State]int{}
		for _, a := range e.Addresses {
			addresses[a.State]++
		}
		for _, p := range e.Prefixes {
			prefixes[p.State]++
		}
		for _, state := range ownership.States()[1:] {
			gauge(addressesDesc, addresses[state], id, state.String())
			if len(e.Prefixes) > 0 {
				gauge(prefixesDesc, prefixes[state], id, state.String())
			}
		}
		gauge(slotsDesc, e.Slots, id)
		gauge(activeDesc, number(e.Active), id)
		gauge(linkDesc, number(e.Link.Up), id)
	}
	holds := map[ownership.State]int{}
	for _, h := range s.Holds {
		holds[h.State]++
	}
	for _, state := range holdStates {
		gauge(holdsDesc, holds[state], state.String())
	}
	gauge(problemsDesc, len(s.Problems))
}

// isReady reports whether the node can serve an ADD.
func isReady(node *worker) bool {
	if node == nil {
		return false
	}
	select {
	case <-node.Ready():
		return true
	default:
		return false
	}
}

func number(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
