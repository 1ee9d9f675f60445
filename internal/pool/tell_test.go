// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// heard collects what a node tells.
type heard struct {
	mu  sync.Mutex
	all []pool.Notice
}

func (h *heard) listen(cfg *pool.Config) {
	cfg.Tell = func(n pool.Notice) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, n)
	}
}

// of lists what was told of a pod.
func (h *heard) of(pod attachment.Pod) (about []pool.Subject) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.all {
		if n.Pod == pod {
			about = append(about, n.About)
		}
	}
	return about
}

// An address that another ENI takes, and lets go of: the pod's owner is told each step once, and nobody else of anything.
func TestThePodsOwnerIsToldOfALostAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		var told heard
		n := w.worker("worker-1", told.listen)
		defer n.stop()
		victim, other := n.pod("victim"), n.pod("other")
		victim.Pod = attachment.Pod{Namespace: "core", Name: "amf-0", UID: "u1"}
		other.Pod = attachment.Pod{Namespace: "core", Name: "amf-1", UID: "u2"}
		addr := n.mustAdd(victim, any1())
		n.mustAdd(other, any1())
		time.Sleep(time.Minute)
		if got := told.of(victim.Pod); got != nil {
			t.Errorf("told of a sound address: %v", got)
		}
		w.assign("worker-2", addr)
		eventually(t, 5*time.Minute, "contested", func() bool { return len(told.of(victim.Pod)) == 2 })
		time.Sleep(time.Hour) // it is looked at again and again, and told once
		if err := w.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: w.lab.ENIs["worker-2"][1], Addresses: []netip.Addr{addr}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Minute, "held again", func() bool { return n.states()[addr] == "held" })
		want := []pool.Subject{pool.AddressLost, pool.AddressContested, pool.AddressRegained}
		if diff := cmp.Diff(want, told.of(victim.Pod)); diff != "" {
			t.Errorf("told of the victim (-want +got):\n%s", diff)
		}
		if got := told.of(other.Pod); got != nil {
			t.Errorf("told of the other pod: %v", got)
		}
	})
}

// A StatefulSet's pod takes its address from a worker that is cut off: both pods' events say so.
func TestThePodsOwnersAreToldOfAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dual)
		var before, after heard
		n1, n2 := w.worker("worker-1", before.listen), w.worker("worker-2", after.listen)
		defer n1.stop()
		defer n2.stop()
		<-n1.Ready()
		<-n2.Ready()
		old := n1.again("upf-3")
		n1.takes(old)
		next := n2.again("upf-3")
		n2.takes(next)
		if diff := cmp.Diff([]pool.Subject{pool.AddressMoved}, after.of(next.Pod)); diff != "" {
			t.Errorf("told where it went (-want +got):\n%s", diff)
		}
		eventually(t, 5*time.Minute, "the old worker knows", func() bool { return len(before.of(old.Pod)) == 2 })
		if diff := cmp.Diff([]pool.Subject{pool.AddressLost, pool.AddressContested}, before.of(old.Pod)); diff != "" {
			t.Errorf("told where it was (-want +got):\n%s", diff)
		}
	})
}
