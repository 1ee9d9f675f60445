// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// An address of another IPAM plugin that somebody registered before us, as an init container does, and took away again, as a sweep
// does, is not believed to be there still because the last look showed it.
func TestRegistrationLooksAnewAtWhatOthersPutThere(t *testing.T) {
	addr := netip.MustParseAddr("10.10.1.200")
	ways := map[string]func(*node) error{
		"by ADD": func(n *node) error {
			_, err := n.Register(context.Background(), n.pod("b"), any1(), []netip.Addr{addr}, attachment.Never)
			return err
		},
		"by a pod's claim": func(n *node) error {
			return n.claimant("b").appear(attachment.Never, addr)[addr].Err
		},
	}
	for name, register := range ways {
		for still, swept := range map[string]bool{"still there": false, "swept since the last look": true} {
			t.Run(name+", "+still, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, twoWorkers)
					n := w.worker("worker-1", noStock)
					defer n.stop()
					n.mustAdd(n.pod("a"), any1())
					w.assign("worker-1", addr)
					eventually(t, 3*time.Minute, "seen", func() bool { return n.states()[addr] == "foreign" })
					if swept {
						w.unassign("worker-1", addr)
					}
					time.Sleep(5 * time.Second)
					before := w.writes()
					if err := register(n); err != nil {
						t.Fatal(err)
					}
					if !w.routed("worker-1", addr) {
						t.Errorf("it is registered, and %s is not routed", addr)
					}
					if wrote := w.writes() - before; (wrote > 0) != swept {
						t.Errorf("%d calls changed EC2", wrote)
					}
				})
			})
		}
	}
}
