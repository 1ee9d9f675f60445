// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// TestAnAddressThatEC2DoesNotHoldForTheENIReachesNobody gives pods on worker-1 addresses by hand: one that EC2 does not
// know, and one that it holds for the other worker. Everything else about the pods is right, as shows when EC2 is told.
func TestAnAddressThatEC2DoesNotHoldForTheENIReachesNobody(t *testing.T) {
	g := up(t)
	others := []endpoint{
		g.attach(t, "worker-2", 1), // on the ENI that holds the second address
		g.attach(t, "worker-2", 2),
		g.attach(t, "worker-1", 2), // another ENI of the same worker
	}
	for _, o := range others {
		o.serveEcho(t)
	}
	unknown := g.byHand(t, netip.MustParseAddr("10.77.1.220"))
	elsewhere := g.byHand(t, netip.MustParseAddr("10.77.1.221"))
	g.assign(t, "worker-2", 1, elsewhere.addr)
	await(t, "the VPC routes the address to the other worker", func() error { return g.routed("worker-2", 1, elsewhere.addr) })

	var wg sync.WaitGroup
	for _, o := range others {
		for _, e := range []endpoint{unknown, elsewhere} {
			wg.Go(func() { silent(t, e, o) })
			wg.Go(func() { silent(t, o, e) })
		}
	}
	wg.Wait()

	for _, e := range []endpoint{unknown, elsewhere} {
		g.assign(t, "worker-1", 1, e.addr)
	}
	for _, o := range others {
		for _, e := range []endpoint{unknown, elsewhere} {
			reach(t, patience, e.pod, o.addr)
			reach(t, patience, o.pod, e.addr)
			e.tcp(t, patience, o.addr)
			o.tcp(t, patience, e.addr)
		}
	}
}

// byHand makes a pod as an IPAM plugin that asks nobody would have it.
func (g *ground) byHand(t *testing.T, addr netip.Addr) endpoint {
	t.Helper()
	e := endpoint{pod: g.newPod(t), addr: addr}
	err := e.pod.AddIPVlan(g.nodes["worker-1"].Netns, "eth1", "net1", netip.PrefixFrom(addr, 24), netip.MustParseAddr("10.77.1.1"))
	if err != nil {
		t.Fatal(err)
	}
	e.serveEcho(t)
	return e
}

// silent demands that neither a ping nor TCP gets from one pod to the other, for as long as one would take.
func silent(t *testing.T, from, to endpoint) {
	ctx, cancel := context.WithTimeout(t.Context(), atOnce)
	defer cancel()
	if rtt, err := pod.Ping(ctx, from.pod.Netns, to.addr); !errors.Is(err, pod.ErrNoReply) {
		t.Errorf("ping from %s to %s: round trip %v, error %v; want no reply", from.addr, to.addr, rtt, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), atOnce)
	defer cancel()
	if _, err := pod.Exchange(ctx, from.pod.Netns, netip.AddrPortFrom(to.addr, echoPort)); err == nil {
		t.Errorf("TCP from %s to %s succeeded", from.addr, to.addr)
	}
}
