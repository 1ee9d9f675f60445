// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// rank is how many workers of the group that lacked an ENI in the target's subnet, when the subnet was read, come before this one.
// Each takes the free address of its rank, so that workers that start together do not all try the first. Those that read the subnet
// later see fewer free addresses and fewer workers, and come to the same.
func (r *run) rank(ctx context.Context, t Target) (int, error) {
	if r.q.Group == "" {
		return 0, nil
	}
	if !r.ranked {
		peers, err := r.ec2.WorkersTagged(ctx, tagAutoScalingGroup, r.q.Group)
		if err != nil {
			return 0, err
		}
		r.peers, r.ranked = peers, true
	}
	before := 0
	for _, p := range r.peers {
		if p.AZ == t.In.AZ && !r.held[t.Subnet].workers[p.ID] && p.ID < r.q.Instance {
			before++
		}
	}
	return before, nil
}

// choose completes the description of a new ENI by the addresses that it asks for.
func (r *run) choose(ctx context.Context, t Target, n *eni.NewDevice) error {
	held, known := r.held[t.Subnet]
	if !known {
		return nil
	}
	avoid := maps.Clone(r.avoid)
	n.Secondary = held.stock(r.q.Instance, t, t.Stock, avoid)
	if t.Addressing == DHCP && len(n.Secondary) == 0 {
		return nil
	}
	place, err := r.placeOf(ctx, t)
	if err != nil {
		return err
	}
	if r.lost[t.Slot] > 0 {
		maps.Copy(avoid, r.picked)
	}
	a, ok := held.primary(t, place, avoid)
	if !ok {
		return r.noRoom([]string{wordFull(t)}, nil)
	}
	n.Primary = a
	return nil
}

// placeOf is the number of the free address that the target takes.
func (r *run) placeOf(ctx context.Context, t Target) (int, error) {
	lost := r.lost[t.Slot]
	switch {
	case t.Addressing == DHCP && lost > 0:
		return rand.N(anywhere), nil
	case t.Addressing == DHCP: // all runs for a worker choose the same
		h := fnv.New32a()
		_, _ = fmt.Fprint(h, r.q.Instance, " ", t.Slot) // never fails
		return int(h.Sum32() % anywhere), nil
	case lost > 0: // whoever was faster may follow the same order
		return rand.N(16 << min(lost, 8)), nil
	}
	place, err := r.rank(ctx, t)
	return place*r.sharing(t) + r.nth(t), err
}

// anywhere is more than an IPv4 subnet has addresses, the largest of which is a /16.
const anywhere = 1 << 20

// sharing is how many targets choose their address out of the target's subnet, and nth which of them it is.
func (r *run) sharing(t Target) (n int) {
	for _, o := range r.targets {
		if o.Subnet == t.Subnet && o.Addressing == t.Addressing {
			n++
		}
	}
	return max(n, 1)
}

func (r *run) nth(t Target) (n int) {
	for _, o := range r.targets {
		if o.Slot == t.Slot {
			break
		}
		if o.Subnet == t.Subnet && o.Addressing == t.Addressing {
			n++
		}
	}
	return n
}
