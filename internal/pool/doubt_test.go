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

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

func TestSurplusGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 2, 3 })
		defer n.stop()
		var pods []attachment.Attachment
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			pods = append(pods, n.pod(id))
			n.mustAdd(pods[len(pods)-1], any1())
		}
		for _, p := range pods {
			n.del(p)
		}
		eventually(t, 5*time.Minute, "3 left of the stock", func() bool { return n.count("free") == 3 && len(n.states()) == 3 })
		e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-1"][1])
		if len(e.Secondary) != 3 {
			t.Errorf("EC2 has %v", e.Secondary)
		}
	})
}

func TestLostReply(t *testing.T) {
	for _, kind := range []front.Kind{front.LostReply, front.ErrorAfter, front.ErrorBefore, front.ServerError} {
		for _, action := range []string{"AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"} {
			t.Run(string(kind)+"/"+action, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoWorkers)
					if err := w.lab.Front.SetFaults([]front.Fault{{Action: action, Nth: 1, Kind: kind}}); err != nil {
						t.Fatal(err)
					}
					n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 1, 2 })
					defer n.stop()
					var pods []attachment.Attachment
					for _, id := range []string{"a", "b", "c", "d"} {
						pods = append(pods, n.pod(id))
						n.mustAdd(pods[len(pods)-1], any1())
					}
					for _, p := range pods {
						n.del(p)
					}
					eventually(t, 10*time.Minute, "stock settled", func() bool { return n.count("free") == 2 && len(n.states()) == 2 })
					w.agree(n)
				})
			})
		}
	}
}

func (w *world) agree(n *node) {
	w.t.Helper()
	e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs[n.name][1])
	have := slices.Clone(e.Secondary)
	slices.SortFunc(have, netip.Addr.Compare)
	var believed []netip.Addr
	for a := range n.states() {
		believed = append(believed, a)
	}
	slices.SortFunc(believed, netip.Addr.Compare)
	if !slices.Equal(have, believed) {
		w.t.Errorf("%s: EC2 has %v, the agent believes %v", n.name, have, believed)
	}
}

func TestConflict(t *testing.T) {
	for _, batch := range []string{"atomic", "partial"} {
		for _, owned := range []string{"ok", "error"} {
			t.Run(batch+"/"+owned, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, strings.Replace(twoWorkers, "ec2: {", "ec2: {assignOwned: "+owned+", mixedBatch: "+batch+", ", 1))
					n1, n2 := w.worker("worker-1"), w.worker("worker-2")
					defer n1.stop()
					defer n2.stop()
					<-n1.Ready()
					<-n2.Ready()
					// Stale views: worker-2's reads do not show what worker-1 is assigning at the same moment.
					done := make(chan netip.Addr, 2)
					for _, n := range []*node{n1, n2} {
						go func() { done <- n.mustAdd(n.pod("a"), any1()) }()
					}
					if a, b := <-done, <-done; a == b {
						t.Fatalf("both workers hold %s", a)
					}
					eventually(t, 3*time.Minute, "both are stocked", func() bool {
						return n1.count("free") >= 13 && n2.count("free") >= 13 && n1.count("unknown") == 0 && n2.count("unknown") == 0
					})
					w.agree(n1)
					w.agree(n2)
				})
			})
		}
	}
}

func TestForeignIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1", noStock)
		defer n.stop()
		n.mustAdd(n.pod("a"), any1())
		outside := netip.MustParseAddr("10.10.1.200") // not in the reservation
		w.assign("worker-1", outside)
		eventually(t, 2*time.Minute, "shown as foreign", func() bool { return n.states()[outside] == "foreign" })
		time.Sleep(3 * time.Hour)
		if w.owner(outside) != w.lab.ENIs["worker-1"][1] || n.states()[outside] != "foreign" {
			t.Errorf("after hours it is %s of %q", n.states()[outside], w.owner(outside))
		}
	})
}

func (w *world) assign(worker string, addrs ...netip.Addr) {
	w.t.Helper()
	_, err := w.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: w.lab.ENIs[worker][1], Addresses: addrs, AllowReassignment: true})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestOrphanIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		orphan, carried := netip.MustParseAddr("10.10.1.70"), netip.MustParseAddr("10.10.1.71")
		n := w.worker("worker-1", noStock)
		defer n.stop()
		n.mustAdd(n.pod("a"), any1())
		w.assign("worker-1", orphan, carried)
		n.netns.add("/run/netns/old")
		n.netns.carry("/run/netns/old", carried)
		eventually(t, 2*time.Minute, "seen", func() bool { return n.states()[orphan] == "foreign" })
		time.Sleep(2*n.cfg.Cooldown - 5*time.Second)
		if got := n.states()[orphan]; got != "foreign" {
			t.Errorf("too early it is %s", got)
		}
		eventually(t, 4*time.Minute, "carried one is held", func() bool { return n.states()[carried] == "held" })
		eventually(t, 4*time.Minute, "orphan is stock, and as surplus given back", func() bool { return w.owner(orphan) == "" })
	})
}

func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		addr := n.mustAdd(n.pod("a"), any1())
		time.Sleep(time.Minute)
		w.assign("worker-2", addr)
		eventually(t, 3*time.Minute, "lost", func() bool { return n.states()[addr] == "lost" })
		if len(n.Status().Problems) == 0 {
			t.Error("the status names no problem")
		}
		time.Sleep(10 * time.Minute)
		if w.owner(addr) != w.lab.ENIs["worker-2"][1] {
			t.Errorf("the address was stolen back from its owner")
		}
		if err := w.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: w.lab.ENIs["worker-2"][1], Addresses: []netip.Addr{addr}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Minute, "held again", func() bool { return n.states()[addr] == "held" && w.owner(addr) == w.lab.ENIs["worker-1"][1] })
	})
}

func TestBudgetOfAnIdleDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		n.mustAdd(n.pod("a"), any1())
		time.Sleep(10 * time.Minute)
		before := 0
		for _, c := range w.lab.Front.Calls() {
			before += c.Count
		}
		const hours = 24
		time.Sleep(hours * time.Hour)
		after := 0
		for _, c := range w.lab.Front.Calls() {
			after += c.Count
		}
		if perHour := float64(after-before) / hours; perHour > 2 { // 1 + one pool subnet
			t.Errorf("%.2f reads per hour, more than 1 + the number of pool subnets", perHour)
		}
	})
}

// TestLateReadsConfirmNothing: an address goes back to EC2 and is asked for again at once, by the next life of the agent
// or by a pod that names it, while reads still show it from before. It is handed out only when it is routed anew.
func TestLateReadsConfirmNothing(t *testing.T) {
	slow := strings.Replace(twoWorkers, "{route: 1s, imds: 2s, describe: 1s}", "{route: 2s, imds: 3s, describe: 3s}", 1)
	t.Run("after a restart", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, strings.Replace(slow, "10.10.1.64/26", "10.10.1.64/31", 1))
			n := w.worker("worker-1", noStock)
			defer func() { n.stop() }()
			a := n.pod("a")
			addr := n.mustAdd(a, any1())
			n.del(a)
			eventually(t, 5*time.Minute, "given back", func() bool { return w.owner(addr) == "" })
			n.crash()
			for _, id := range []string{"b", "c"} {
				again, err := n.add(n.pod(id), any1())
				for err != nil && refusal(t, err).Reason == pool.Exhausted { // late reads still show it on our ENI
					time.Sleep(time.Second)
					again, err = n.add(n.pod(id), any1())
				}
				if err != nil || !w.routed("worker-1", again) {
					t.Errorf("%s was handed out before it is routed: %v", again, err)
				}
			}
		})
	})
	t.Run("by name", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, slow)
			n := w.worker("worker-1", noStock)
			defer n.stop()
			want := []netip.Addr{netip.MustParseAddr("10.10.1.70")}
			for _, id := range []string{"a", "b", "c"} {
				a := n.pod(id)
				if _, err := n.Register(context.Background(), a, any1(), want, attachment.WaitThenReassign); err != nil {
					t.Fatal(err)
				}
				if !w.routed("worker-1", want[0]) {
					t.Errorf("%s is registered for %s before it is routed", want[0], id)
				}
				n.del(a)
				eventually(t, time.Minute, "given back", func() bool { return w.owner(want[0]) == "" })
			}
		})
	})
}

// TestCarriedButNotAssigned: an address whose assign was cut off by a crash is carried by a namespace, but EC2 never
// assigned it. It must not become stock when that namespace goes.
func TestCarriedButNotAssigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1", noStock)
		n.mustAdd(n.pod("a"), any1())
		n.stop()
		ghost := netip.MustParseAddr("10.10.1.120")
		if err := n.book.Put(pool.Record{Key: "address/" + w.lab.ENIs["worker-1"][1] + "/" + ghost.String(), Value: []byte(`{"state":"assigning"}`)}); err != nil {
			t.Fatal(err)
		}
		n.netns.add("/run/netns/ghost")
		n.netns.carry("/run/netns/ghost", ghost)
		n.start(false)
		defer func() { n.stop() }()
		<-n.Ready()
		n.netns.remove("/run/netns/ghost")
		eventually(t, 5*time.Minute, "forgotten", func() bool { _, known := n.states()[ghost]; return !known })
		for range 3 {
			if got := n.states()[ghost]; got == "free" || got == "held" {
				t.Errorf("%s is %s though EC2 does not have it on the ENI", ghost, got)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestSlotsThatWereInDoubtAreUsedAtOnce: while nobody knows whether EC2 took a batch, its addresses keep their slots; when
// a read shows that it did not, those who wait for them must not meet the limit of before.
func TestSlotsThatWereInDoubtAreUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(twoWorkers, "name: worker-1", "name: worker-1\n  type: c5.large", 1))
		if err := w.lab.Front.SetFaults([]front.Fault{{Action: "AssignPrivateIpAddresses", Nth: 1, Kind: front.ErrorBefore}}); err != nil {
			t.Fatal(err)
		}
		n := w.worker("worker-1", noStock)
		defer n.stop()
		<-n.Ready()
		const slots = 9 // of a c5.large's ENI
		errs := make(chan error, slots)
		for i := range slots {
			go func() {
				_, err := n.add(n.pod(string(rune('a'+i))), any1())
				errs <- err
			}()
		}
		for range slots {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestEC2sYesOutlivesReadsThatAreBehind: EC2 bounds no delay of its reads, so a request that it answered with yes is not
// given up because reads do not show what it did for longer than usual.
func TestEC2sYesOutlivesReadsThatAreBehind(t *testing.T) {
	for _, lag := range []string{"imds: 11s, describe: 12s", "imds: 13s, describe: 3s", "imds: 40s, describe: 9s"} {
		t.Run(lag, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, strings.Replace(twoWorkers, "imds: 2s, describe: 1s", lag, 1))
				n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 1, 3 })
				defer n.stop()
				n.mustAdd(n.pod("a"), any1())
				eventually(t, time.Minute, "the rest in stock", func() bool { return n.count("free") == 2 })
				if got := n.states(); len(got) != 3 {
					t.Errorf("for one pod and two addresses in stock the ENI has %v", got)
				}
				assigned := 0
				for _, c := range w.lab.Front.Calls() {
					if c.Action == "AssignPrivateIpAddresses" {
						assigned += c.Count
					}
				}
				if assigned != 1 {
					t.Errorf("%d calls of AssignPrivateIpAddresses, want one", assigned)
				}
			})
		})
	}
}

// TestARefusalSaysHowLongItWaited: a runtime may have less patience than the agent.
func TestARefusalSaysHowLongItWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(twoWorkers, "imds: 2s, describe: 1s", "imds: 11s, describe: 12s", 1))
		n := w.worker("worker-1", noStock)
		defer n.stop()
		<-n.Ready()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := n.Add(ctx, n.pod("a"), any1())
		if err == nil || !strings.Contains(err.Error(), "within 3s;") {
			t.Errorf("after 3 s: %v, want an error that says so", err)
		}
	})
}
