// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
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
