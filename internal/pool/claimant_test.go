// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// Addresses of dual that no pool takes.
var (
	float4 = netip.MustParseAddr("10.10.1.195")
	float6 = netip.MustParseAddr("2001:db8:10:1:4000::195")
)

// poolLink is the index of the link of a worker's first ENI for pods.
const poolLink = 3

// claimant is a pod that asks for addresses for itself, on a worker's first ENI for pods. Nobody tells the agent the path of its
// namespace.
type claimant struct {
	*node
	attachment.Claimant
	path string
}

func (n *node) claimant(name string) *claimant {
	ns := n.netns.add("/run/netns/" + name)
	n.netns.child(ns.Path, poolLink)
	return &claimant{n, attachment.Claimant{Netns: attachment.Netns{Cookie: ns.Cookie}, IfName: "net1", Link: poolLink, Pod: attachment.Pod{Namespace: "default", Name: name}}, ns.Path}
}

// appear puts addresses on the pod's interface and claims them.
func (c *claimant) appear(conflict attachment.OnConflict, addrs ...netip.Addr) map[netip.Addr]pool.ClaimResult {
	for _, a := range addrs {
		c.netns.carry(c.path, a)
	}
	return c.Claim(context.Background(), c.Claimant, addrs, conflict)
}

// has is appear for addresses that the pod must get.
func (c *claimant) has(conflict attachment.OnConflict, addrs ...netip.Addr) {
	c.world.t.Helper()
	for a, r := range c.appear(conflict, addrs...) {
		if r.Err != nil || !r.New {
			c.world.t.Fatalf("claim of %s by %s on %s: new %t, %v", a, c.Pod.Name, c.name, r.New, r.Err)
		}
	}
}

// leave takes addresses off the pod's interface and gives them up.
func (c *claimant) leave(addrs ...netip.Addr) {
	c.world.t.Helper()
	for _, a := range addrs {
		c.netns.shed(c.path, a)
	}
	if err := c.Yield(context.Background(), c.Claimant, addrs); err != nil {
		c.world.t.Fatal(err)
	}
}

// child gives the namespace a child of a host's link.
func (n *namespaces) child(path string, link int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at[path].modes = map[int]string{link: "l2"}
}

// shed takes one address off the namespace.
func (n *namespaces) shed(path string, addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ns := n.at[path]; ns != nil {
		ns.addrs = slices.DeleteFunc(ns.addrs, func(a netip.Addr) bool { return a == addr })
	}
}

// inLab2 runs a test in a bubble with both workers of a scenario.
func inLab2(t *testing.T, yaml string, test func(*testing.T, *world, *node, *node)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, yaml)
		n1, n2 := w.worker("worker-1", noStock), w.worker("worker-2", noStock)
		defer func() { n1.stop(); n2.stop() }()
		<-n1.Ready()
		<-n2.Ready()
		test(t, w, n1, n2)
	})
}

// TestClaimIsKnownByTheCookie: the inode number of a dead pod's namespace is the next one's at once.
func TestClaimIsKnownByTheCookie(t *testing.T) {
	inLab2(t, dual, func(t *testing.T, _ *world, n1, _ *node) {
		p := n1.claimant("a")
		p.Netns.Inode = 4026532400
		p.has(attachment.Never, float4)
		want := attachment.Key{ContainerID: fmt.Sprint("netns-", p.Netns.Cookie), IfName: "net1@" + float4.String()}
		if holds := n1.Status().Holds; len(holds) != 1 || holds[0].Key != want {
			t.Errorf("holds %+v, want that of %s", holds, want)
		}
	})
}

// watch looks every 10 ms whether the addresses have an owner, until the returned function is called, which says how often one had
// none.
func (w *world) watch(addrs ...netip.Addr) (ownerless func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	count := 0
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, a := range addrs {
				if w.owner(a) == "" {
					count++
				}
			}
		}
	})
	return func() int { cancel(); wg.Wait(); return count }
}

func both(conflict attachment.OnConflict, test func(t *testing.T, a netip.Addr)) func(*testing.T) {
	return func(t *testing.T) {
		for name, a := range map[string]netip.Addr{"ipv4": float4, "ipv6": float6} {
			t.Run(name+" "+string(conflict), func(t *testing.T) { test(t, a) })
		}
	}
}

// TestClaimedAddresses: what a pod carries is routed to it, in one call for each family; it is given back when the pod gives it up, and
// not before the cooldown is over.
func TestClaimedAddresses(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		addrs := []netip.Addr{float4, float4.Next(), float4.Next().Next(), float6, float6.Next()}
		a := n.claimant("a")
		before := w.writes()
		a.has(attachment.WaitThenReassign, addrs...)
		if got := w.writes() - before; got != 2 {
			t.Errorf("%d calls for addresses of two families", got)
		}
		a.has(attachment.WaitThenReassign, addrs...)
		if got := w.writes() - before; got != 2 {
			t.Errorf("%d calls after the same was claimed again", got)
		}
		for _, x := range addrs {
			if n.states()[x] != "guest" || !w.routed("worker-1", x) {
				t.Errorf("%s is %s, routed %t", x, n.states()[x], w.routed("worker-1", x))
			}
		}
		a.leave(addrs...)
		time.Sleep(29 * time.Second)
		for _, x := range addrs {
			if n.states()[x] != "cooling" || w.owner(x) == "" {
				t.Errorf("a moment later %s is %s", x, n.states()[x])
			}
		}
		eventually(t, 20*time.Second, "all is given back", func() bool {
			return !slices.ContainsFunc(addrs, func(x netip.Addr) bool { return w.owner(x) != "" })
		})
		time.Sleep(time.Second) // until EC2 has answered
		w.agreeAll(n)
		if got := n.Status().Holds; len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	})
}

// TestFloatingAddressMoves: the pod on which it appeared last has it, however fast that changes, whether or not the other gave it up;
// and the siblings of the one that lost it look for it again.
func TestFloatingAddressMoves(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
			pods := []*claimant{n1.claimant("a"), n2.claimant("b")}
			siblings := []*claimant{n1.claimant("c"), n2.claimant("d")} // of which nobody told the agents
			for i := range 40 {
				to, from := pods[i%2], pods[(i+1)%2]
				gone := from.leave
				if i%4 < 2 { // as in a split brain: it goes there when it has appeared here
					gone(addr)
				}
				to.node.netns.remember()
				from.node.netns.remember()
				to.has(attachment.Reassign, addr)
				if w.owner(addr) != w.lab.ENIs[to.name][1] {
					t.Fatalf("move %d: it is on %s, not on %s", i, w.owner(addr), to.name)
				}
				gone(addr)
				time.Sleep(time.Duration(i%7) * time.Second)
				if w.owner(addr) != w.lab.ENIs[to.name][1] {
					t.Fatalf("after move %d: it is on %s, not on %s", i, w.owner(addr), to.name)
				}
				if i%7 == 6 && !from.node.netns.forgot(attachment.Attachment{Netns: attachment.Netns{Path: siblings[(i+1)%2].path}}, addr) {
					t.Errorf("after move %d siblings on %s are still blind", i, from.name)
				}
			}
			if addr.Is4() {
				if got := w.calls("UnassignPrivateIpAddresses", ""); got > 0 {
					t.Errorf("%d unassigns", got)
				}
			}
			time.Sleep(5 * time.Minute)
			if w.owner(addr) != w.lab.ENIs["worker-2"][1] || n2.states()[addr] != "guest" || n1.states()[addr] != "" {
				t.Errorf("at the end: owner %s, worker-1 believes %q, worker-2 %q", w.owner(addr), n1.states()[addr], n2.states()[addr])
			}
			w.agreeAll(n1)
			w.agreeAll(n2)
		})
	})(t)
}

// TestFloatingAddressMovesFasterThanReads: the address moves on before anybody was shown where it is.
func TestFloatingAddressMovesFasterThanReads(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
			pods := []*claimant{n1.claimant("a"), n2.claimant("b")}
			var claims sync.WaitGroup
			defer claims.Wait()
			forget := func() {}
			for i := range 40 {
				to := pods[i%len(pods)]
				ctx, cancel := context.WithCancel(context.Background())
				forget() // as a syncer does when the address went
				forget = cancel
				for _, p := range pods {
					p.netns.shed(p.path, addr)
				}
				to.netns.carry(to.path, addr)
				claims.Go(func() { to.Claim(ctx, to.Claimant, []netip.Addr{addr}, attachment.Reassign) })
				eventually(t, 5*time.Second, fmt.Sprintf("move %d to %s", i, to.name), func() bool { return w.owner(addr) == w.lab.ENIs[to.name][1] })
			}
			time.Sleep(20 * time.Second)
			forget()
			if w.owner(addr) != w.lab.ENIs["worker-2"][1] || n2.states()[addr] != "guest" {
				t.Errorf("at the end it is on %s, and the second worker believes %q", w.owner(addr), n2.states()[addr])
			}
		})
	})(t)
}

// TestHandOver: between two pods of one ENI an address passes without a call to EC2, and always has an owner, whether it is given up
// first or not.
func TestHandOver(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab(t, dual, func(t *testing.T, w *world, n *node) {
			pods := []*claimant{n.claimant("a"), n.claimant("b")}
			pods[0].has(attachment.Reassign, addr)
			time.Sleep(5 * time.Second)
			before, ownerless := w.writes(), w.watch(addr)
			for i := range 20 {
				from, to := pods[i%2], pods[(i+1)%2]
				from.netns.shed(from.path, addr)
				if i%3 == 0 {
					from.leave(addr)
					time.Sleep(time.Duration(i) * time.Second)
				}
				to.has(attachment.Reassign, addr)
				from.leave(addr) // late, and about what is not its own any more
				time.Sleep(2 * time.Second)
			}
			if got := w.writes() - before; got != 0 {
				t.Errorf("%d calls", got)
			}
			n.crash()
			<-n.Ready()
			time.Sleep(2 * time.Minute)
			if got := ownerless(); got > 0 || n.states()[addr] != "guest" {
				t.Errorf("%d times without an owner, and at last %s", got, n.states()[addr])
			}
			holds := n.Status().Holds
			if len(holds) != 1 || holds[0].Pod.Name != "a" {
				t.Errorf("holds: %+v", holds)
			}
			w.agreeAll(n)
		})
	})(t)
}

// TestStillCarriedIsNeverTakenAway: an address that any pod of the worker carries does not leave its ENI, whoever gave it up.
func TestStillCarriedIsNeverTakenAway(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab(t, dual, func(t *testing.T, w *world, n *node) {
			a, b := n.claimant("a"), n.claimant("b")
			a.has(attachment.Reassign, addr)
			r := b.Claim(context.Background(), b.Claimant, []netip.Addr{addr}, attachment.Reassign)[addr]
			if refusal(t, r.Err).Reason != pool.Taken {
				t.Errorf("what another pod carries: %v", r.Err)
			}
			ownerless := w.watch(addr)
			a.leave(addr)
			b.netns.carry(b.path, addr) // and nobody claims it for it
			time.Sleep(5 * time.Minute)
			n.crash()
			time.Sleep(5 * time.Minute)
			b.has(attachment.Reassign, addr)
			if err := b.Yield(context.Background(), b.Claimant, []netip.Addr{addr}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Minute)
			if got := ownerless(); got > 0 {
				t.Errorf("%d times without an owner", got)
			}
			n.netns.remove(b.path)
			eventually(t, 2*time.Minute, "it goes back with its pod", func() bool { return w.owner(addr) == "" })
		})
	})(t)
}

// twoENIs is a worker with two ENIs in one subnet.
var twoENIs = strings.Replace(dual, `enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]`,
	`enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]`, 1)

// TestClaimMovesBetweenENIsOfAWorker: it takes one move, and what was believed of the other ENI ends with it.
func TestClaimMovesBetweenENIsOfAWorker(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab(t, twoENIs, func(t *testing.T, w *world, n *node) {
			a, b := n.claimant("a"), n.claimant("b")
			b.Link++
			n.netns.child(b.path, b.Link)
			a.has(attachment.Reassign, addr)
			time.Sleep(10 * time.Second)
			for i := range 6 {
				from, to := a, b
				if i%2 == 1 {
					from, to = b, a
				}
				from.netns.shed(from.path, addr)
				before := w.calls("AssignPrivateIpAddresses", "")
				to.has(attachment.Reassign, addr)
				if got := w.calls("AssignPrivateIpAddresses", "") - before; addr.Is4() && got != 1 {
					t.Errorf("move %d took %d calls", i, got)
				}
				from.leave(addr)
				if want := w.lab.ENIs["worker-1"][to.Link-2]; w.owner(addr) != want {
					t.Fatalf("move %d: it is on %s, not on %s", i, w.owner(addr), want)
				}
				time.Sleep(time.Duration(i) * time.Second)
			}
			if got := w.calls("UnassignPrivateIpAddresses", ""); got > 0 {
				t.Errorf("%d unassigns", got)
			}
			time.Sleep(5 * time.Minute)
			if got := n.Status().Holds; len(got) != 1 || got[0].Pod.Name != "a" || got[0].State.String() != "guest" {
				t.Errorf("holds: %+v", got)
			}
			w.agreeAll(n)
		})
	})(t)
}

// TestSplitBrainSettles: two pods go on carrying a floating address: whoever claimed it last has it, the other is told, and nothing
// moves any more until the address appears anew or nobody has it.
func TestSplitBrainSettles(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, dual)
			var contested atomic.Int32
			n1 := w.worker("worker-1", noStock, func(c *pool.Config) {
				c.Count = func(h pool.Happening) {
					if h == pool.Contested {
						contested.Add(1)
					}
				}
			})
			n2 := w.worker("worker-2", noStock)
			defer func() { n1.stop(); n2.stop() }()
			a, b := n1.claimant("a"), n2.claimant("b")
			a.has(attachment.Reassign, addr)
			time.Sleep(20 * time.Second)
			b.has(attachment.Reassign, addr)
			eventually(t, 3*time.Minute, "the first worker knows that it is contested", func() bool { return contested.Load() == 1 })
			if got := n1.Status().Problems; !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, w.lab.ENIs["worker-2"][1]) }) {
				t.Errorf("problems: %q", got)
			}
			standing, err := n1.Standing(context.Background(), a.Claimant, []netip.Addr{addr})
			if err != nil || standing[addr] != attachment.Elsewhere {
				t.Errorf("standing %v, %v", standing, err)
			}
			r := a.appear(attachment.Never, addr)[addr]
			if refusal(t, r.Err).Reason != pool.Taken {
				t.Errorf("claimed again without cause: %v", r.Err)
			}
			writes := w.writes()
			time.Sleep(time.Hour)
			if got := w.writes(); w.owner(addr) != w.lab.ENIs["worker-2"][1] || got != writes || contested.Load() != 1 {
				t.Errorf("an hour later it is on %s after %d calls, contested %d", w.owner(addr), got-writes, contested.Load())
			}
			b.leave(addr)
			eventually(t, 15*time.Minute, "nobody has it, so that the first worker has it again", func() bool { return w.owner(addr) == w.lab.ENIs["worker-1"][1] })
			time.Sleep(time.Minute)
			if standing, err = n1.Standing(context.Background(), a.Claimant, []netip.Addr{addr}); err != nil || standing[addr] != attachment.Here {
				t.Errorf("standing %v, %v", standing, err)
			}
		})
	})(t)
}

// TestClaimCancelsUnassign: a pod that claims an address which is just being given back ends up with it, at whatever moment that is
// and whatever becomes of the reply.
func TestClaimCancelsUnassign(t *testing.T) {
	for _, kind := range []front.Kind{"", front.LostReply, front.ErrorBefore, front.Slow} {
		for _, addr := range []netip.Addr{float4, float6} {
			t.Run(fmt.Sprintf("%s %s", kind, addr), func(t *testing.T) {
				for delay := time.Duration(0); delay < 600*time.Millisecond; delay += 110 * time.Millisecond {
					inLab(t, dual, func(t *testing.T, w *world, n *node) {
						a, b := n.claimant("a"), n.claimant("b")
						a.has(attachment.WaitThenReassign, addr)
						time.Sleep(20 * time.Second)
						if kind != "" {
							if err := w.lab.Front.SetFaults([]front.Fault{
								{Action: "UnassignPrivateIpAddresses", Nth: 1, Kind: kind}, {Action: "UnassignIpv6Addresses", Nth: 1, Kind: kind},
							}); err != nil {
								t.Fatal(err)
							}
						}
						a.leave(addr)
						n.netns.remove(a.path) // nobody comes back for it
						time.Sleep(900*time.Millisecond + delay)
						b.netns.carry(b.path, addr)
						eventually(t, time.Minute, "the other pod has it", func() bool { return b.appear(attachment.WaitThenReassign, addr)[addr].Err == nil })
						time.Sleep(5 * time.Minute)
						if !w.routed("worker-1", addr) || n.states()[addr] != "guest" {
							t.Errorf("%s later: %s, owner %q", delay, n.states()[addr], w.owner(addr))
						}
						w.agreeAll(n)
					})
				}
			})
		}
	}
}
