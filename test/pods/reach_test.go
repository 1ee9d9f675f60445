// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// echoPort is where every pod of these tests answers TCP and UDP.
const echoPort = 7

// serveEcho makes the endpoint answer TCP and UDP while the test runs.
func (e endpoint) serveEcho(t *testing.T) {
	t.Helper()
	at := netip.AddrPortFrom(e.addr, echoPort)
	stream, err := pod.ServeEcho(t.Context(), e.pod.Netns, at)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, stream.Close) // before the pod's DEL: a socket keeps a namespace
	packets, err := pod.ServePackets(t.Context(), e.pod.Netns, at)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, packets.Close)
}

// reachFrom demands that a ping from the endpoint's address is answered.
func reachFrom(t *testing.T, from endpoint, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := pod.PingFrom(ctx, from.pod.Netns, from.addr, to); err != nil {
		t.Errorf("from %s of %s: %v", from.addr, from.pod.Name, err)
	}
}

// tcp demands that a connection from e to another endpoint carries data within a time.
func (e endpoint) tcp(t *testing.T, within time.Duration, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if _, err := pod.Exchange(ctx, e.pod.Netns, netip.AddrPortFrom(to, echoPort)); err != nil {
		t.Errorf("TCP from %s (%s): %v", e.pod.Name, e.addr, err)
	}
}

// udp demands that a packet from e to another endpoint comes back within a time.
func (e endpoint) udp(t *testing.T, within time.Duration, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if _, err := pod.ExchangePackets(ctx, e.pod.Netns, netip.AddrPortFrom(to, echoPort)); err != nil {
		t.Errorf("UDP from %s (%s): %v", e.pod.Name, e.addr, err)
	}
}

// talk demands that e and another endpoint exchange packets, whoever begins: by ping at once, and by TCP and UDP, where
// one lost packet of an overloaded machine costs a second.
func (e endpoint) talk(t *testing.T, with endpoint) {
	t.Helper()
	for _, pair := range [][2]endpoint{{e, with}, {with, e}} {
		reach(t, atOnce, pair[0].pod, pair[1].addr)
		pair[0].tcp(t, patience, pair[1].addr)
		pair[0].udp(t, patience, pair[1].addr)
	}
}

// TestPodsReachOneAnotherWhenADDReturns attaches pods one by one, on one worker and on two, in one subnet and in two,
// on ENIs without and with stock. Each exchanges packets with all before it in less time than a new address takes to be
// routed.
func TestPodsReachOneAnotherWhenADDReturns(t *testing.T) {
	g := up(t)
	var all []endpoint
	for _, where := range []struct {
		worker string
		subnet int
		stock  string
	}{
		{"worker-1", 1, "cold"},
		{"worker-2", 1, "cold"},
		{"worker-2", 2, "cold"},
		{"worker-1", 2, "cold"},
		{"worker-1", 1, "warm"}, // beside another pod on its ENI
		{"worker-2", 2, "warm"},
	} {
		e := g.attach(t, where.worker, where.subnet)
		t.Logf("%s, subnet %d, %s stock: ADD took %v", where.worker, where.subnet, where.stock, e.took.Round(time.Millisecond))
		e.serveEcho(t)
		for _, o := range all {
			e.talk(t, o)
		}
		if t.Failed() {
			t.Fatalf("the pod on %s in subnet %d (%s stock) is not reachable both ways within %v of ADD", where.worker, where.subnet, where.stock, atOnce)
		}
		all = append(all, e)
	}
}

// TestWarmADDCallsNobody counts EC2's calls around an ADD that finds stock and leaves enough: there is none.
func TestWarmADDCallsNobody(t *testing.T) {
	g := up(t)
	g.attach(t, "worker-1", 1)
	n := g.nodes["worker-1"]
	await(t, "stock on the ENI", func() error { return n.settled(t, g.lab.ENIs["worker-1"][1]) })
	before := g.lab.Front.Calls()
	e := g.attach(t, "worker-1", 1)
	after := g.lab.Front.Calls()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("EC2 was called during a warm ADD (-before +after):\n%s", diff)
	}
	t.Logf("ADD took %v", e.took.Round(time.Millisecond))
}

// settled reports what keeps the pool of an ENI from being filled and at rest.
func (n *node) settled(t *testing.T, eniID string) error {
	t.Helper()
	const free = 7 // minimumIPTarget less the one that is held
	for _, e := range n.status(t).ENIs {
		if string(e.ID) != eniID {
			continue
		}
		states := map[string]int{}
		for _, a := range e.Addresses {
			states[a.State]++
		}
		if states["free"] != free || states["assigning"]+states["unassigning"]+states["unknown"] > 0 {
			return fmt.Errorf("addresses by state: %v", states)
		}
		return nil
	}
	return fmt.Errorf("%s is not in the status", eniID)
}
