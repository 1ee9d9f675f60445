// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// TestClaimEndsWithItsNamespace: a pod that is killed gives nothing up; its namespace tells.
func TestClaimEndsWithItsNamespace(t *testing.T) {
	for name, tt := range map[string]struct {
		conflict attachment.OnConflict
		cools    bool
	}{
		"floating: a neighbour may want it": {attachment.Reassign, true},
		"of an IPAM plugin: at once":        {attachment.WaitThenReassign, false},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				dying, alive := n.claimant("dying"), n.claimant("alive")
				alive.has(attachment.Never, float4.Next(), float6.Next())
				dying.has(tt.conflict, float4, float6)
				n.netns.remove(dying.path)
				time.Sleep(15 * time.Second)
				if cools := n.states()[float4] == "cooling" && n.states()[float6] == "cooling"; cools != tt.cools {
					t.Errorf("soon after: %s, %s", n.states()[float4], n.states()[float6])
				}
				eventually(t, time.Minute, "both are given back", func() bool { return w.owner(float4) == "" && w.owner(float6) == "" })
				w.agreeAll(n)
				if got := n.Status().Holds; len(got) != 2 {
					t.Errorf("holds: %+v", got)
				}
			})
		})
	}
}

// TestClaimSurvivesAKill: whenever the agent is killed during a claim, a hand-over or the end of one, the pod that carries the address
// has it in the end, and what nobody carries goes back.
func TestClaimSurvivesAKill(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		for delay := time.Duration(0); delay < 3*time.Second; delay += 230 * time.Millisecond {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				a, b := n.claimant("a"), n.claimant("b")
				again := func(c *claimant) {
					ctx, cancel := context.WithTimeout(context.Background(), delay)
					defer cancel()
					c.netns.carry(c.path, addr)
					c.Claim(ctx, c.Claimant, []netip.Addr{addr}, attachment.Reassign)
					<-ctx.Done()
					n.crash()
					<-n.Ready()
					c.has(attachment.Reassign, addr)
				}
				again(a)
				a.leave(addr)
				again(b)
				if delay < time.Second {
					b.leave(addr)
					time.Sleep(29500*time.Millisecond + delay) // while it goes back
					n.crash()
				} else {
					n.netns.remove(b.path)
				}
				eventually(t, 3*time.Minute, "it is given back", func() bool { return w.owner(addr) == "" })
				time.Sleep(3 * time.Minute) // a read may have been behind
				w.agreeAll(n)
				if got := n.Status().Holds; len(got) != 0 {
					t.Errorf("holds: %+v", got)
				}
			})
		}
	})(t)
}

// TestClaimOutlivesBadDaysOfEC2: throttled, refused and lost calls delay a claim, and nothing worse.
func TestClaimOutlivesBadDaysOfEC2(t *testing.T) {
	for _, kind := range []front.Kind{front.LostReply, front.ErrorBefore, front.ErrorAfter, front.ServerError, front.Slow} {
		both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
			inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
				a, b := n1.claimant("a"), n2.claimant("b")
				a.has(attachment.Reassign, addr)
				time.Sleep(10 * time.Second)
				var faults []front.Fault
				for _, action := range []string{"AssignPrivateIpAddresses", "AssignIpv6Addresses", "UnassignIpv6Addresses", "DescribeNetworkInterfaces"} {
					faults = append(faults, front.Fault{Action: action, Nth: 1, Count: 2, Kind: kind})
				}
				if err := w.lab.Front.SetFaults(faults); err != nil {
					t.Fatal(err)
				}
				eventually(t, time.Minute, "it moved", func() bool { return b.appear(attachment.Reassign, addr)[addr].Err == nil })
				a.leave(addr)
				time.Sleep(3 * time.Minute)
				if !w.routed("worker-2", addr) {
					t.Errorf("owner %q", w.owner(addr))
				}
				w.agreeAll(n1)
				w.agreeAll(n2)
			})
		})(t)
	}
}

// TestClaimIsRefused: what the claimant's ENI cannot have, and what is somebody else's.
func TestClaimIsRefused(t *testing.T) {
	inLab2(t, dual, func(t *testing.T, w *world, n, n2 *node) {
		a := n.claimant("a")
		e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-1"][1])
		other := n2.claimant("other")
		theirs := netip.MustParseAddr("10.10.1.200")
		other.has(attachment.Never, theirs)
		pods := n.mustAdd(n.pod("pod"), attachment.Query{Requested: []netip.Addr{netip.MustParseAddr("10.10.1.201")}})
		for what, tt := range map[string]struct {
			addr   netip.Addr
			link   int
			reason pool.Reason
		}{
			"outside of the subnet":        {netip.MustParseAddr("10.10.2.9"), poolLink, pool.Invalid},
			"the VPC's own":                {netip.MustParseAddr("10.10.1.1"), poolLink, pool.Invalid},
			"the ENI's primary":            {e.Primary, poolLink, pool.Invalid},
			"on the primary ENI":           {float4, poolLink - 1, pool.Invalid},
			"on no ENI":                    {float4, 77, pool.Invalid},
			"on another worker":            {theirs, poolLink, pool.Taken},
			"held by an attachment's pod":  {pods, poolLink, pool.Taken},
			"another worker's primary one": {netip.MustParseAddr("10.10.1.20"), poolLink, pool.Taken},
		} {
			if what == "another worker's primary one" {
				far, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-2"][1])
				tt.addr = far.Primary
			}
			c := a.Claimant
			c.Link = tt.link
			r := n.Claim(context.Background(), c, []netip.Addr{tt.addr}, attachment.Never)[tt.addr]
			if got := refusal(t, r.Err); got.Reason != tt.reason || r.New {
				t.Errorf("%s: %d %q", what, got.Reason, got.Text)
			}
		}
		time.Sleep(2 * time.Minute)
		if w.owner(theirs) != w.lab.ENIs["worker-2"][1] {
			t.Error("it was taken")
		}
		w.agreeAll(n)
	})
}

// TestClaimOfAnotherIPAMsAddressMoves: once it is free, or after its old owner had time to give it back; and never from a stranger.
func TestClaimOfAnotherIPAMsAddressMoves(t *testing.T) {
	both(attachment.WaitThenReassign, func(t *testing.T, addr netip.Addr) {
		inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
			a, b := n1.claimant("a"), n2.claimant("b")
			a.has(attachment.WaitThenReassign, addr, addr.Next())
			time.Sleep(20 * time.Second)
			n1.netns.remove(a.path)
			began := time.Now()
			b.has(attachment.WaitThenReassign, addr, addr.Next(), addr.Next().Next())
			if took := time.Since(began); took < 5*time.Second || took > 14*time.Second {
				t.Errorf("moved after %s", took)
			}
			time.Sleep(3 * time.Minute)
			for _, x := range []netip.Addr{addr, addr.Next(), addr.Next().Next()} {
				if !w.routed("worker-2", x) {
					t.Errorf("%s is on %q", x, w.owner(x))
				}
			}
			w.agreeAll(n1)
			w.agreeAll(n2)
		})
	})(t)
}

// TestSidecarBesideThePlugins: a pod that has its address from a CNI plugin may claim it as well, and gives up nothing that is not a
// claim's.
func TestSidecarBesideThePlugins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dual)
		n := w.worker("worker-1")
		defer func() { n.stop() }()
		held := n.pod("held")
		addr := n.mustAdd(held, any1())
		c := attachment.Claimant{Netns: attachment.Netns{Cookie: held.Netns.Cookie}, IfName: "net1", Link: poolLink}
		for _, conflict := range []attachment.OnConflict{attachment.WaitThenReassign, attachment.Reassign} {
			if r := n.Claim(context.Background(), c, []netip.Addr{addr}, conflict)[addr]; r.Err != nil || r.New {
				t.Errorf("%s: new %t, %v", conflict, r.New, r.Err)
			}
		}
		if err := n.Yield(context.Background(), c, []netip.Addr{addr}); err != nil || n.states()[addr] != "held" {
			t.Errorf("%s, %v", n.states()[addr], err)
		}
	})
}

// TestHandOverOnAnOldWord: the metadata still shows an address that another worker took a moment ago, so that a neighbour gets it
// without a call. It is not long before that is known, and the worker that took it keeps it.
func TestHandOverOnAnOldWord(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
			a, b, c := n1.claimant("a"), n2.claimant("b"), n1.claimant("c")
			a.has(attachment.Reassign, addr)
			time.Sleep(10 * time.Second)
			answered := make(chan error, 1)
			b.netns.carry(b.path, addr)
			go func() {
				answered <- b.Claim(context.Background(), b.Claimant, []netip.Addr{addr}, attachment.Reassign)[addr].Err
			}()
			eventually(t, 2*time.Second, "it moved", func() bool { return w.owner(addr) == w.lab.ENIs["worker-2"][1] })
			n1.netns.shed(a.path, addr)
			c.has(attachment.Reassign, addr) // the first worker's metadata is behind
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			time.Sleep(25 * time.Second)
			if got := n1.states()[addr]; got != "lost" || w.owner(addr) != w.lab.ENIs["worker-2"][1] {
				t.Errorf("it is on %s, and the other worker believes %q", w.owner(addr), got)
			}
		})
	})(t)
}

// TestWhatFloatsIsKeptWithTheAttachment: from ADD or registration to DEL, across restarts of the agent.
func TestWhatFloatsIsKeptWithTheAttachment(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		q := attachment.Query{Floating: ranges("10.10.1.195", "2001:db8:10:1:4000::/112")}
		given, registered := n.pod("given"), n.pod("registered")
		n.mustAdd(given, q)
		n.mustAdd(n.pod("plain"), any1())
		if _, err := n.Register(context.Background(), registered, q, []netip.Addr{netip.MustParseAddr("10.10.1.199")}, attachment.Never); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			var got []string
			for _, f := range n.Floating() {
				got = append(got, f.ContainerID)
				if diff := cmp.Diff(q.Floating, f.Ranges, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f.ContainerID, diff)
				}
			}
			if diff := cmp.Diff([]string{"given", "registered"}, got); diff != "" {
				t.Errorf("watched (-want +got):\n%s", diff)
			}
			n.crash()
		}
		<-n.Ready()
		for len(n.FloatingChanged()) > 0 {
			<-n.FloatingChanged()
		}
		n.del(given)
		<-n.FloatingChanged()
		if got := n.Floating(); len(got) != 1 || got[0].ContainerID != "registered" {
			t.Errorf("after a DEL: %v", got)
		}
	})
}

// TestClaimOfANamespaceThatIsNotSeen: it works, it ends when the pod says so, and the status tells that nothing else would end it.
func TestClaimOfANamespaceThatIsNotSeen(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		a := n.claimant("a")
		n.netns.hide(true)
		a.has(attachment.Never, float4)
		told := func() bool {
			return slices.ContainsFunc(n.Status().Problems, func(p string) bool { return strings.Contains(p, "net1@"+float4.String()) })
		}
		if !told() {
			t.Errorf("problems: %q", n.Status().Problems)
		}
		n.netns.remove(a.path)
		time.Sleep(10 * time.Minute)
		if n.states()[float4] != "guest" {
			t.Errorf("%s is %s", float4, n.states()[float4])
		}
		a.leave(float4)
		eventually(t, time.Minute, "it is given back", func() bool { return w.owner(float4) == "" })
		if told() {
			t.Errorf("problems: %q", n.Status().Problems)
		}
	})
}
