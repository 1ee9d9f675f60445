// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Reads are behind. A read that shows an address which we have just asked for may show it as it was before: given back a
// moment ago, by this process or by the one before it. Handed out on that evidence it would not be routed, and would be
// another ENI's if EC2 refused it. So the metadata is asked before each request, and what it shows then counts as seen
// only after the metadata has not shown it, or by a read from EC2 that began late enough.

// shown is what the metadata shows on the ENI; nil when it does not say.
func (p *iface) shown(ctx context.Context) map[unit]bool {
	addrs, prefixes, err := p.n.ports.Metadata.Held(ctx, p.mac)
	if err != nil {
		p.n.log.Debug("instance metadata", "eni", p.id, "error", err)
		return nil
	}
	all := map[unit]bool{}
	for _, u := range append(singles(addrs), prefixes...) {
		all[u] = true
	}
	return all
}

// doubt marks the units that the metadata showed before they were asked for; all of them when it did not say. The caller
// holds n.mu.
func (p *iface) doubt(us []unit, before map[unit]bool) {
	for _, u := range us {
		if e := p.units[u]; e != nil {
			e.doubted = before == nil || before[u]
		}
	}
}

// weigh applies what the metadata shows now to the units in doubt. The caller holds n.mu.
func (p *iface) weigh(now map[unit]bool) {
	if now == nil {
		return
	}
	var seen []unit
	for u, e := range p.units {
		switch {
		case e.asking, e.state != ownership.Assigning && e.state != ownership.Unknown:
		case !now[u]:
			e.doubted = false
		case !e.doubted:
			seen = append(seen, u)
		}
	}
	p.seen(seen)
}

// proves reports whether a read from EC2 that began at a moment, and shows the unit, proves that our last request took
// effect. The caller holds n.mu.
func (e *entry) proves(began time.Time) bool {
	return !began.Before(e.written.Add(confirmByEC2After))
}
