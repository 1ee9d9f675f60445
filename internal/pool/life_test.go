// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

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

// TestRestartWithoutTheFolder: the agent's next life lacks the mount of the folder, which to it is there and empty.
func TestRestartWithoutTheFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		a, b := n.pod("a"), n.pod("b")
		n.mustAdd(a, any1())
		n.mustAdd(b, any1())
		n.stop()
		mounted := n.netns
		n.netns = &namespaces{}
		n.start(false)
		<-n.Ready()
		time.Sleep(time.Hour)
		if n.count("held") != 2 {
			t.Fatalf("%d held", n.count("held"))
		}
		if all := strings.Join(n.Status().Problems, "\n"); !strings.Contains(all, "no network namespace in /run/netns, where those of 2 attachments were") {
			t.Errorf("the status does not say so: %q", all)
		}
		n.stop()
		n.netns = mounted
		n.netns.remove(a.Netns.Path)
		n.start(false)
		defer func() { n.stop() }()
		eventually(t, n.cfg.MassReapDelay+3*n.cfg.ReconcileInterval, "the dead one is reaped", func() bool { return n.count("held") == 1 })
		n.netns.remove(b.Netns.Path) // the last one: it was seen in this life
		eventually(t, n.cfg.MassReapDelay+3*n.cfg.ReconcileInterval, "and so is the other", func() bool { return n.count("held") == 0 })
		if got := n.Status().Problems; len(got) > 0 {
			t.Errorf("problems: %q", got)
		}
	})
}

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

// TestLedgerCatchesUp: what happened while the ledger was full is in it when it has room again.
func TestLedgerCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 1, 1 })
		defer n.stop()
		var pods []attachment.Attachment
		for _, id := range []string{"a", "b", "c", "d"} {
			pods = append(pods, n.pod(id))
			n.mustAdd(pods[len(pods)-1], any1())
		}
		for _, p := range pods {
			n.del(p)
		}
		eventually(t, 5*time.Minute, "the cooldowns are over", func() bool { return n.count("cooling") == 0 })
		n.book.setFull(true)
		eventually(t, 5*time.Minute, "the surplus is given back", func() bool { return len(n.states()) == 1 })
		if known := n.book.count("address/"); known <= 1 {
			t.Fatalf("the ledger knows %d addresses: it was not full", known)
		}
		n.book.setFull(false)
		eventually(t, n.cfg.ReconcileInterval+time.Second, "the ledger has caught up", func() bool { return n.book.count("address/") == 1 })
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
