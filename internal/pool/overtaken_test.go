// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// TestTwoWorkersClaimAtOnce: both claims leave before either worker can know of the other's. One has the address, and the other is told
// that it is taken, which is not claimed again.
func TestTwoWorkersClaimAtOnce(t *testing.T) {
	both(attachment.Reassign, func(t *testing.T, addr netip.Addr) {
		inLab2(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
			results := make(chan pool.ClaimResult, 2)
			for _, c := range []*claimant{n1.claimant("a"), n2.claimant("b")} {
				c.netns.carry(c.path, addr)
				go func() {
					results <- c.Claim(context.Background(), c.Claimant, []netip.Addr{addr}, attachment.Reassign)[addr]
				}()
			}
			taken := 0
			for range 2 {
				r := <-results
				if r.Err == nil {
					continue
				}
				refusal, ok := errors.AsType[*pool.Refusal](r.Err)
				if !ok || refusal.Reason != pool.Taken {
					t.Errorf("got %v, want that it is taken", r.Err)
				}
				taken++
			}
			if taken > 1 {
				t.Error("both are told that it is taken")
			}
		})
	})(t)
}
