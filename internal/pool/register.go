// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Register has EC2 know addresses that another IPAM gave the attachment, and returns when the VPC routes them to the
// ENI that the query means. [Node.Del] gives them back. It is idempotent.
func (n *Node) Register(ctx context.Context, a attachment.Attachment, q attachment.Query, addrs []netip.Addr, conflict attachment.OnConflict) (Allocation, error) {
	if len(addrs) == 0 {
		return Allocation{}, &Refusal{Invalid, "nothing to register: the IPAM plugin gave no address"}
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.MaxWait)
	defer cancel()
	if err := n.buried(a.Key); err != nil {
		return Allocation{}, err
	}
	if err := n.awaitReady(ctx); err != nil {
		return Allocation{}, err
	}
	if err := n.succeed(a); err != nil {
		return Allocation{}, err
	}
	w := &waiter{
		hold:  &hold{Attachment: a, visible: n.sight(a.Netns) == Alive, floating: q.Floating},
		exact: addrs,
		claim: claim{source: sourceNamed, guest: true, conflict: conflict, patience: conflictPatience},
		done:  make(chan error, 1),
	}
	n.mu.Lock()
	if have := n.holds[a.Key]; have != nil && (have.state == ownership.Guest || have.state == ownership.Held) {
		defer n.mu.Unlock()
		if !w.satisfiedBy(have.addrs) {
			return Allocation{}, refuseOther(have)
		}
		return n.again(have, a, q)
	}
	n.mu.Unlock()
	n.lookAnew(ctx, addrs)
	q.Requested = addrs
	if err := n.place(ctx, w, q); err != nil {
		return Allocation{}, err
	}
	return n.take(ctx, w, q)
}

// lookAnew reads from EC2 when one of the addresses is believed to be on an ENI without being ours: whoever put it there may have taken
// it away since the last look, as a sweep does.
func (n *Node) lookAnew(ctx context.Context, addrs []netip.Addr) {
	n.mu.Lock()
	foreign := false
	for _, p := range n.ifaces {
		foreign = foreign || slices.ContainsFunc(addrs, func(a netip.Addr) bool { return p.state(single(a)) == ownership.Foreign })
	}
	n.mu.Unlock()
	if foreign {
		n.describe(ctx, time.Now())
	}
}

// refuseOther answers a registration of other addresses than those that the attachment has.
func refuseOther(have *hold) *Refusal {
	return &Refusal{Invalid, fmt.Sprintf("attachment %s already holds %v; the runtime must DEL it before it gets other addresses", have.Key, have.addrs)}
}

// GC releases what attachments of the network hold that the runtime does not count as valid. A namespace that still
// carries an address wins over the runtime's list. The error is the ledger's.
func (n *Node) GC(network string, valid []attachment.Key) error {
	stale := n.snapshot(func(h *hold) bool {
		return h.Network == network && h.state != ownership.Cooling && !slices.Contains(valid, h.Key)
	})
	var first error
	for _, h := range stale {
		if n.carries(h.Netns, h.addrs) {
			n.log.Warn("the runtime does not know an attachment whose namespace still carries its address", "containerID", h.ContainerID, "ifName", h.IfName, "ips", h.addrs)
			continue
		}
		n.mu.Lock()
		if now := n.holds[h.Key]; now != nil && now.Netns == h.Netns && now.state == h.state {
			if err := n.release(now, "GC"); err != nil && first == nil {
				first = err
			}
		}
		n.mu.Unlock()
	}
	return first
}

// Readiness is the answer to CNI's STATUS: nil, or why an ADD of the query could not be served. Limited is true when
// pods that run may have lost connectivity as well.
func (n *Node) Readiness(q attachment.Query) (limited bool, err error) {
	select {
	case <-n.ready:
	default:
		n.mu.Lock()
		defer n.mu.Unlock()
		return false, &Refusal{NotReady, fmt.Sprintf("the node agent is not ready: %s", n.notReady)}
	}
	n.mu.Lock()
	for _, p := range n.ifaces {
		if p.gone && n.busy(p) || p.count(ownership.Lost) > 0 {
			limited = true
			err = &Refusal{NotReady, fmt.Sprintf("%s lost addresses that pods use", p)}
		}
		if cut := p.cutOff(); cut > 0 {
			limited = true
			err = &Refusal{NotReady, p.wordCut(cut)}
		}
	}
	n.mu.Unlock()
	if err != nil {
		return limited, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.choose(&waiter{hold: &hold{}, exact: q.Requested}, q)
	if err != nil {
		return false, err
	}
	for _, k := range kindsOf(q) {
		c := p.classes[k.key()]
		if c == nil {
			continue // the first ADD will tell
		}
		if free, coming := c.stock(); free+coming == 0 && c.limit() != nil && c.limit().final && time.Since(c.limit().at) < fullPauseCap {
			return false, &Refusal{c.limit().reason, c.limit().text}
		}
	}
	return false, nil
}

// busy reports whether a pod has something of the ENI's. The caller holds n.mu.
func (n *Node) busy(p *iface) bool {
	for _, h := range n.holds {
		if h.eni == p.id && h.state != ownership.Cooling {
			return true
		}
	}
	return false
}
