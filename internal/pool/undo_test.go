// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// unassign takes addresses away from a worker's pool ENI behind the agent's back.
func (w *world) unassign(worker string, addrs ...netip.Addr) {
	w.t.Helper()
	in := vpc.UnassignInput{NetworkInterfaceID: w.lab.ENIs[worker][1], Addresses: addrs}
	var err error
	if addrs[0].Is6() {
		_, err = w.lab.Cloud.UnassignIPv6Addresses(time.Now(), in)
	} else {
		err = w.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), in)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// Two calls for one attachment get the same address. That the answer of one was lost does not make the address free: the
// other's was delivered, and the pod uses it.
func TestLostAnswerOfTwoFreesNothing(t *testing.T) {
	for name, first := range map[string]bool{"the one that waited first": true, "the other": false} {
		t.Run(name, func(t *testing.T) {
			inLab(t, dual, func(t *testing.T, _ *world, n *node) {
				a := n.pod("a")
				var got [2]pool.Allocation
				var both sync.WaitGroup
				for i := range got {
					both.Go(func() {
						var err error
						if got[i], err = n.Add(context.Background(), a, any1()); err != nil {
							t.Error(err)
						}
					})
					synctest.Wait()
				}
				both.Wait()
				lost := 1
				if first {
					lost = 0
				}
				n.Undelivered(a.Key, got[lost])
				addr := got[1-lost].Addresses[0].Addr()
				if s := n.states()[addr]; s != "held" {
					t.Errorf("the address that a pod uses is %s", s)
				}
				n.Undelivered(a.Key, got[1-lost])
				if s := n.states()[addr]; s != "free" {
					t.Errorf("when neither answer arrived it is %s", s)
				}
			})
		})
	}
}

// A dual-stack pod that lost one of its addresses gives back the other when it goes.
func TestHalfLostPodGivesBackTheRest(t *testing.T) {
	for name, lost := range map[string]int{"ipv4": 0, "ipv6": 1} {
		t.Run(name, func(t *testing.T) {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				a := n.pod("a")
				addrs, err := n.addAll(a, attachment.Query{Families: []string{attachment.IPv4, attachment.IPv6}})
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, time.Minute, "quiet", func() bool { return n.count("assigning") == 0 })
				time.Sleep(20 * time.Second)
				if err := w.lab.Front.SetFaults([]front.Fault{
					{Action: "AssignPrivateIpAddresses", Probability: 1, Kind: front.ErrorBefore},
					{Action: "AssignIpv6Addresses", Probability: 1, Kind: front.ErrorBefore},
				}); err != nil {
					t.Fatal(err)
				}
				w.unassign("worker-1", addrs[lost])
				eventually(t, 5*time.Minute, "the loss is known", func() bool { return n.states()[addrs[lost]] == "lost" })
				if err := n.Check(a.Key, nil); err == nil {
					t.Error("CHECK finds nothing wrong")
				}
				n.del(a)
				if err := w.lab.Front.SetFaults(nil); err != nil {
					t.Fatal(err)
				}
				eventually(t, 10*time.Minute, "nothing cools", func() bool { return n.count("cooling")+n.count("lost") == 0 })
				time.Sleep(10 * time.Minute)
				w.agreeAll(n)
			})
		})
	}
}

// An address of one family that somebody else took does not keep the other from being assigned again.
func TestBothFamiliesAreRegained(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		addrs, err := n.addAll(n.pod("a"), attachment.Query{Families: []string{attachment.IPv4, attachment.IPv6}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.unassign("worker-1", addrs[0])
		w.assign("worker-2", addrs[0])
		w.unassign("worker-1", addrs[1])
		eventually(t, 10*time.Minute, "the loss is known", func() bool { return n.states()[addrs[0]] == "lost" && n.states()[addrs[1]] == "lost" })
		eventually(t, 10*time.Minute, "the IPv6 address is the pod's again", func() bool {
			return n.states()[addrs[1]] == "held" && w.routed("worker-1", addrs[1])
		})
		if w.owner(addrs[0]) != w.lab.ENIs["worker-2"][1] {
			t.Error("the IPv4 address was taken back")
		}
	})
}

// A pod may go while its lost address is asked for again: what EC2 then assigns is not forgotten on the ENI.
func TestPodGoesWhileItsAddressIsRegained(t *testing.T) {
	want := netip.MustParseAddr("10.10.1.195")
	for name, slow := range map[string]time.Duration{"during the call": 8 * time.Second, "before a read shows it": 0} {
		t.Run(name, func(t *testing.T) {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				a := n.pod("a")
				if _, err := n.addAll(a, attachment.Query{Requested: []netip.Addr{want}}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if slow > 0 {
					if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AssignPrivateIpAddresses", Nth: 1, Kind: front.Slow, Delay: slow}}); err != nil {
						t.Fatal(err)
					}
				}
				w.unassign("worker-1", want)
				time.Sleep(5 * time.Second)
				eventually(t, 5*time.Minute, "it is asked for again", func() bool { return w.owner(want) != "" })
				n.del(a)
				eventually(t, 5*time.Minute, "it went back with its pod", func() bool { return w.owner(want) == "" && len(n.states()) == 0 })
				w.agreeAll(n)
			})
		})
	}
}

// late holds up the first request for an action on its way to EC2.
type late struct {
	http.RoundTripper
	action string
	by     time.Duration
	once   sync.Once
}

func (l *late) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if bytes.Contains(body, []byte("Action="+l.action+"&")) {
		l.once.Do(func() { time.Sleep(l.by) })
	}
	return l.RoundTripper.RoundTrip(r)
}

// A request that takes longer than reads are behind is not concluded to have failed while it is under way.
func TestReadsConcludeNothingDuringARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dual)
		w.ec2 = &late{RoundTripper: w.lab.EC2(), action: "AssignPrivateIpAddresses", by: 14 * time.Second}
		n := w.worker("worker-1", func(c *pool.Config) { c.DriftInterval = time.Second })
		defer n.stop()
		<-n.Ready()
		want := netip.MustParseAddr("10.10.1.195")
		done := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 13*time.Second)
			defer cancel()
			_, err := n.Add(ctx, n.pod("a"), attachment.Query{Requested: []netip.Addr{want}})
			done <- err
		}()
		time.Sleep(9 * time.Second)
		w.assign("worker-1", netip.MustParseAddr("10.10.1.130")) // whatever has the agent read its ENIs
		if err := <-done; err == nil {
			t.Fatal("it was in time")
		}
		time.Sleep(2 * time.Second)
		eventually(t, time.Minute, "the address went back", func() bool { return w.owner(want) == "" && n.states()[want] == "" })
	})
}

// What a pod had given back goes on cooling when the pod comes again in a sandbox that has something cooling itself.
func TestTwoCoolingHoldsOfAPod(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		old, sandbox := n.pod("a"), n.pod("b")
		sandbox.Pod = old.Pod // the runtime made a new sandbox before it deleted the old one
		n.mustAdd(old, any1())
		n.mustAdd(sandbox, any1())
		n.del(old)
		n.del(sandbox)
		for range 2 {
			n.mustAdd(old, any1())
			n.mustAdd(sandbox, any1())
			n.del(sandbox)
			n.del(old)
		}
		n.mustAdd(sandbox, any1())
		n.del(sandbox)
		eventually(t, 5*time.Minute, "nothing cools for ever", func() bool { return n.count("cooling") == 0 })
		w.agreeAll(n)
	})
}
