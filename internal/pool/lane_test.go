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
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// oneAtATime is one agent's way to EC2, and sees to it that it never asks about one address of an ENI in two calls at the same time: which of
// them EC2 does first nobody could tell.
type oneAtATime struct {
	pool.EC2
	t *testing.T

	mu    sync.Mutex
	about map[eniAddr]string // the call that is under way
}

// eniAddr is an address of an ENI.
type eniAddr struct {
	id   eni.ID
	addr netip.Addr
}

func newOneAtATime(t *testing.T, ec2 pool.EC2) *oneAtATime {
	return &oneAtATime{EC2: ec2, t: t, about: map[eniAddr]string{}}
}

func (o *oneAtATime) during(call string, id eni.ID, addrs []netip.Addr, do func() error) error {
	o.mu.Lock()
	for _, a := range addrs {
		if other, ok := o.about[eniAddr{id, a}]; ok {
			o.t.Errorf("%s of %s leaves during %s of it", call, a, other)
		}
		o.about[eniAddr{id, a}] = call
	}
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, a := range addrs {
			delete(o.about, eniAddr{id, a})
		}
	}()
	return do()
}

func (o *oneAtATime) Assign(ctx context.Context, id eni.ID, addrs []netip.Addr, reassign bool) error {
	return o.during("Assign", id, addrs, func() error { return o.EC2.Assign(ctx, id, addrs, reassign) })
}

func (o *oneAtATime) Unassign(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	return o.during("Unassign", id, addrs, func() error { return o.EC2.Unassign(ctx, id, addrs) })
}

func (o *oneAtATime) AssignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	return o.during("AssignIPv6", id, addrs, func() error { return o.EC2.AssignIPv6(ctx, id, addrs) })
}

func (o *oneAtATime) UnassignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	return o.during("UnassignIPv6", id, addrs, func() error { return o.EC2.UnassignIPv6(ctx, id, addrs) })
}

// slow makes the next call of an action take its effect at once and answer late.
func (w *world) slow(actions ...string) {
	w.t.Helper()
	var faults []front.Fault
	for _, action := range actions {
		faults = append(faults, front.Fault{Action: action, Nth: 1, Count: 1, Kind: front.Slow, Delay: 5 * time.Second})
	}
	if err := w.lab.Front.SetFaults(faults); err != nil {
		w.t.Fatal(err)
	}
}

// throttle has EC2 refuse all calls of these actions, and no others, from now on.
func (w *world) throttle(actions ...string) {
	w.t.Helper()
	var faults []front.Fault
	for _, action := range actions {
		faults = append(faults, front.Fault{Action: action, Probability: 1, Kind: front.ErrorBefore, Code: "RequestLimitExceeded"})
	}
	if err := w.lab.Front.SetFaults(faults); err != nil {
		w.t.Fatal(err)
	}
}

// inStocked is inLab with the stock that the defaults want, which is all slots of an m5.2xlarge's ENI.
func inStocked(t *testing.T, yaml string, test func(*testing.T, *world, *node)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, yaml)
		n := w.worker("worker-1")
		defer func() { n.stop() }()
		<-n.Ready()
		test(t, w, n)
	})
}

// TestFloatingAddressWaitsForNothingElse: neither for stock that the ENI is getting, nor for the other family, nor for a read.
func TestFloatingAddressWaitsForNothingElse(t *testing.T) {
	inStocked(t, roomy, func(t *testing.T, w *world, n *node) {
		p := n.claimant("a")
		w.slow("AssignPrivateIpAddresses")
		var others sync.WaitGroup
		defer others.Wait()
		others.Go(func() { n.mustAdd(n.pod("b"), attachment.Query{}) })
		time.Sleep(time.Second)
		w.slow("DescribeNetworkInterfaces", "AssignIpv6Addresses")
		others.Go(func() { p.has(attachment.Reassign, float6) })
		synctest.Wait()
		began := time.Now()
		others.Go(func() { p.has(attachment.Reassign, float4) })
		eventually(t, 2*time.Second, "both have left", func() bool {
			return w.owner(float4) == w.lab.ENIs["worker-1"][1] && w.owner(float6) == w.lab.ENIs["worker-1"][1]
		})
		t.Logf("after %s", time.Since(began))
		others.Wait()
		time.Sleep(time.Minute)
		w.agreeAll(n)
	})
}

// TestFloatingAddressesOfIPv6MoveTogether, where each step of a move is a call.
func TestFloatingAddressesOfIPv6MoveTogether(t *testing.T) {
	inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
		var addrs []netip.Addr
		for a := float6; len(addrs) < 10; a = a.Next() {
			addrs = append(addrs, a)
		}
		from, to := n1.claimant("a"), n2.claimant("b")
		from.has(attachment.Reassign, addrs...)
		before := w.writes()
		to.has(attachment.Reassign, addrs...)
		if got := w.writes() - before; got != 3 { // one that EC2 refuses, and the two of the move
			t.Errorf("%d calls move ten addresses", got)
		}
		from.leave(addrs...)
		time.Sleep(5 * time.Minute)
		w.agreeAll(n1)
		w.agreeAll(n2)
		for _, a := range addrs {
			if n2.states()[a] != "guest" || !w.routed("worker-2", a) {
				t.Errorf("%s is %s, routed %t", a, n2.states()[a], w.routed("worker-2", a))
			}
		}
	})
}

// TestAddressesThatMoveTogetherMoveOneByOne when one of them is not where reads show it any more.
func TestAddressesThatMoveTogetherMoveOneByOne(t *testing.T) {
	inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
		addrs := []netip.Addr{float6, float6.Next(), float6.Next().Next()}
		from, to := n1.claimant("a"), n2.claimant("b")
		from.has(attachment.Reassign, addrs...)
		time.Sleep(time.Minute)
		from.leave(addrs...)
		id := w.lab.ENIs["worker-1"][1]
		if _, err := w.lab.Cloud.UnassignIPv6Addresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: id, Addresses: addrs[1:2]}); err != nil {
			t.Fatal(err)
		}
		before := w.calls("UnassignIpv6Addresses", "")
		to.has(attachment.Reassign, addrs...)
		if got := w.calls("UnassignIpv6Addresses", "") - before; got != 1+len(addrs) { // all, which EC2 refuses, and each
			t.Errorf("%d unassigns", got)
		}
		for _, a := range addrs {
			if got := w.owner(a); got != w.lab.ENIs["worker-2"][1] {
				t.Errorf("%s is on %q", a, got)
			}
		}
		time.Sleep(5 * time.Minute)
		w.agreeAll(n1)
		w.agreeAll(n2)
	})
}

// TestClaimWaitsForTheCallAboutItsAddress: what is being given back is asked for when that is answered, and not before.
func TestClaimWaitsForTheCallAboutItsAddress(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab(t, dual, func(t *testing.T, w *world, n *node) {
			p := n.claimant("a")
			p.has(attachment.Reassign, addr)
			w.slow("UnassignPrivateIpAddresses", "UnassignIpv6Addresses")
			p.leave(addr)
			eventually(t, time.Minute, "it is being given back", func() bool { return w.owner(addr) == "" })
			p.has(attachment.Reassign, addr)
			time.Sleep(time.Minute)
			if n.states()[addr] != "guest" || !w.routed("worker-1", addr) {
				t.Errorf("%s is %s, routed %t", addr, n.states()[addr], w.routed("worker-1", addr))
			}
			w.agreeAll(n)
		})
	})(t)
}

// TestFloatingAddressGetsTheSlotThatIsGivenBack on an ENI that is full of stock.
func TestFloatingAddressGetsTheSlotThatIsGivenBack(t *testing.T) {
	inStocked(t, dual, func(t *testing.T, w *world, n *node) {
		const slots = 14 // of an m5.2xlarge's ENI, as many as the defaults want
		n.mustAdd(n.pod("b"), attachment.Query{})
		eventually(t, time.Minute, "the ENI is full", func() bool { return len(n.states()) == slots })
		time.Sleep(time.Minute)
		refused := w.calls("AssignPrivateIpAddresses", "PrivateIpAddressLimitExceeded")
		n.claimant("a").has(attachment.Reassign, float4)
		if got := w.calls("AssignPrivateIpAddresses", "PrivateIpAddressLimitExceeded"); got != refused {
			t.Errorf("EC2 was asked for a slot too many %d times", got-refused)
		}
		w.agreeAll(n)
	})
}

// TestFullENIThatHasTheAddressAlready: EC2 may count an address that is asked for once more as one more.
func TestFullENIThatHasTheAddressAlready(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inStocked(t, dual, func(t *testing.T, w *world, n *node) {
			p := n.claimant("a")
			p.has(attachment.Reassign, addr)
			n.mustAdd(n.pod("b"), attachment.Query{Families: []string{attachment.IPv4, attachment.IPv6}})
			time.Sleep(5 * time.Minute)
			p.has(attachment.Reassign, addr)
			if got := w.calls("AssignPrivateIpAddresses", "PrivateIpAddressLimitExceeded") + w.calls("AssignIpv6Addresses", "PrivateIpAddressLimitExceeded"); addr.Is6() && got == 0 {
				t.Error("EC2 did not refuse: the ENI was not full")
			}
			if n.states()[addr] != "guest" {
				t.Errorf("%s is %s", addr, n.states()[addr])
			}
			w.agreeAll(n)
		})
	})(t)
}
