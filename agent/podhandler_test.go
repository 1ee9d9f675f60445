// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/guard"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// nobody carries anything on this worker but who asks.
type nobody struct{}

func (nobody) Carriers([]netip.Addr) (map[netip.Addr][]attachment.Netns, error) { return nil, nil }

// flapper is a pod on link 3, the ENI of device index 1, whose addresses come and go.
type flapper struct {
	cookie uint64
	mu     sync.Mutex
	has    []netip.Addr
}

func (f *flapper) Netns() attachment.Netns { return attachment.Netns{Cookie: f.cookie} }

func (f *flapper) Look(ifName string) (guard.Seen, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ifName != "net1" {
		return guard.Seen{}, errors.New("no such link")
	}
	return guard.Seen{Link: 3, Kind: "ipvlan", Mode: "l2", Addrs: slices.Clone(f.has), All: slices.Clone(f.has)}, nil
}

// forPods answers pods out of the agent's pool; .90 to .95 float.
func (c *counted) forPods() podHandler {
	cfg := guard.DefaultConfig()
	floating, err := attachment.ParseRange("10.72.1.90-10.72.1.95")
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.Floating = []attachment.Range{floating}
	return podHandler{guard.New(cfg, guard.Ports{Node: claims{c.node.Node}, Namespaces: nobody{}}), c.m}
}

func ask(method agentapi.Method, addrs ...string) agentapi.Request {
	req := agentapi.Request{Method: method, Interface: "net1"}
	for _, a := range addrs {
		addr := netip.MustParseAddr(a)
		req.Addresses = append(req.Addresses, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return req
}

// writes counts the EC2 calls that change something.
func (c *counted) writes() float64 {
	return sums(c.t, c.m, "multusvpc_ec2_calls_total", "Assign") + sums(c.t, c.m, "multusvpc_ec2_calls_total", "Unassign")
}

func TestPodsAreAnsweredOutOfThePool(t *testing.T) {
	counting(t, func(c *counted) {
		h := c.forPods()
		p := &flapper{cookie: 7, has: []netip.Addr{netip.MustParseAddr("10.72.1.80"), netip.MustParseAddr("10.72.1.90"), netip.MustParseAddr("10.72.1.1")}}
		resp := h.answer(c.t.Context(), p, ask(agentapi.MethodClaim, "10.72.1.80", "10.72.1.90", "10.72.1.1"))
		if len(resp.Results) != 3 || resp.Error != nil {
			t.Fatalf("claim: %+v", resp)
		}
		for i, code := range []uint{agentapi.CodeInvalidConfig, 0, 0} {
			if r := resp.Results[i]; (r.Error == nil) != (code == 0) || r.Error != nil && r.Error.Code != code || r.New != (code == 0) {
				t.Errorf("claim of %s: %+v, error %v", r.Addr, r, r.Error)
			}
		}
		if n := c.writes(); n > 2 {
			t.Errorf("%v calls for two addresses", n)
		}
		resp = h.answer(c.t.Context(), p, ask(agentapi.MethodStanding, "10.72.1.80", "10.72.1.1"))
		if len(resp.Results) != 2 || resp.Results[0].Standing != agentapi.StandingNobody || resp.Results[1].Standing != agentapi.StandingHere {
			t.Errorf("standing: %+v", resp)
		}
		given, claimed := claims{c.node.Node}.Has(p.Netns())
		if len(given) != 0 || len(claimed) != 2 {
			t.Errorf("the namespace has %v and claimed %v", given, claimed)
		}
		if resp = h.answer(c.t.Context(), p, ask(agentapi.MethodYield, "10.72.1.80")); resp.Error != nil {
			t.Errorf("yield: %v", resp.Error)
		}
		if _, claimed = (claims{c.node.Node}).Has(p.Netns()); len(claimed) != 1 {
			t.Errorf("after the yield the namespace has claimed %v", claimed)
		}
		c.pass(time.Minute)
		for _, e := range c.node.Status().ENIs {
			for _, a := range e.Addresses {
				if a.Addr == netip.MustParseAddr("10.72.1.80") {
					t.Errorf("a minute later EC2 still has it: %s", a.State)
				}
				if a.Addr == netip.MustParseAddr("10.72.1.90") && a.State != ownership.Guest {
					t.Errorf("what was not given back is %s", a.State)
				}
			}
		}
	})
}

// multus says what it gave the pods of this worker.
type multus []guard.PodNetworks

func (m multus) Networks(context.Context) ([]guard.PodNetworks, error) { return m, nil }

// TestAnotherWorkersAddressIsMovedOnTheWordOfMultus: as after an IPAM plugin gave a deleted pod's address to a new one, while the old
// worker is cut off.
func TestAnotherWorkersAddressIsMovedOnTheWordOfMultus(t *testing.T) {
	const fixed, floating = "10.72.1.80", "10.72.1.90"
	counting(t, func(c *counted) {
		p := &flapper{cookie: 7, has: []netip.Addr{netip.MustParseAddr(fixed), netip.MustParseAddr(floating)}}
		for _, a := range p.has {
			c.take(a, "worker-2")
		}
		resp := c.forPods().answer(c.t.Context(), p, ask(agentapi.MethodClaim, fixed, floating))
		if e := resp.Results[0].Error; e == nil || e.Code != agentapi.CodeContested || !strings.Contains(e.Message, "held by another ENI") {
			t.Errorf("what another worker has, and nobody vouches for: %v", e)
		}
		if r := resp.Results[1]; r.Error != nil || !r.New {
			t.Errorf("what floats: %+v, %v", r, r.Error)
		}
		cfg := guard.DefaultConfig()
		said := multus{{Addrs: map[string][]netip.Addr{"net1": {netip.MustParseAddr(fixed)}}}}
		h := podHandler{guard.New(cfg, guard.Ports{Node: claims{c.node.Node}, Namespaces: nobody{}, Pods: said}), c.m}
		began := time.Now()
		resp = h.answer(c.t.Context(), p, ask(agentapi.MethodClaim, fixed))
		if r := resp.Results[0]; r.Error != nil || !r.New {
			t.Errorf("what Multus gave the pod: %+v, %v", r, r.Error)
		}
		if took := time.Since(began); took < 5*time.Second || took > 10*time.Second {
			t.Errorf("the old worker had %v to give it back", took)
		}
	})
}

// TestFlappingAddressCostsACallASecond: four connections of a pod that claim and yield as fast as they are answered, its address coming and
// going a thousand times a second, change EC2 once a second.
func TestFlappingAddressCostsACallASecond(t *testing.T) {
	for name, addr := range map[string]string{"floating": "10.72.1.90", "fixed": "10.72.1.80"} {
		t.Run(name, func(t *testing.T) {
			counting(t, func(c *counted) {
				h := c.forPods()
				p := &flapper{cookie: 7}
				const seconds = 60
				ctx, cancel := context.WithTimeout(c.t.Context(), seconds*time.Second)
				defer cancel()
				var connections sync.WaitGroup
				connections.Go(func() {
					tick := time.NewTicker(500 * time.Microsecond)
					defer tick.Stop()
					for on := true; ctx.Err() == nil; on = !on {
						p.mu.Lock()
						if p.has = nil; on {
							p.has = []netip.Addr{netip.MustParseAddr(addr)}
						}
						p.mu.Unlock()
						<-tick.C
					}
				})
				for range agentapi.DefaultPerNamespace {
					connections.Go(func() {
						for ctx.Err() == nil {
							h.answer(ctx, p, ask(agentapi.MethodClaim, addr))
							h.answer(ctx, p, ask(agentapi.MethodYield, addr))
						}
					})
				}
				connections.Wait()
				if n := c.writes(); n == 0 || n > seconds+5 {
					t.Errorf("%v EC2 calls that change something in %d s", n, seconds)
				}
			})
		})
	}
}

func TestPodsAreRefusedWhatIsNotForThem(t *testing.T) {
	t.Parallel()
	h := podHandler{metrics: newMetrics()}
	tests := map[string]struct {
		req  agentapi.Request
		code uint
		says string
	}{
		"the plugins' methods": {agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: onIndex(1)}, agentapi.CodeVersion, `method "add" is not served to pods`},
		"a del":                {agentapi.Request{Method: agentapi.MethodDel, Attachment: attached("a")}, agentapi.CodeVersion, `method "del" is not served to pods`},
		"status":               {agentapi.Request{Method: agentapi.MethodStatus}, agentapi.CodeVersion, "is not served to pods"},
		"no interface":         {agentapi.Request{Method: agentapi.MethodClaim, Addresses: ask(agentapi.MethodClaim, "10.72.1.80").Addresses}, agentapi.CodeDecode, `"claim" needs an interface`},
		"no addresses":         {ask(agentapi.MethodYield), agentapi.CodeDecode, `"yield" needs addresses`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := h.answer(t.Context(), &flapper{}, tt.req).Error
			if e == nil || e.Code != tt.code || !strings.Contains(e.Message, tt.says) {
				t.Errorf("%v, want code %d and %q", e, tt.code, tt.says)
			}
		})
	}
	own, _ := serving(t, false)
	for _, method := range []agentapi.Method{agentapi.MethodClaim, agentapi.MethodYield, agentapi.MethodStanding} {
		if e := own.Handle(t.Context(), ask(method, "10.72.1.80")).Error; e == nil || e.Code != agentapi.CodeVersion {
			t.Errorf("%s on the agent's own socket: %v", method, e)
		}
	}
}

func TestErrorsOfTheGuardHaveTheirCodes(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]uint{
		fmt.Errorf("%w: outside", guard.ErrRefused): agentapi.CodeInvalidConfig, fmt.Errorf("%w: eni-2", guard.ErrContested): agentapi.CodeContested,
		errors.New("EC2 throttles"): agentapi.CodeTryAgainLater,
	} {
		if e := refused(err).Error; e.Code != want || e.Message != err.Error() {
			t.Errorf("%v: %+v, want code %d", err, e, want)
		}
	}
}
