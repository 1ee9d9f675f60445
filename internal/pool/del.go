// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Del gives back what the attachment holds. It succeeds when it holds nothing, and needs neither EC2 nor a finished
// boot. The error is the ledger's: the caller must keep a note and try again.
func (n *Node) Del(key attachment.Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.holds[key]
	if h == nil || h.state == ownership.Cooling {
		return nil
	}
	return n.release(h, "DEL")
}

// release starts the cooldown of a held attachment's addresses; lost ones are let go. The caller holds n.mu.
func (n *Node) release(h *hold, why string) error {
	p := n.ifaces[h.eni]
	event := h.farewell()
	next, _, ok := ownership.Next(h.state, event)
	if !ok {
		return fmt.Errorf("release %s in state %s", h.Key, h.state)
	}
	cooled := *h
	if p != nil && next == ownership.None && p.has(h, ownership.Held) { // of two families only one is lost
		next = ownership.Cooling
		cooled.addrs = slices.DeleteFunc(slices.Clone(h.addrs), func(a netip.Addr) bool { return p.state(single(a)) != ownership.Held })
	}
	cooled.state, cooled.deadline = next, time.Now().Add(n.cfg.Cooldown)
	if h.sticky {
		cooled.deadline = time.Now() // the pod's next worker waits for it
	}
	cooled.until = n.cfg.Uptime() + time.Until(cooled.deadline)
	rec := cooled.record()
	ends := next != ownership.Cooling // lost ones are gone, and a guest's go back to EC2
	if ends {
		rec = Record{Key: holdKey(h.Key)}
	}
	if err := n.ports.Ledger.Put(rec); err != nil {
		return fmt.Errorf("record the release of %s: %w", h.Key, err)
	}
	had := h.addrs
	*h = cooled
	if ends {
		delete(n.holds, h.Key)
	}
	if p != nil {
		for _, a := range had {
			p.letGo(single(a), event)
		}
		p.poke()
	}
	n.log.Info("address released", "ips", had, "eni", h.eni, "containerID", h.ContainerID, "ifName", h.IfName, "why", why)
	poke(n.tick)
	poke(n.watch)
	return nil
}

// letGo releases one address of a hold. A lost one that was asked for again a moment ago may turn up on the ENI yet.
func (p *iface) letGo(u unit, event ownership.Event) {
	if e := p.units[u]; e != nil && e.state == ownership.Lost && (e.asking || time.Since(e.written) < settleTime) {
		e.written = time.Now()
		if err := p.applyAll([]unit{u}, ownership.Unassign); err != nil {
			p.n.log.Error("cannot record an unassign; the address is found on the ENI after a restart", "error", err)
		}
		return
	}
	if p.apply(u, event) == ownership.SendUnassign {
		p.units[u].unsent = true
	}
}

// has reports whether an address of the hold is in the state.
func (p *iface) has(h *hold, s ownership.State) bool {
	return slices.ContainsFunc(h.addrs, func(a netip.Addr) bool { return p.state(single(a)) == s })
}

// succeed releases what an earlier sandbox of the same pod holds on the same network and interface, if its namespace is
// gone: its DEL was lost, and a sandbox that is made over and over must not take an address each time. Where more than half
// of the namespaces vanish at once the janitor looks twice; here the pod's next sandbox says the same as its eyes.
func (n *Node) succeed(a attachment.Attachment) error {
	if a.Pod == (attachment.Pod{}) {
		return nil // only the container is known
	}
	earlier := n.snapshot(func(h *hold) bool {
		return h.Pod == a.Pod && h.IfName == a.IfName && h.Network == a.Network && h.Key != a.Key && h.state != ownership.Cooling && h.visible
	})
	for _, h := range earlier {
		if h.Netns.Path == "" || n.ports.Namespaces.Look(h.Netns) != Gone {
			continue
		}
		if elsewhere, err := n.ports.Namespaces.Elsewhere([]attachment.Netns{h.Netns}); err != nil || len(elsewhere) > 0 {
			continue
		}
		n.mu.Lock()
		var err error
		if now := n.holds[h.Key]; now != nil && now.Netns == h.Netns && now.state == h.state {
			err = n.release(now, "its pod has another sandbox, and its network namespace is gone")
		}
		n.mu.Unlock()
		if err != nil {
			return &Refusal{NotReady, err.Error()}
		}
	}
	return nil
}

// buried does what a tombstone of the key asks for, so that an ADD does not find a hold that was deleted while no
// agent listened.
func (n *Node) buried(key attachment.Key) error {
	t, ok, err := n.ports.Tombstones.Find(key)
	if err != nil {
		n.log.Warn("tombstone not understood", "containerID", key.ContainerID, "ifName", key.IfName, "error", err)
	}
	if !ok {
		return nil
	}
	return n.bury(t)
}

// bury releases the hold that the tombstone is about, if it is older, and removes the tombstone.
func (n *Node) bury(t Tombstone) error {
	n.mu.Lock()
	h, what := n.holds[t.Key], Outdated
	if h != nil && h.state != ownership.Cooling && t.BootID == n.cfg.BootID && h.uptime < t.Uptime {
		if err := n.release(h, "DEL while the agent was away"); err != nil {
			n.mu.Unlock()
			return &Refusal{NotReady, err.Error()}
		}
		what = Buried
	}
	n.mu.Unlock()
	n.cfg.Count(what)
	if err := n.ports.Tombstones.Remove(t.Key); err != nil {
		n.log.Warn("tombstone stays", "containerID", t.Key.ContainerID, "error", err)
	}
	return nil
}

// buryAll does what all tombstones ask for.
func (n *Node) buryAll() {
	ts, err := n.ports.Tombstones.List()
	if err != nil {
		n.log.Warn("list tombstones", "error", err)
	}
	for _, t := range ts {
		if err := n.bury(t); err != nil {
			n.log.Warn("tombstone waits", "containerID", t.Key.ContainerID, "error", err)
		}
	}
}

// Check compares what the attachment holds with what its CNI result says, and names the first difference. It changes
// nothing and asks EC2 nothing: what EC2 says is compared all the time, and shows as a lost address.
func (n *Node) Check(key attachment.Key, want []netip.Prefix) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.holds[key]
	if h == nil || h.state == ownership.Cooling {
		return &Refusal{Mismatch, fmt.Sprintf("the agent holds no address for attachment %s", key)}
	}
	for _, w := range want {
		if !slices.Contains(h.addrs, w.Addr()) {
			return &Refusal{Mismatch, fmt.Sprintf("attachment %s holds %v, not %s", key, h.addrs, w.Addr())}
		}
	}
	p := n.ifaces[h.eni]
	switch {
	case h.state == ownership.Lost:
		return &Refusal{Mismatch, fmt.Sprintf("EC2 no longer has %v on %s", h.addrs, h.eni)}
	case n.severed(h):
		return &Refusal{Mismatch, p.wordCut(p.cutOff())}
	case p != nil && p.gone:
		return &Refusal{Mismatch, fmt.Sprintf("%s is no longer attached to the worker", h.eni)}
	case p != nil && p.link.Index != 0 && !p.link.Up:
		return &Refusal{Mismatch, fmt.Sprintf("link %s of %s is down", p.link.Name, h.eni)}
	}
	return nil
}

// Place is where the attachment's addresses are. It is not known of an attachment that holds none, nor of an ENI that has not been read.
func (n *Node) Place(key attachment.Key) (at Allocation, known bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.holds[key]
	if h == nil || n.ifaces[h.eni] == nil {
		return Allocation{}, false
	}
	return n.ifaces[h.eni].placed(h), true
}
