// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// TestNarrowSyncerMindsItsOwnAddressesAlone: whatever else the pod carries, on the interface or on another, is not its business.
func TestNarrowSyncerMindsItsOwnAddressesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		ranges := []attachment.Range{{From: addr("10.10.1.90"), To: addr("10.10.1.91")}}
		net1, net2 := w.narrow("net1", ranges), w.narrow("net2", ranges)
		for _, p := range []*pod{net1, net2} {
			p.add("10.10.1.80/24", "10.10.1.90/32")
			p.run(t)
			defer func() { p.stop() }()
			p.add("10.10.1.81/24", "10.10.1.91/24")
		}
		time.Sleep(time.Minute)
		id, _ := w.eni("worker-1")
		for a, want := range map[string]string{"10.10.1.80": "", "10.10.1.81": "", "10.10.1.90": id, "10.10.1.91": id} {
			if got := w.owner(addr(a)); got != want {
				t.Errorf("%s is on %q, want %q", a, got, want)
			}
		}
		if got := net2.Report().Addresses; len(got) > 0 {
			t.Errorf("for an interface that is not there: %v", got)
		}
		net1.remove("10.10.1.91/24")
		time.Sleep(time.Minute)
		if got := w.owner(addr("10.10.1.91")); got != "" {
			t.Errorf("what is gone is on %q", got)
		}
	})
}

// narrow makes a pod whose syncer sees part of it.
func (w *world) narrow(ifName string, ranges []attachment.Range) *pod {
	p := w.pod("worker-1")
	cfg := podsync.DefaultConfig()
	cfg.Log, cfg.Floating = w.log, ranges
	p.Syncer = podsync.New(cfg, podsync.Narrow(p, ifName, ranges), w.direct("worker-1"))
	return p
}

// TestKnownAddressIsTakenFromNobody: that a pod carries an address when its syncer starts again is no appearance. It is claimed if
// nobody has it, and left where it is if another pod got it meanwhile, until it appears anew.
func TestKnownAddressIsTakenFromNobody(t *testing.T) {
	for _, vip := range []string{"10.10.1.90/24", "2001:db8:10:1::90/128"} {
		t.Run(vip, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "")
				ip := netip.MustParsePrefix(vip).Addr()
				float := floating("10.10.1.88/29", "2001:db8:10:1::90")
				known := func(c *podsync.Config) { c.Known = func(a netip.Addr) bool { return a == ip } }
				other := w.pod("worker-2", float)
				other.run(t)
				defer func() { other.stop() }()
				other.add(vip)
				theirs, _ := w.eni("worker-2")
				ours, _ := w.eni("worker-1")
				eventually(t, time.Minute, "the other pod has it", func() bool { return w.owner(ip) == theirs && other.state(ip) == podsync.Registered })
				p := w.pod("worker-1", float, known)
				p.add(vip)
				p.run(t)
				defer func() { p.stop() }()
				time.Sleep(time.Minute)
				if w.owner(ip) != theirs || p.state(ip) != podsync.Contested {
					t.Errorf("it is on %q, and %s", w.owner(ip), p.state(ip))
				}
				p.remove(vip)
				p.add(vip)
				eventually(t, time.Minute, "it appeared anew", func() bool { return w.owner(ip) == ours && p.state(ip) == podsync.Registered })
			})
		})
	}
}
