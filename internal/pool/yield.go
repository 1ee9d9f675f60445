// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Yield gives up what the claimant's namespace claimed and does not carry any more. It succeeds when nothing is claimed, and needs
// neither EC2 nor a finished boot. The addresses stay on the ENI for the cooldown, where the same pod or a neighbour may claim them
// without asking EC2, and go back after it when no network namespace carries them: so the caller needs no grace of its own. An
// address that is no floating one goes back as soon as its namespace has gone. The error is the ledger's.
func (n *Node) Yield(_ context.Context, c attachment.Claimant, addrs []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for _, a := range addrs {
		for _, h := range n.holds {
			if (h.claimed || n.stranded(h)) && h.state != ownership.Cooling && h.Netns.Same(c.Netns) && slices.Contains(h.addrs, a) {
				errs = append(errs, n.release(h, "given up by its pod"))
			}
		}
	}
	return errors.Join(errs...)
}

// farewell is the event that ends what an attachment has.
func (h *hold) farewell() ownership.Event {
	if h.claimed && h.state == ownership.Guest {
		return ownership.Yield
	}
	return ownership.Release
}

// giveBackNamed gives back what pods asked for by name and nobody has, unless a namespace carries it all the same: the agent may have
// been killed, or given up waiting, before it knew that EC2 had assigned it.
func (p *iface) giveBackNamed(ctx context.Context) {
	found, err := p.n.ports.Namespaces.Scan()
	if err != nil {
		p.n.log.Warn("look into the network namespaces", "error", err)
	}
	p.n.mu.Lock()
	p.n.recognise(p.users(found))
	p.n.mu.Unlock()
	p.giveBack(func() []unit { return p.leaving(true) })(ctx)
}

// claimedIn reports whether a claim of the address waits that is of the namespace.
func (p *iface) claimedIn(a netip.Addr, ns attachment.Netns) bool {
	return slices.ContainsFunc(p.waiters, func(w *waiter) bool {
		return w.hold.claimed && w.hold.Netns.Same(ns) && slices.Contains(w.exact, a)
	})
}

// claimedBy is the hold of a claim that has the entry, nil if none has. The caller holds n.mu.
func (n *Node) claimedBy(e *entry) *hold {
	if h := n.holds[e.key]; h != nil && h.claimed {
		return h
	}
	return nil
}

// giveUp ends claims whose pods live and do not carry the address any more: whoever claimed it was killed before it could say so.
func (n *Node) giveUp() {
	claims := n.snapshot(func(h *hold) bool { return (h.claimed || n.stranded(h)) && h.state != ownership.Cooling && h.visible })
	for _, h := range claims {
		idle := n.lacks(h.Netns, h.addrs)
		n.mu.Lock()
		switch now := n.holds[h.Key]; {
		case now == nil || now.state != h.state:
		case !idle:
			now.idle = time.Time{}
		case now.idle.IsZero():
			now.idle = time.Now()
		case time.Since(now.idle) >= n.cfg.ReconcileInterval:
			if err := n.release(now, "its pod does not carry it any more"); err != nil {
				n.log.Error("cannot record the end of a claim", "error", err)
			}
		}
		n.mu.Unlock()
	}
}

// lacks reports whether a namespace was seen to carry none of the addresses.
func (n *Node) lacks(ns attachment.Netns, addrs []netip.Addr) bool {
	if ns.Path == "" || n.ports.Namespaces.Look(ns) != Alive {
		return false
	}
	carried, err := n.ports.Namespaces.Addresses(ns.Path)
	return err == nil && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(carried, a) })
}

// orphaned lists claims that cool, are no floating ones, and whose pod has gone: nobody comes back for them.
func (n *Node) orphaned() []hold {
	cooling := n.snapshot(func(h *hold) bool {
		return h.claimed && !h.floats && h.state == ownership.Cooling && h.visible && time.Now().Before(h.deadline)
	})
	return slices.DeleteFunc(cooling, func(h hold) bool { return n.ports.Namespaces.Look(h.Netns) != Gone })
}

// hasten ends the cooldown of claims that nobody comes back for: an IPAM plugin may give the address to a pod of another worker.
func (n *Node) hasten() {
	for _, h := range n.orphaned() {
		n.mu.Lock()
		if now := n.holds[h.Key]; now != nil && now.state == ownership.Cooling {
			now.deadline = time.Now()
		}
		n.mu.Unlock()
	}
}

// users are those of the namespaces that have a child of the ENI's link: what others carry does not come by this ENI. Without a link
// that cannot be told. The caller holds n.mu.
func (p *iface) users(found []Found) []Found {
	if p.link.Index == 0 {
		return found
	}
	return slices.DeleteFunc(slices.Clone(found), func(f Found) bool { return f.Modes[p.link.Index] == "" })
}

// carriedByAny reports whether any network namespace on the ENI carries one of the addresses; when that cannot be told, it does.
func (n *Node) carriedByAny(id eni.ID, addrs []netip.Addr) bool {
	found, err := n.ports.Namespaces.Scan()
	if err != nil {
		n.log.Warn("look into the network namespaces", "error", err)
	}
	n.mu.Lock()
	if p := n.ifaces[id]; p != nil {
		found = p.users(found)
	}
	n.mu.Unlock()
	return err != nil || slices.ContainsFunc(found, func(f Found) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(f.Addrs, a) })
	})
}

// departing reports whether claimed addresses may be about to leave the ENI: those that cool another worker may take at any time,
// and one that was claimed on the metadata's word another may have taken just before. The caller holds n.mu.
func (p *iface) departing() bool {
	for _, e := range p.units {
		if !e.passed.IsZero() || e.state == ownership.Cooling && e.missing.IsZero() && p.n.claimedBy(e) != nil {
			return true
		}
	}
	return false
}

// departed notes which of them the metadata does not show any more. What other pods on the ENI know of them as neighbours is wrong
// from now on, and a read from EC2 decides the rest. The caller holds n.mu.
func (p *iface) departed(shown map[unit]bool) {
	if shown == nil {
		return
	}
	for u, e := range p.units {
		watched := e.state == ownership.Cooling
		if !e.passed.IsZero() && time.Since(e.passed) >= confirmByEC2After {
			e.passed, watched = time.Time{}, true
		}
		if !watched || !e.missing.IsZero() || shown[u] || e.asking || time.Since(e.written) < confirmByEC2After || p.n.claimedBy(e) == nil {
			continue
		}
		e.missing = time.Now()
		p.strays = append(p.strays, u.Addr())
		p.n.moved = true
		poke(p.n.tick)
	}
}

// unwanted drops from lost units those of claims whose pod does not carry them any more: nobody asks for them.
func (n *Node) unwanted(lost []unit, p *iface) []unit {
	return slices.DeleteFunc(lost, func(u unit) bool {
		n.mu.Lock()
		var h hold
		if e := p.units[u]; e != nil && n.claimedBy(e) != nil {
			h = *n.claimedBy(e)
		}
		n.mu.Unlock()
		return h.claimed && h.visible && n.lacks(h.Netns, h.addrs)
	})
}

// Standing tells who has each of the addresses, as EC2 says now; EC2 is asked only for those that the metadata does not show on the
// claimant's ENI. What turns out to be elsewhere though we believed it here is looked into.
func (n *Node) Standing(ctx context.Context, c attachment.Claimant, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.MaxWait)
	defer cancel()
	p, err := n.parent(ctx, c)
	if err != nil {
		return nil, err
	}
	shown := p.shown(ctx)
	standings := map[netip.Addr]attachment.Standing{}
	var ask []netip.Addr
	for _, a := range addrs {
		if shownBy(shown, a) {
			standings[a] = attachment.Here
		} else {
			ask = append(ask, a)
		}
	}
	if len(ask) == 0 {
		return standings, nil
	}
	began := time.Now()
	owners, err := n.ports.EC2.Owners(ctx, p.subnet.ID, ask)
	if err != nil {
		return nil, &Refusal{NotReady, "ask EC2 who has the addresses: " + err.Error()}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range ask {
		switch owner, owned := owners[a]; {
		case owner == p.id:
			standings[a] = attachment.Here
			continue
		case owned:
			standings[a] = attachment.Elsewhere
		default:
			standings[a] = attachment.Nobody
		}
		e := p.units[single(a)]
		if e != nil && (e.state == ownership.Guest || e.state == ownership.Held) && !e.asking && e.missing.IsZero() && !began.Before(e.written.Add(settleTime)) {
			e.missing = began // and a read that decides follows
			p.poke()
		}
	}
	return standings, nil
}

// shownBy reports whether the address is among what was shown, by itself or in a prefix.
func shownBy(shown map[unit]bool, a netip.Addr) bool {
	if shown[single(a)] {
		return true
	}
	for u := range shown {
		if !u.IsSingleIP() && u.Contains(a) {
			return true
		}
	}
	return false
}
