// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// comesBack has a pod claim an address while EC2 is asked to take it back, and returns when EC2 has it nowhere and the answer is
// still to come.
func comesBack(t *testing.T, w *world, p *claimant, addr netip.Addr) {
	t.Helper()
	p.has(attachment.Reassign, addr)
	w.slow("UnassignPrivateIpAddresses", "UnassignIpv6Addresses")
	p.leave(addr)
	eventually(t, time.Minute, "it is being given back", func() bool { return w.owner(addr) == "" })
}

// An address that goes while its pod waits to have it renewed is asked for like any other: by one call at a time.
func TestRenewedClaimOfWhatIsGoneIsOneCall(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab(t, dual, func(t *testing.T, w *world, n *node) {
			a, b := n.claimant("a"), n.claimant("b")
			comesBack(t, w, a, addr)
			var claims sync.WaitGroup
			claims.Go(func() { a.appear(attachment.Reassign, addr) })
			synctest.Wait()
			w.slow("AssignPrivateIpAddresses", "AssignIpv6Addresses")
			eventually(t, time.Minute, "it is being got", func() bool { return w.owner(addr) != "" })
			if got := n.states()[addr]; got != "assigning" {
				t.Errorf("while EC2 is asked it is %q", got)
			}
			a.netns.shed(a.path, addr)
			claims.Go(func() {
				for b.appear(attachment.WaitThenReassign, addr)[addr].Err != nil {
					time.Sleep(time.Second)
				}
			})
			claims.Wait()
			if holds := n.Status().Holds; len(holds) != 1 || holds[0].Pod.Name != "b" || w.owner(addr) == "" {
				t.Errorf("b, which carries it, does not have it: %+v on %q", holds, w.owner(addr))
			}
		})
	})(t)
}

// Whatever ends such a claim leaves nothing behind: an agent that is killed, and a reply that is lost when nobody waits any more.
func TestRenewedClaimThatEndsLeavesNothing(t *testing.T) {
	for name, end := range map[string]func(w *world, n *node){
		"killed":     func(_ *world, n *node) { n.crash() },
		"reply lost": func(*world, *node) {},
	} {
		t.Run(name, both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				p := n.claimant("a")
				comesBack(t, w, p, addr)
				ctx, cancel := context.WithCancel(t.Context())
				var claim sync.WaitGroup
				p.netns.carry(p.path, addr)
				claim.Go(func() { p.Claim(ctx, p.Claimant, []netip.Addr{addr}, attachment.Reassign) })
				synctest.Wait()
				lost := []front.Fault{
					{Action: "AssignPrivateIpAddresses", Nth: 1, Count: 1, Kind: front.LostReply},
					{Action: "AssignIpv6Addresses", Nth: 1, Count: 1, Kind: front.LostReply},
				}
				if err := w.lab.Front.SetFaults(lost); err != nil {
					t.Fatal(err)
				}
				eventually(t, time.Minute, "EC2 has done it", func() bool { return w.owner(addr) != "" })
				cancel()
				claim.Wait()
				end(w, n)
				n.netns.remove(p.path)
				<-n.Ready()
				eventually(t, 30*time.Minute, "it went back", func() bool { return w.owner(addr) == "" })
			})
		}))
	}
}

// An answer of EC2 for the pod that wanted an address first does not take it from the one that wanted it last.
func TestRenewedClaimDoesNotTakeFromALaterOne(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab(t, dual, func(t *testing.T, w *world, n *node) {
			a, b := n.claimant("a"), n.claimant("b")
			a.has(attachment.Reassign, addr)
			time.Sleep(30 * time.Second)
			w.slow("AssignPrivateIpAddresses", "AssignIpv6Addresses")
			var claim sync.WaitGroup
			claim.Go(func() {
				if r := a.appear(attachment.Reassign, addr)[addr]; refusal(t, r.Err).Reason != pool.Taken {
					t.Errorf("the pod that is without it by now was told %v", r.Err)
				}
			})
			time.Sleep(time.Second)
			a.leave(addr)
			b.has(attachment.Reassign, addr)
			claim.Wait()
			time.Sleep(2 * time.Minute)
			if holds := n.Status().Holds; len(holds) != 1 || holds[0].Pod.Name != "b" {
				t.Errorf("b, which carries it, does not have it: %+v", holds)
			}
		})
	})(t)
}

// What the ENI has needs no slot, so it does not wait behind what does.
func TestRenewedClaimDoesNotWaitForASlot(t *testing.T) {
	inStocked(t, dual, func(t *testing.T, w *world, n *node) {
		a, c := n.claimant("a"), n.claimant("c")
		a.has(attachment.Reassign, float4)
		n.mustAdd(n.pod("b"), attachment.Query{})
		eventually(t, time.Minute, "the ENI is full", func() bool { return len(n.states()) == 14 })
		time.Sleep(5 * time.Minute)
		w.slow("UnassignPrivateIpAddresses") // of what makes room
		var claims sync.WaitGroup
		claims.Go(func() { c.has(attachment.Reassign, float4.Next()) })
		time.Sleep(time.Second)
		before := w.calls("AssignPrivateIpAddresses", "")
		claims.Go(func() { a.has(attachment.Reassign, float4) })
		eventually(t, time.Second, "its call leaves", func() bool { return w.calls("AssignPrivateIpAddresses", "") > before })
		claims.Wait()
	})
}

// IPv6 addresses move by two calls. What one ENI of the worker takes from another, that one does not ask for in between.
func TestClaimBetweenTwoENIsIsOneCallAtATime(t *testing.T) {
	inLab(t, twoENIs, func(t *testing.T, w *world, n *node) {
		a, b := n.claimant("a"), n.claimant("b")
		b.Link++
		n.netns.child(b.path, b.Link)
		a.has(attachment.Reassign, float6)
		time.Sleep(30 * time.Second)
		a.netns.shed(a.path, float6)
		w.slow("UnassignIpv6Addresses")
		var claims sync.WaitGroup
		claims.Go(func() { b.appear(attachment.Reassign, float6) })
		eventually(t, time.Minute, "it is being moved", func() bool { return w.owner(float6) == "" })
		b.netns.shed(b.path, float6)
		claims.Go(func() {
			for a.appear(attachment.Reassign, float6)[float6].Err != nil {
				time.Sleep(time.Second)
			}
		})
		claims.Wait()
		time.Sleep(time.Minute)
		holds := n.Status().Holds
		if len(holds) != 1 || holds[0].Pod.Name != "a" || w.owner(float6) != w.lab.ENIs["worker-1"][1] {
			t.Errorf("a, which carries it, does not have it: %+v on %q", holds, w.owner(float6))
		}
	})
}

// Two families that are throttled together are two failures, and not two in a row.
func TestLanesShareAPause(t *testing.T) {
	const runs = 30
	calls := 0
	for range runs {
		inLab(t, dual, func(t *testing.T, w *world, n *node) {
			w.throttle("AssignPrivateIpAddresses", "AssignIpv6Addresses")
			p := n.claimant("a")
			var claims sync.WaitGroup
			for _, a := range []netip.Addr{float4, float6} {
				claims.Go(func() { p.appear(attachment.Reassign, a) })
			}
			claims.Wait()
			calls += w.writes()
		})
	}
	// Near 13; with each of them doubling the pause it was 8.
	if mean := float64(calls) / runs; mean < 10 {
		t.Errorf("%.1f calls in the time of a claim", mean)
	}
}
