// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// invited is two workers whose reservation is for pools, so that the ENIs are active from the start.
var invited = strings.Replace(twoWorkers, "{cidr: 10.10.1.64/26}", "{cidr: 10.10.1.64/26, tags: {multus-vpc.io/role: pool}}", 1)

// firstStock is what came with the ENI, as from somebody who named PrivateIpAddresses in CreateNetworkInterface.
func (w *world) firstStock(worker string, n int) []netip.Addr {
	var addrs []netip.Addr
	for i := range n {
		addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("10.10.1.%d", 96+i)))
	}
	w.assign(worker, addrs...)
	time.Sleep(10 * time.Second)
	return addrs
}

func TestStockThatCameWithTheENINeedsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, invited)
		w.firstStock("worker-1", 14)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		ready := time.Now()
		eventually(t, 2*n.cfg.Cooldown+2*time.Second, "adopted, without waiting for another look", func() bool { return n.count("free") == 14 })
		if took := time.Since(ready); took < 2*n.cfg.Cooldown-time.Second {
			t.Errorf("adopted after %s, before anybody could turn up for them", took)
		}
		n.mustAdd(n.pod("a"), any1())
		time.Sleep(10 * time.Minute)
		if got := w.writes(); got != 0 {
			t.Errorf("%d calls changed EC2", got)
		}
	})
}

func TestPodThatComesBeforeTheFirstStockIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, invited)
		stock := w.firstStock("worker-1", 8)
		n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 2, 8 })
		defer n.stop()
		<-n.Ready()
		time.Sleep(5 * time.Second)
		if addr := n.mustAdd(n.pod("a"), any1()); w.owner(addr) == "" {
			t.Errorf("%s is nobody's", addr)
		}
		if got := len(n.states()); got != len(stock)+1 {
			t.Errorf("%d addresses on the ENI for one pod, want %d", got, len(stock)+1)
		}
		if got := w.calls("AssignPrivateIpAddresses", ""); got != 1 {
			t.Errorf("%d Assign calls for one pod", got)
		}
	})
}

// TestFirstStockFillsTheENI: there is no slot for one more address. The pod's runtime is told to come again.
func TestFirstStockFillsTheENI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, invited)
		w.firstStock("worker-1", 14)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		_, err := n.add(n.pod("a"), any1())
		if r := refusal(t, err); r.Reason != pool.Exhausted || !strings.Contains(r.Text, "14 of them are foreign") || !strings.Contains(r.Text, "in 1m0s") {
			t.Errorf("refused with %d, %q", r.Reason, r.Text)
		}
		time.Sleep(2*n.cfg.Cooldown - 10*time.Second)
		n.mustAdd(n.pod("a"), any1()) // the rest of the time is waited for
		if got := w.writes(); got != 0 {
			t.Errorf("%d calls changed EC2", got)
		}
	})
}

func TestAddressesOfAHostLinkAreNoStock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, invited)
		stock := w.firstStock("worker-1", 8)
		n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 5, 5 })
		defer n.stop()
		n.host.mu.Lock()
		n.host.addrs = map[netip.Addr]string{}
		for _, a := range stock {
			n.host.addrs[a] = "eth1"
		}
		n.host.mu.Unlock()
		eventually(t, 2*time.Minute, "other addresses are stock", func() bool { return n.count("free") == 5 })
		for _, a := range stock {
			if got := n.states()[a]; got != "foreign" {
				t.Errorf("%s, which the host has, is %s", a, got)
			}
		}
		n.host.mu.Lock()
		n.host.addrs = nil
		n.host.mu.Unlock()
		eventually(t, 10*time.Minute, "the host has them no more", func() bool { return n.count("foreign") == 0 })
		w.agree(n)
	})
}

// TestLostLedgerOfPrefixes: addresses of delegated prefixes that a namespace carries are held when a pod brings the
// class back, and the prefixes are stock again.
func TestLostLedgerOfPrefixes(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		q := attachment.Query{Source: attachment.SourcePrefix, Families: []string{attachment.IPv4, attachment.IPv6}}
		old, err := n.addAll(n.pod("old"), q)
		if err != nil {
			t.Fatal(err)
		}
		n.stop()
		n.book = newBook()
		n.start(false)
		<-n.Ready()
		time.Sleep(2 * time.Minute)
		fresh, err := n.addAll(n.pod("new"), q)
		if err != nil {
			t.Fatal(err)
		}
		for i := range old {
			if fresh[i] == old[i] || n.states()[old[i]] != "held" {
				t.Errorf("%s, which a pod carries, is %s, and the next pod got %s", old[i], n.states()[old[i]], fresh[i])
			}
		}
		e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-1"][1])
		if got := len(e.Prefixes) + len(e.IPv6Prefixes); got != 2 {
			t.Errorf("%d prefixes for two pods, want one of each family", got)
		}
	})
}

func TestCooldownGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer func() { n.stop() }()
		a := n.pod("a")
		addr := n.mustAdd(a, any1())
		released := time.Now()
		n.del(a)
		for range 5 { // an agent that is killed again and again
			time.Sleep(5 * time.Second)
			n.crash()
			<-n.Ready()
			if got := n.states()[addr]; got != "cooling" {
				t.Fatalf("%s after it was given back it is %s", time.Since(released), got)
			}
		}
		eventually(t, n.cfg.Cooldown, "free", func() bool { return n.states()[addr] == "free" })
		if took := time.Since(released); took < n.cfg.Cooldown || took > n.cfg.Cooldown+2*time.Second {
			t.Errorf("free after %s, want %s", took, n.cfg.Cooldown)
		}
		n.mustAdd(a, any1())
		n.del(a)
		n.stop()
		n.cfg.BootID = "boot-2" // CLOCK_BOOTTIME begins again: what the ledger says means nothing
		began := time.Now()
		n.cfg.Uptime = func() time.Duration { return time.Since(began) }
		n.start(true)
		<-n.Ready()
		time.Sleep(n.cfg.Cooldown - time.Second)
		if n.count("cooling") != 1 {
			t.Error("the cooldown of before the reboot was cut short")
		}
		eventually(t, 2*time.Second, "cooled", func() bool { return n.count("cooling") == 0 })
	})
}

// TestChangedBehindOurBack: a person takes addresses away and gives some, in stock and in use.
func TestChangedBehindOurBack(t *testing.T) {
	for _, owned := range []string{"ok", "error"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, strings.Replace(twoWorkers, "ec2: {", "ec2: {assignOwned: "+owned+", ", 1))
			n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 5, 8 })
			defer n.stop()
			addr := n.mustAdd(n.pod("a"), any1())
			time.Sleep(10 * time.Minute)
			all := w.secondaries("worker-1")
			err := w.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: w.lab.ENIs["worker-1"][1], Addresses: all})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Minute)
			if got := n.states()[addr]; got != "held" || w.owner(addr) != w.lab.ENIs["worker-1"][1] {
				t.Errorf("the pod's address is %s, of %q", got, w.owner(addr))
			}
			if got := n.count("free"); got < 5 {
				t.Errorf("%d in stock", got)
			}
			w.agree(n)
		})
	}
}

func (w *world) secondaries(worker string) []netip.Addr {
	e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs[worker][1])
	return e.Secondary
}

// TestWhatTheAgentBeforeGaveBackIsNotAdopted: it knew that its last request took the address off the ENI; the next agent
// only has reads, which are behind.
func TestWhatTheAgentBeforeGaveBackIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(twoWorkers, "imds: 2s, describe: 1s", "imds: 11s, describe: 12s", 1))
		n := w.worker("worker-1", noStock, func(c *pool.Config) { c.Cooldown = time.Second })
		defer func() { n.stop() }()
		p := n.pod("a")
		n.mustAdd(p, any1())
		time.Sleep(time.Minute) // everything is shown
		n.del(p)
		onENI := func() []netip.Addr {
			e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs["worker-1"][1])
			return e.Secondary
		}
		eventually(t, time.Minute, "the address given back", func() bool { return len(onENI()) == 0 })
		n.crash()
		addr, err := n.add(n.pod("b"), any1())
		if err == nil && !slices.Contains(onENI(), addr) {
			t.Errorf("ADD gave %s, and the ENI has %v", addr, onENI())
		}
	})
}
