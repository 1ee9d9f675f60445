// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
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

// noStock keeps nothing in stock, so that each address has a story of its own.
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

// TestLostReply: an assign whose reply was lost is read back, whether or not EC2 applied it, and nothing leaks.

// agree fails the test unless what the worker believes of its pool ENI is what EC2 has.

// TestConflict: another worker takes candidates between our read and our assign. Both unverified behaviours of EC2.

// assign changes EC2 behind the agents' backs.

// TestOrphanIsAdopted: an address in a pool range that nobody accounts for comes into stock after twice the cooldown.

// TestLost: EC2 moves a held address away behind our back. It is told, and taken back only when nobody has it.

// TestHiddenFolderReapsNothing: when the folder of the namespaces vanishes from the agent's sight, nobody is dead; and
// when all namespaces really are gone, a second look confirms it.

// TestUnseenNamespaceIsNeverReaped: what the agent did not see at ADD proves nothing by its absence.

// TestLostLedger: with the ledger gone, what a namespace carries is held, and the rest is adopted once a pod comes.

// TestLimitsAreNamed: what an ADD says when there is nothing to give.

// TestLateLinkIsBroughtUp: a late ENI is DOWN; an ADD brings it up, and so does a change of links afterwards.
