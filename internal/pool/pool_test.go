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
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// twoWorkers is the usual place: EC2 with its lags, a reservation of 64.
const twoWorkers = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: primary, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, az: us-west-2a, tags: {multus: "1"}, reservations: [{cidr: 10.10.1.64/26}]}
instances:
- name: worker-1
  enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: worker-2
  enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
ec2: {latency: 80ms, propagation: {route: 1s, imds: 2s, describe: 1s}}
`

func any1() attachment.Query { return attachment.Query{} }

// quick lets tests of time use short times.
func noStock(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 0, 0 }

func TestNothingChangesBeforeAPodComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		time.Sleep(3 * time.Hour)
		if got := w.writes(); got != 0 {
			t.Errorf("%d calls changed EC2", got)
		}
		if n.host.ups != 0 {
			t.Errorf("%d links were brought up", n.host.ups)
		}
	})
}

func TestRoleTagInvites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(twoWorkers, "{cidr: 10.10.1.64/26}", "{cidr: 10.10.1.64/26, tags: {multus-vpc.io/role: pool}}", 1))
		n := w.worker("worker-1")
		defer n.stop()
		eventually(t, 10*time.Second, "14 addresses in stock", func() bool { return n.count("free") == 14 })
		if got := w.calls("AssignPrivateIpAddresses", ""); got != 1 {
			t.Errorf("%d Assign calls for the first stock, want 1", got)
		}
	})
}

func TestStaticReservationNeverFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(twoWorkers, "{cidr: 10.10.1.64/26}", "{cidr: 10.10.1.64/26, tags: {multus-vpc.io/role: static}}", 1))
		n := w.worker("worker-1")
		defer n.stop()
		_, err := n.add(n.pod("a"), any1())
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, "reservation") {
			t.Errorf("refused with %d %q", r.Reason, r.Text)
		}
		if got := w.writes(); got != 0 {
			t.Errorf("%d calls changed EC2", got)
		}
	})
}

// TestAddressIsRoutedWhenAddReturns: no address is handed out before the VPC routes it, with the lab's lags.
func TestAddressIsRoutedWhenAddReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		for _, id := range []string{"a", "b", "c"} {
			addr := n.mustAdd(n.pod(id), any1())
			routed := w.lab.Cloud.View(time.Now().Add(-w.lab.Cloud.Lags().Route)).Routes()[addr]
			if routed != w.lab.ENIs["worker-1"][1] {
				t.Errorf("%s is routed to %q when ADD returns", addr, routed)
			}
		}
	})
}

func TestWarmAddMakesNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		n.mustAdd(n.pod("first"), any1())
		eventually(t, time.Minute, "stock", func() bool { return n.count("free") >= 5 })
		before, began := w.lab.Front.Calls(), time.Now()
		n.mustAdd(n.pod("warm"), any1())
		if took := time.Since(began); took != 0 {
			t.Errorf("a warm ADD took %s", took)
		}
		if !slices.Equal(before, w.lab.Front.Calls()) {
			t.Error("a warm ADD called EC2")
		}
	})
}

func TestRepeatedAddGetsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		a := n.pod("a")
		first, second := n.mustAdd(a, any1()), n.mustAdd(a, any1())
		if first != second || n.count("held") != 1 {
			t.Errorf("got %s, then %s, and %d are held", first, second, n.count("held"))
		}
		other := a
		other.Netns = n.netns.add("/run/netns/elsewhere")
		if _, err := n.add(other, any1()); refusal(t, err).Reason != pool.Invalid {
			t.Errorf("another namespace under the same key: %v", err)
		}
	})
}

func TestCooldownIsForTheSamePodOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1", noStock)
		defer n.stop()
		a := n.pod("a")
		mine := n.mustAdd(a, any1())
		n.del(a)
		if got := n.mustAdd(n.pod("b"), any1()); got == mine {
			t.Errorf("%s went to another pod in its cooldown", mine)
		}
		again := a // the kubelet makes a new sandbox for the same pod
		again.ContainerID = "a-second-sandbox"
		again.Netns = n.netns.add("/run/netns/a2")
		if got := n.mustAdd(again, any1()); got != mine {
			t.Errorf("the same pod got %s, not its own %s", got, mine)
		}
		if err := n.Del(a.Key); err != nil { // the late DEL of the first sandbox
			t.Error(err)
		}
		if got := n.states()[mine]; got != "held" {
			t.Errorf("a late DEL of the old sandbox left %s %s", mine, got)
		}
		n.del(again)
		time.Sleep(n.cfg.Cooldown - time.Second)
		if got := n.states()[mine]; got != "cooling" {
			t.Errorf("before the cooldown is over %s is %s", mine, got)
		}
		eventually(t, 2*time.Minute, "given back to EC2", func() bool { return w.owner(mine) == "" })
	})
}

// TestCarriedAddressGoesOnCooling: upstream ipvlan has its IPAM release before it removes the link.
func TestCarriedAddressGoesOnCooling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		a := n.pod("a")
		addr := n.mustAdd(a, any1())
		if err := n.Del(a.Key); err != nil { // and the plugin is killed before it removes the link
			t.Fatal(err)
		}
		time.Sleep(10 * n.cfg.Cooldown)
		if got := n.states()[addr]; got != "cooling" {
			t.Errorf("%s is %s while the namespace carries it", addr, got)
		}
		n.netns.remove(a.Netns.Path)
		eventually(t, 2*n.cfg.Cooldown, "free", func() bool { return n.states()[addr] == "free" })
	})
}

func TestUndeliveredIsFreeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		a := n.pod("a")
		got, err := n.Add(context.Background(), a, any1())
		if err != nil {
			t.Fatal(err)
		}
		n.Undelivered(a.Key, got)
		if s := n.states()[got.Addresses[0].Addr()]; s != "free" {
			t.Errorf("an undelivered address is %s", s)
		}
		delivered, err := n.Add(context.Background(), a, any1())
		if err != nil {
			t.Fatal(err)
		}
		repeated, err := n.Add(context.Background(), a, any1())
		if err != nil {
			t.Fatal(err)
		}
		n.Undelivered(a.Key, repeated)
		if s := n.states()[delivered.Addresses[0].Addr()]; s != "held" {
			t.Errorf("what an earlier answer delivered is %s after a repeated one was lost", s)
		}
	})
}

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

// TestLostReply: an assign whose reply was lost is read back, whether or not EC2 applied it, and nothing leaks.
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

// agree fails the test unless what the worker believes of its pool ENI is what EC2 has.
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

// TestConflict: another worker takes candidates between our read and our assign. Both unverified behaviours of EC2.
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

// assign changes EC2 behind the agents' backs.
func (w *world) assign(worker string, addrs ...netip.Addr) {
	w.t.Helper()
	_, err := w.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: w.lab.ENIs[worker][1], Addresses: addrs, AllowReassignment: true})
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestOrphanIsAdopted: an address in a pool range that nobody accounts for comes into stock after twice the cooldown.
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

// TestLost: EC2 moves a held address away behind our back. It is told, and taken back only when nobody has it.
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

func TestNamespaceGoneIsReaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		var pods []attachment.Attachment
		for _, id := range []string{"a", "b", "c"} {
			pods = append(pods, n.pod(id))
			n.mustAdd(pods[len(pods)-1], any1())
		}
		old := n.states()
		n.netns.remove(pods[0].Netns.Path)
		fresh := n.pod("a") // made again at the same path within the second
		fresh.Pod.UID = "another"
		addr := n.mustAdd(attachment.Attachment{Key: attachment.Key{ContainerID: "new", IfName: "net1"}, Network: "n6", Pod: fresh.Pod, Netns: fresh.Netns}, any1())
		if old[addr] == "held" {
			t.Errorf("the new pod got %s, which the old one held", addr)
		}
		eventually(t, 2*n.cfg.ReconcileInterval, "the old address cools", func() bool { return n.count("cooling") == 1 && n.count("held") == 3 })
		eventually(t, 2*n.cfg.Cooldown, "then is free", func() bool { return n.count("cooling") == 0 })
	})
}

// TestHiddenFolderReapsNothing: when the folder of the namespaces vanishes from the agent's sight, nobody is dead; and
// when all namespaces really are gone, a second look confirms it.
func TestHiddenFolderReapsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		a, b := n.pod("a"), n.pod("b")
		n.mustAdd(a, any1())
		n.mustAdd(b, any1())
		n.netns.hide(true)
		time.Sleep(time.Hour)
		if n.count("held") != 2 {
			t.Fatalf("%d held", n.count("held"))
		}
		n.netns.hide(false)
		n.netns.remove(a.Netns.Path)
		n.netns.remove(b.Netns.Path)
		time.Sleep(n.cfg.MassReapDelay - time.Second)
		if n.count("held") != 2 {
			t.Error("released on the first look")
		}
		eventually(t, 2*n.cfg.ReconcileInterval+time.Second, "released on the second", func() bool { return n.count("held") == 0 })
	})
}

// TestUnseenNamespaceIsNeverReaped: what the agent did not see at ADD proves nothing by its absence.
func TestUnseenNamespaceIsNeverReaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		a := n.pod("a")
		n.netns.hide(true)
		n.mustAdd(a, any1())
		n.netns.hide(false)
		n.netns.remove(a.Netns.Path)
		time.Sleep(time.Hour)
		if n.count("held") != 1 {
			t.Error("it was reaped")
		}
		if !strings.Contains(strings.Join(n.Status().Problems, "\n"), "cannot be seen") {
			t.Error("the status does not say so")
		}
	})
}

func TestRestartKeepsHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		a, b := n.pod("a"), n.pod("b")
		addr := n.mustAdd(a, any1())
		cooling := n.mustAdd(b, any1())
		n.del(b)
		n.crash()
		defer func() { n.stop() }()
		<-n.Ready()
		if n.states()[addr] != "held" || n.states()[cooling] != "cooling" {
			t.Errorf("after the restart they are %s and %s", n.states()[addr], n.states()[cooling])
		}
		if got := n.mustAdd(a, any1()); got != addr {
			t.Errorf("a repeated ADD gets %s, not %s", got, addr)
		}
		eventually(t, time.Minute, "stock is confirmed again", func() bool { return n.count("free") >= 12 })
		w.agree(n)
	})
}

func TestRebootCoolsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		addr := n.mustAdd(n.pod("a"), any1())
		n.stop()
		n.netns.remove("/run/netns/a")
		n.start(true)
		defer func() { n.stop() }()
		<-n.Ready()
		if got := n.states()[addr]; got != "cooling" {
			t.Errorf("after a reboot it is %s", got)
		}
		n.crash() // the reboot is not concluded a second time, nor forgotten
		<-n.Ready()
		if got := n.states()[addr]; got != "cooling" {
			t.Errorf("after another restart it is %s", got)
		}
	})
}

// TestLostLedger: with the ledger gone, what a namespace carries is held, and the rest is adopted once a pod comes.
func TestLostLedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(twoWorkers, "{cidr: 10.10.1.64/26}", "{cidr: 10.10.1.64/26, tags: {multus-vpc.io/role: pool}}", 1))
		n := w.worker("worker-1")
		addr := n.mustAdd(n.pod("a"), any1())
		n.stop()
		n.book = newBook()
		n.start(false)
		defer func() { n.stop() }()
		<-n.Ready()
		if got := n.states()[addr]; got != "held" {
			t.Errorf("what a namespace carries is %s", got)
		}
		eventually(t, 10*time.Minute, "the rest is adopted", func() bool { return n.count("foreign") == 0 })
		w.agree(n)
		n.netns.remove("/run/netns/a")
		eventually(t, 5*time.Minute, "reaped with its namespace", func() bool { return n.count("held") == 0 })
	})
}

func TestFullLedgerGivesNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		n.mustAdd(n.pod("a"), any1())
		before := n.count("free")
		n.book.setFull(true)
		_, err := n.add(n.pod("b"), any1())
		if r := refusal(t, err); !strings.Contains(r.Text, "no space left") || r.Reason != pool.NotReady {
			t.Errorf("refused with %q", r.Text)
		}
		if n.count("free") != before || n.count("held") != 1 {
			t.Errorf("states %v", n.states())
		}
		n.book.setFull(false)
		n.mustAdd(n.pod("b"), any1())
	})
}

func TestTombstones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		a, b := n.pod("a"), n.pod("b")
		dead, alive := n.mustAdd(a, any1()), n.mustAdd(b, any1())
		n.stop()
		n.stones[a.Key] = pool.Tombstone{Key: a.Key, BootID: n.cfg.BootID, Uptime: n.cfg.Uptime() + time.Second}
		n.stones[b.Key] = pool.Tombstone{Key: b.Key, BootID: n.cfg.BootID, Uptime: time.Minute} // older than the hold
		n.start(false)
		defer func() { n.stop() }()
		eventually(t, time.Minute, "buried", func() bool { return n.states()[dead] == "cooling" })
		if n.states()[alive] != "held" {
			t.Errorf("a tombstone older than the hold made it %s", n.states()[alive])
		}
		if len(n.stones) != 0 {
			t.Errorf("%d tombstones are left", len(n.stones))
		}
	})
}

// TestLimitsAreNamed: what an ADD says when there is nothing to give.
func TestLimitsAreNamed(t *testing.T) {
	tests := map[string]struct {
		change func(string) string
		reason pool.Reason
		want   []string
		adds   int
		within time.Duration
	}{
		"slots": {
			change: func(s string) string {
				return strings.Replace(s, "name: worker-1", "name: worker-1\n  type: c5.large", 1)
			},
			reason: pool.Exhausted, adds: 10, want: []string{"ENI slots full", "9", "c5.large", "larger instance type"}, within: time.Second,
		},
		"reservation": {
			change: func(s string) string { return strings.Replace(s, "10.10.1.64/26", "10.10.1.64/30", 1) },
			reason: pool.Exhausted, adds: 5, want: []string{"reservation full", "10.10.1.64/30", "enlarge"}, within: 5 * time.Second,
		},
		"throttled": {
			change: func(s string) string {
				return strings.Replace(s, "ec2: {", "ec2: {throttle: {AssignPrivateIpAddresses: {burst: 0, refill: 0}}, ", 1)
			},
			reason: pool.Exhausted, adds: 1, want: []string{"throttled", "RequestLimitExceeded", "Service Quotas"}, within: 16 * time.Second,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.change(twoWorkers))
				n := w.worker("worker-1")
				defer n.stop()
				<-n.Ready()
				var err error
				var took time.Duration
				for i := range tt.adds {
					began := time.Now()
					_, err = n.add(n.pod(string(rune('a'+i))), any1())
					took = time.Since(began)
				}
				r := refusal(t, err)
				for _, word := range tt.want {
					if !strings.Contains(r.Text, word) {
						t.Errorf("%q lacks %q", r.Text, word)
					}
				}
				if r.Reason != tt.reason || took > tt.within {
					t.Errorf("reason %d after %s", r.Reason, took)
				}
			})
		})
	}
}

func TestSelection(t *testing.T) {
	three := strings.ReplaceAll(twoWorkers, `{subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]`,
		`{subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]`)
	index := func(i int) attachment.Query { return attachment.Query{Selector: eni.Selector{DeviceIndex: &i}} }
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, three)
		n := w.worker("worker-1")
		defer n.stop()
		_, err := n.add(n.pod("ambiguous"), any1())
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, w.lab.ENIs["worker-1"][1]) || !strings.Contains(r.Text, w.lab.ENIs["worker-1"][2]) {
			t.Errorf("without a selector: %q", r.Text)
		}
		_, err = n.add(n.pod("none"), index(7))
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, "deviceIndex 7") {
			t.Errorf("no match: %q", r.Text)
		}
		_, err = n.add(n.pod("primary"), index(0))
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, "primary ENI") {
			t.Errorf("the primary: %q", r.Text)
		}
		addr := n.mustAdd(n.pod("second"), index(2))
		if w.owner(addr) != w.lab.ENIs["worker-1"][2] {
			t.Errorf("device index 2 got %s of %s", addr, w.owner(addr))
		}
		// Several match: the pods spread over both.
		tags := attachment.Query{Selector: eni.Selector{SubnetTags: map[string]string{"multus": "1"}}}
		owners := map[string]int{}
		for _, id := range []string{"a", "b", "c", "d"} {
			owners[w.owner(n.mustAdd(n.pod(id), tags))]++
		}
		if len(owners) != 2 {
			t.Errorf("four pods by subnet tag: %v", owners)
		}
	})
}

// TestLateLinkIsBroughtUp: a late ENI is DOWN; an ADD brings it up, and so does a change of links afterwards.
func TestLateLinkIsBroughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		n.host.mu.Lock()
		n.host.links[1].Up = false
		n.host.mu.Unlock()
		n.LinksChanged()
		if n.host.ups != 0 {
			t.Error("the link of an ENI without pods was brought up")
		}
		n.mustAdd(n.pod("a"), attachment.Query{NeedLink: true})
		if !n.host.links[1].Up || n.host.links[1].MTU != 9001 {
			t.Errorf("the link is %+v", n.host.links[1])
		}
		n.host.mu.Lock()
		n.host.links[1].Up = false
		n.host.mu.Unlock()
		n.LinksChanged()
		if n.host.ups != 2 {
			t.Error("a link that went down stays down")
		}
	})
}

func TestMasterInAnotherModeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		ns := n.netns.add("/run/netns/l3")
		n.netns.mu.Lock()
		n.netns.at[ns.Path].modes = map[int]string{3: "l3"}
		n.netns.mu.Unlock()
		time.Sleep(n.cfg.DriftInterval + time.Second)
		_, err := n.add(n.pod("a"), attachment.Query{NeedLink: true})
		if r := refusal(t, err); r.Reason != pool.MasterMode || !strings.Contains(r.Text, "l3") {
			t.Errorf("refused with %q", r.Text)
		}
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
