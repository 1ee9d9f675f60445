// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
)

// TestClaimsAtRandom: whatever pods of two workers do with two addresses, in whatever order, however often agents are killed and EC2
// loses replies: when it is over, the pod that put an address on last has it, and what nobody carries goes back.
func TestClaimsAtRandom(t *testing.T) {
	for seed := range uint64(15) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaosOfClaims(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

// follower claims what its pod carries, as a syncer does: again and again, until the address goes or another ENI keeps it.
type follower struct {
	*claimant
	claims sync.WaitGroup
	cancel map[netip.Addr]context.CancelFunc
}

func (f *follower) put(r *rand.Rand, addr netip.Addr) {
	f.netns.carry(f.path, addr)
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel[addr] = cancel
	pauses := rand.New(rand.NewPCG(r.Uint64(), 1))
	f.claims.Go(func() {
		for {
			err := f.Claim(ctx, f.Claimant, []netip.Addr{addr}, attachment.Reassign)[addr].Err
			if err == nil || ctx.Err() != nil {
				return
			}
			select {
			case <-time.After(500*time.Millisecond + rand.N(time.Second)*time.Duration(pauses.IntN(3))):
			case <-ctx.Done():
				return
			}
		}
	})
}

func (f *follower) take(addr netip.Addr) {
	if f.cancel[addr] == nil {
		return
	}
	f.cancel[addr]()
	delete(f.cancel, addr)
	f.netns.shed(f.path, addr)
	_ = f.Yield(context.Background(), f.Claimant, []netip.Addr{addr})
}

// restart kills a worker's agent and starts another, of which its pods ask again what they were asking for.
func restart(r *rand.Rand, n *node, pods []*follower) {
	for _, f := range pods {
		if f.node != n {
			continue
		}
		for _, cancel := range f.cancel {
			cancel()
		}
		f.claims.Wait()
	}
	n.crash()
	<-n.Ready()
	for _, f := range pods {
		if f.node != n {
			continue
		}
		for _, addr := range slices.SortedFunc(maps.Keys(f.cancel), netip.Addr.Compare) {
			f.put(r, addr)
		}
	}
}

func chaosOfClaims(t *testing.T, r *rand.Rand) {
	w := newWorld(t, dual)
	n1, n2 := w.worker("worker-1", noStock), w.worker("worker-2") // whose stock and pods come and go meanwhile
	defer func() { n1.stop(); n2.stop() }()
	<-n1.Ready()
	<-n2.Ready()
	var pods []*follower
	for i, n := range []*node{n1, n2, n1, n2} {
		pods = append(pods, &follower{claimant: n.claimant(fmt.Sprint("pod-", i)), cancel: map[netip.Addr]context.CancelFunc{}})
	}
	addrs := []netip.Addr{float4, float6}
	// alone has a pod carry the address that no other pod of its worker carries: the kernel would not let it.
	alone := func(f *follower, addr netip.Addr) {
		for _, o := range pods {
			if o != f && o.node == f.node {
				o.take(addr)
			}
		}
		if f.cancel[addr] == nil {
			f.put(r, addr)
		}
	}
	var tenants []attachment.Attachment
	for range 40 {
		f, addr := pods[r.IntN(len(pods))], addrs[r.IntN(len(addrs))]
		switch r.IntN(12) {
		case 0, 1, 2, 3, 4:
			alone(f, addr)
		case 5, 6, 7:
			f.take(addr)
		case 8:
			restart(r, f.node, pods)
		case 9:
			var faults []front.Fault
			for _, action := range []string{"AssignPrivateIpAddresses", "AssignIpv6Addresses", "UnassignPrivateIpAddresses", "UnassignIpv6Addresses"} {
				faults = append(faults, front.Fault{Action: action, Nth: 1, Kind: []front.Kind{front.LostReply, front.ErrorBefore, front.ErrorAfter, front.Slow}[r.IntN(4)]})
			}
			if err := w.lab.Front.SetFaults(faults); err != nil {
				t.Fatal(err)
			}
		case 10, 11:
			if tenants = append(tenants, n2.pod(fmt.Sprint("tenant-", len(tenants)))); len(tenants)%3 == 0 {
				for _, a := range tenants {
					n2.del(a)
				}
			} else {
				_, _ = n2.add(tenants[len(tenants)-1], attachment.Query{Families: []string{attachment.IPv4, attachment.IPv6}})
			}
		}
		time.Sleep(time.Duration(r.IntN(4)*r.IntN(2000)) * time.Millisecond)
	}
	for _, a := range tenants {
		n2.del(a)
	}
	time.Sleep(time.Minute) // reads of all agents are up to date
	last := map[netip.Addr]*follower{}
	for _, addr := range addrs {
		last[addr] = pods[r.IntN(len(pods))]
		last[addr].take(addr)
		alone(last[addr], addr)
	}
	time.Sleep(5 * time.Minute)
	for addr, f := range last {
		if want := w.lab.ENIs[f.name][1]; w.owner(addr) != want || f.states()[addr] != "guest" && f.states()[addr] != "held" {
			t.Errorf("%s is on %q, %s of %s put it on last, whose agent believes %q", addr, w.owner(addr), f.Pod.Name, f.name, f.states()[addr])
		}
	}
	for _, f := range pods {
		for _, addr := range addrs {
			f.take(addr)
		}
		f.claims.Wait()
	}
	eventually(t, 5*time.Minute, "all is given back", func() bool {
		return !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return w.owner(a) != "" })
	})
	time.Sleep(3 * time.Minute)
	for _, n := range []*node{n1, n2} {
		w.agreeAll(n)
		if got := n.Status().Holds; len(got) > 0 {
			t.Errorf("%s: %+v", n.name, got)
		}
	}
}
