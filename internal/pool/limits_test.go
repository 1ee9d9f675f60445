// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// TestFullSlotsAreNotBlamedForTheRanges: the ENI's stock takes all slots, and no address could serve the pod anyway.
func TestFullSlotsAreNotBlamedForTheRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		a := n.pod("first")
		n.mustAdd(a, any1())
		n.del(a)
		eventually(t, 2*n.cfg.Cooldown, "a full stock", func() bool { return n.count("free") == 14 })
		r, err := attachment.ParseRange("10.10.1.200-10.10.1.203")
		if err != nil {
			t.Fatal(err)
		}
		q := any1()
		q.Ranges = []attachment.Range{r}
		_, err = n.add(n.pod("a"), q)
		if said := refusal(t, err); !strings.Contains(said.Text, "ranges [10.10.1.200-10.10.1.203] lie in no explicit subnet CIDR reservation") {
			t.Errorf("refused with %q", said.Text)
		}
	})
}
