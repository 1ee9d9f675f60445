// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/candidate"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// A worker that another one overtook does not go on with what it read before: it looks again, when reads show who was
// faster, and does not meet the rival a second time.
func TestOvertakenWorkerLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		subnet, reservation := netip.MustParsePrefix("10.10.1.0/24"), netip.MustParsePrefix("10.10.1.64/26")
		choice := candidate.NewOrder(eni.ID(w.lab.ENIs["worker-1"][1]), subnet, []netip.Prefix{reservation}).Window(0).Addrs()
		w.assign("worker-2", choice[0], choice[16]) // the first of its first and of its second block, which no read shows yet
		n.mustAdd(n.pod("a"), any1())
		eventually(t, time.Minute, "a full stock", func() bool { return n.count("free")+n.count("held") == 14 })
		if got := w.calls("AssignPrivateIpAddresses", "InvalidParameterValue"); got != 1 {
			t.Errorf("%d calls met the rival, want 1", got)
		}
		if got := w.calls("AssignPrivateIpAddresses", ""); got != 3 { // refused, its survivors, the rest
			t.Errorf("%d calls in all, want 3", got)
		}
	})
}
