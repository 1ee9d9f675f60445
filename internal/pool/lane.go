// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// A floating address is out of reach from the moment at which it appears on a pod until EC2 has moved it. So it waits neither for what
// else its ENI asks of EC2, nor for the other family of a pod with both, nor for the metadata: each ENI has a lane for each family, in
// which nothing goes but addresses that are taken from whoever has them. No address is in two calls at a time all the same: what one
// goroutine asks about, the others leave alone until its answer is there.

// family is the index of a family in what there is one of for each.
func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// lane takes the floating addresses of one family.
func (p *iface) lane(ctx context.Context, v6 bool) {
	ours := func(w wish) bool { return w.forced() && w.unit.Addr().Is6() == v6 }
	p.loop(ctx, p.lanes[family(v6)], func(now time.Time) step {
		c := &clock{now, time.Hour}
		clearing := p.clearing(v6)
		goes := func(w wish) bool { return ours(w) && (w.by.renew || !clearing) }
		if w := p.nextClaim(goes).by; !p.gone && w != nil && c.due(later(p.w.resume, w.retry)) {
			// What the metadata showed before matters only if the reply is lost, and is taken for doubtful then.
			return step{do: func(ctx context.Context) { p.claimThose(ctx, goes, nil) }}
		}
		return step{wait: c.wait}
	})
}

// clearing reports whether all slots of a family are taken, and one may come free by what the ENI's goroutine does: stock that is on its
// way makes room when it is there. The caller holds n.mu.
func (p *iface) clearing(v6 bool) bool {
	if p.slotsLeft(v6) > 0 {
		return false
	}
	return p.choosing[family(v6)] > 0 || len(p.yielding()) > 0 || slices.ContainsFunc(p.inState(ownership.Assigning, ownership.Unassigning), func(u unit) bool {
		e := p.units[u]
		return u.Addr().Is6() == v6 && (e.asking || e.state == ownership.Assigning && e.source != sourceNamed)
	})
}
