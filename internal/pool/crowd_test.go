// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// Stock that nobody uses makes room for a pod that wants another kind: the ENI's slots are not one network's.
func TestStockOfOneKindMakesRoomForAnother(t *testing.T) {
	for name, q := range map[string]attachment.Query{
		"ranges that were changed": {Ranges: ranges("10.10.1.100-10.10.1.120")},
		"a prefix":                 {Source: attachment.SourcePrefix},
		"the subnet":               {Source: attachment.SourceSubnet},
		"an address by name":       {Requested: []netip.Addr{netip.MustParseAddr("10.10.1.195")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, dual)
				n := w.worker("worker-1") // an m5.large has fewer slots than the defaults want
				defer n.stop()
				<-n.Ready()
				first := attachment.Query{Ranges: ranges("10.10.1.64-10.10.1.90")}
				n.mustAdd(n.pod("a"), first)
				eventually(t, time.Minute, "a full ENI", func() bool { return len(n.states()) >= 9 && n.count("assigning") == 0 })
				time.Sleep(time.Minute)
				addrs, err := n.addAll(n.pod("b"), q)
				if err != nil {
					t.Fatalf("ADD: %v", err)
				}
				t.Log(addrs)
				before := w.writes()
				time.Sleep(10 * time.Minute)
				if after := w.writes(); after > before+4 {
					t.Errorf("the kinds go on taking slots from one another: %d calls", after-before)
				}
				w.agreeAll(n)
			})
		})
	}
}

// A claim that has to wait for another worker does not hold up the pods beside it.
func TestContestedClaimHoldsUpNobody(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		taken, free := netip.MustParseAddr("10.10.1.194"), netip.MustParseAddr("10.10.1.198")
		w.assign("worker-2", taken)
		time.Sleep(5 * time.Second)
		done := make(chan error)
		go func() {
			_, err := n.Register(context.Background(), n.pod("a"), attachment.Query{}, []netip.Addr{taken}, attachment.WaitThenReassign)
			done <- err
		}()
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		go func() {
			_, err := n.Register(context.Background(), n.pod("b"), attachment.Query{}, []netip.Addr{free}, attachment.WaitThenReassign)
			done <- err
		}()
		if _, err := n.addAll(n.pod("c"), any1()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("an ADD of stock took %s", took)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("a registration of a free address took %s", took)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An ADD that waits for an ENI is told at once when the ENI is detached.
func TestWaiterIsToldOfADetachedENI(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AssignPrivateIpAddresses", Probability: 1, Kind: front.ErrorBefore}}); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := n.addAll(n.pod("a"), any1())
			done <- err
		}()
		time.Sleep(2 * time.Second)
		e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-1"][1])
		if err := w.lab.Cloud.DetachNetworkInterface(time.Now(), e.Attachment.ID); err != nil {
			t.Fatal(err)
		}
		n.LinksChanged()
		began := time.Now()
		r := refusal(t, <-done)
		if !strings.Contains(r.Text, "no longer attached") {
			t.Errorf("refused with %q", r.Text)
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("told after %s", took)
		}
	})
}

// An address that a human put on the ENI is not the agent's to give out, and whoever asks for it is told so.
func TestRequestedForeignAddress(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		want := netip.MustParseAddr("10.10.1.195")
		w.assign("worker-1", want)
		eventually(t, 5*time.Minute, "it is noticed", func() bool { return n.states()[want] == "foreign" })
		began := time.Now()
		_, err := n.addAll(n.pod("a"), attachment.Query{Requested: []netip.Addr{want}})
		if r := refusal(t, err); !strings.Contains(r.Text, "not the agent's") || r.Reason != pool.Exhausted {
			t.Errorf("refused with %q", r.Text)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("told after %s", took)
		}
	})
}

// A registration of other addresses than the attachment has is not answered with those that it has.
func TestRegisterOtherAddresses(t *testing.T) {
	inLab(t, dual, func(t *testing.T, _ *world, n *node) {
		a := n.pod("a")
		for _, x := range []string{"10.10.1.195", "10.10.1.196"} {
			got, err := n.Register(context.Background(), a, attachment.Query{}, []netip.Addr{netip.MustParseAddr(x)}, attachment.Never)
			switch {
			case x == "10.10.1.195" && err != nil:
				t.Fatal(err)
			case x == "10.10.1.196" && err == nil:
				t.Errorf("%s was registered as %v", x, got.Addresses)
			case x == "10.10.1.196":
				if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, "DEL") {
					t.Errorf("refused with %q", r.Text)
				}
			}
		}
	})
}

// Ranges that a network had once are given up when nobody has asked for them for a day, and survive a restart until then.
func TestReplacedRangesAreGivenUp(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		old := n.pod("a")
		was, is := attachment.Query{Ranges: ranges("10.10.1.64-10.10.1.79")}, attachment.Query{Ranges: ranges("10.10.1.100-10.10.1.120")}
		n.mustAdd(old, was)
		n.del(old)
		n.mustAdd(n.pod("b"), is)
		in := func(r attachment.Range) (c int) {
			for a := range n.states() {
				if r.Contains(a) {
					c++
				}
			}
			return c
		}
		time.Sleep(20 * time.Hour)
		if in(was.Ranges[0]) != 4 || in(is.Ranges[0]) != 4 {
			t.Errorf("after 20 hours: %v", n.states())
		}
		n.mustAdd(n.pod("c"), is)
		time.Sleep(6 * time.Hour)
		if in(was.Ranges[0]) != 0 || in(is.Ranges[0]) != 4 {
			t.Errorf("after 26 hours: %v", n.states())
		}
		n.crash()
		<-n.Ready()
		time.Sleep(time.Hour)
		if in(was.Ranges[0]) != 0 || in(is.Ranges[0]) != 4 {
			t.Errorf("after a restart: %v", n.states())
		}
		w.agreeAll(n)
	})
}

// A pod that finds no stock does not sit out the pause that its worker makes after ten minutes of throttling, nor the one that
// follows on a call that is under way when it comes.
func TestPodEndsALongPause(t *testing.T) {
	slow := strings.Replace(dual, "latency: 80ms", "latency: 400ms", 1)
	for i := range 10 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			inLab(t, slow, func(t *testing.T, w *world, n *node) {
				n.mustAdd(n.pod("a"), any1())
				eventually(t, time.Minute, "stock", func() bool { return n.count("free") == 3 })
				w.throttle("AssignPrivateIpAddresses")
				for _, id := range []string{"b", "c", "d"} {
					n.mustAdd(n.pod(id), any1())
				}
				time.Sleep(10 * time.Minute)
				if i%2 == 0 {
					before := w.writes()
					eventually(t, time.Minute, "a call under way", func() bool { return w.writes() > before })
				}
				w.throttle()
				n.mustAdd(n.pod("e"), any1())
			})
		})
	}
}

// Pods that find stock do not hurry on those that wait for EC2 to let a call through.
func TestServedPodsHurryNobody(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		served := attachment.Query{Families: []string{attachment.IPv6}, Source: attachment.SourcePrefix}
		n.mustAdd(n.pod("first"), served)
		time.Sleep(time.Minute)
		w.throttle("AssignPrivateIpAddresses")
		over := make(chan struct{})
		var waiting sync.WaitGroup
		waiting.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
					_, _ = n.add(n.pod(fmt.Sprint("waits-", i)), any1())
				}
			}
		})
		time.Sleep(30 * time.Second)
		before := w.calls("AssignPrivateIpAddresses", "")
		for i := range 300 {
			n.mustAdd(n.pod(fmt.Sprint("served-", i)), served)
			time.Sleep(time.Second)
		}
		// 35 to 50, as without the pods that are served; each of them hurried the call on before, and there were 130.
		if got := w.calls("AssignPrivateIpAddresses", "") - before; got > 70 {
			t.Errorf("%d calls in five minutes", got)
		}
		close(over)
		w.throttle()
		waiting.Wait()
	})
}
