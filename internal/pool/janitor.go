// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// janitor ends cooldowns when they are due, and compares the holds with the namespaces at each interval.
func (n *Node) janitor(ctx context.Context) {
	for next := time.Now(); ctx.Err() == nil; {
		if !time.Now().Before(next) {
			n.buryAll()
			n.reap()
			n.giveUp()
			n.retire()
			n.recordLate()
			next = time.Now().Add(n.cfg.ReconcileInterval)
		}
		n.hasten()
		n.cool()
		n.forgetStrays()
		nap(ctx, min(time.Until(next), n.untilCooled()), n.tick)
	}
}

// recordLate records what the ledger refused when it happened.
func (n *Node) recordLate() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.ifaces {
		if err := p.record(); err != nil {
			n.log.Error("cannot record what became of addresses", "eni", p.id, "ips", names(slices.Collect(maps.Keys(p.late))), "error", err)
		}
	}
}

func (n *Node) untilCooled() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	wait := n.cfg.ReconcileInterval
	for _, h := range n.holds {
		if h.state == ownership.Cooling {
			wait = min(wait, time.Until(h.deadline))
		}
		if h.state == ownership.Cooling && h.claimed && !h.floats {
			wait = min(wait, stickyPause) // until its namespace has gone
		}
	}
	return max(wait, 0)
}

// cool ends the cooldowns that are over, unless the pod's namespace still carries the address: upstream ipvlan asks
// its IPAM plugin to release before it removes the link, and may be killed in between.
func (n *Node) cool() {
	for _, h := range n.snapshot(func(h *hold) bool { return h.state == ownership.Cooling && !time.Now().Before(h.deadline) }) {
		carried := n.carries(h.Netns, h.addrs) || h.claimed && n.carriedByAny(h.eni, h.addrs)
		n.mu.Lock()
		if now := n.holds[h.Key]; now == nil || now.state != ownership.Cooling || time.Now().Before(now.deadline) {
			n.mu.Unlock()
			continue
		}
		n.endCooldown(n.holds[h.Key], carried)
		n.mu.Unlock()
	}
}

// endCooldown frees the addresses, or starts over. The caller holds n.mu.
func (n *Node) endCooldown(h *hold, carried bool) {
	p := n.ifaces[h.eni]
	if carried {
		n.log.Warn("released address is still on an interface of a pod; it goes on cooling", "ips", h.addrs, "netns", h.Netns.Path)
		h.deadline = time.Now().Add(n.cooldown(h))
		for _, a := range h.addrs {
			p.apply(single(a), ownership.Carried)
		}
		return
	}
	missed := func(a netip.Addr) bool { e := p.units[single(a)]; return e != nil && !e.missing.IsZero() }
	if p != nil && !p.gone && slices.ContainsFunc(h.addrs, missed) {
		h.deadline = time.Now().Add(slowConfirmInterval) // the last read did not show it here: the next one decides
		return
	}
	if err := n.ports.Ledger.Put(Record{Key: holdKey(h.Key)}); err != nil {
		n.log.Error("cannot record the end of a cooldown", "error", err)
		h.deadline = time.Now().Add(n.cfg.ReconcileInterval)
		return
	}
	delete(n.holds, h.Key)
	if p == nil { // its ENI is gone, and the address with it
		return
	}
	for _, a := range h.addrs {
		if p.state(single(a)) == ownership.Cooling {
			p.apply(single(a), ownership.Cooled)
		}
	}
	if h.sticky || h.claimed { // who waits for it here asks EC2 for it, like every other worker: it may be elsewhere already
		p.sendBack(slices.DeleteFunc(singles(h.addrs), func(u unit) bool {
			return p.units[u] == nil || p.state(u) != ownership.Free || h.claimed && p.units[u].source != sourceNamed
		}))
	}
	n.log.Info("cooldown over", "ips", h.addrs, "eni", h.eni)
	p.serve()
	p.poke()
}

// cooldown is how long a released address that a namespace still carries is kept before the next look.
func (n *Node) cooldown(h *hold) time.Duration {
	if h.sticky {
		return min(n.cfg.Cooldown, stickyPause)
	}
	return n.cfg.Cooldown
}

func (n *Node) carries(ns attachment.Netns, addrs []netip.Addr) bool {
	if ns.Path == "" || n.ports.Namespaces.Look(ns) != Alive {
		return false
	}
	carried, err := n.ports.Namespaces.Addresses(ns.Path)
	return err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return slices.Contains(carried, a) })
}

// snapshot copies the holds that match, so that the kernel can be asked about them without the lock.
func (n *Node) snapshot(match func(*hold) bool) []hold {
	n.mu.Lock()
	defer n.mu.Unlock()
	var hs []hold
	for _, h := range n.holds {
		if match(h) {
			hs = append(hs, *h)
		}
	}
	return hs
}

// folder is where a namespace's path lies; /var/run is another name of /run.
func folder(path string) string { return filepath.Dir(strings.TrimPrefix(path, "/var")) }

// sight tells whether a namespace is alive, and notes that its folder can be seen. The caller does not hold n.mu.
func (n *Node) sight(ns attachment.Netns) Sight {
	seen := n.ports.Namespaces.Look(ns)
	if seen == Alive {
		n.mu.Lock()
		n.folders[folder(ns.Path)] = true
		n.mu.Unlock()
	}
	return seen
}

// believed drops namespaces from a list of those that are gone, whose folder the agent may not see at all: it has seen
// no namespace in it since it started. An agent that was restarted without the folder's mount would else take all pods for
// dead. What processes have is believed: the path says whose.
func (n *Node) believed(gone []attachment.Netns) []attachment.Netns {
	n.mu.Lock()
	defer n.mu.Unlock()
	unseen := func(g attachment.Netns) bool {
		return !strings.HasPrefix(g.Path, "/proc/") && !n.folders[folder(g.Path)]
	}
	if slices.ContainsFunc(gone, unseen) {
		n.mu.Unlock()
		found, err := n.ports.Namespaces.Scan()
		n.mu.Lock()
		if err != nil {
			n.log.Warn("look into the network namespaces", "error", err)
		}
		for _, f := range found {
			n.folders[folder(f.Netns.Path)] = true
		}
	}
	was := len(n.blind)
	n.blind = map[string]int{}
	gone = slices.DeleteFunc(gone, func(g attachment.Netns) bool {
		if unseen(g) {
			n.blind[folder(g.Path)]++
			return true
		}
		return false
	})
	if len(n.blind) > 0 && was == 0 {
		n.log.Warn("no network namespace is to be seen where pods had theirs; nothing is concluded from that", "folders", slices.Sorted(maps.Keys(n.blind)))
	}
	return gone
}

// reap releases what is held for network namespaces that are no more: DEL may be lost, and Multus forwards GC to no
// secondary network. When more than half vanish at once, a second look has to agree: more often than so many pods die,
// the folder of the namespaces is hidden from the agent.
func (n *Node) reap() {
	holds := n.snapshot(func(h *hold) bool {
		return h.state != ownership.Cooling && h.visible && h.Netns.Path != ""
	})
	var gone []attachment.Netns
	for _, h := range holds {
		if n.sight(h.Netns) == Gone {
			gone = append(gone, h.Netns)
		}
	}
	gone = n.believed(gone)
	if len(gone) > 0 {
		elsewhere, err := n.ports.Namespaces.Elsewhere(gone)
		if err != nil {
			n.log.Warn("look for namespaces elsewhere", "error", err)
			return
		}
		gone = slices.DeleteFunc(gone, func(g attachment.Netns) bool { return slices.ContainsFunc(elsewhere, g.Same) })
	}
	mass := 2*len(gone) > len(holds)
	n.mu.Lock()
	defer n.mu.Unlock()
	suspects := map[attachment.Key]time.Time{}
	for _, h := range holds {
		now := n.holds[h.Key]
		if now == nil || now.Netns != h.Netns || !slices.ContainsFunc(gone, h.Netns.Same) {
			continue
		}
		if mass {
			since, ok := n.suspects[h.Key]
			if !ok {
				since = time.Now()
			}
			if time.Since(since) < n.cfg.MassReapDelay {
				suspects[h.Key] = since
				continue
			}
		}
		if now.state == ownership.Cooling {
			continue
		}
		if err := n.release(now, "its network namespace is gone"); err != nil {
			n.log.Error("cannot reap", "error", err)
			continue
		}
		n.cfg.Count(Reaped)
	}
	if len(suspects) > 0 {
		n.log.Warn("more than half of the namespaces vanished at once; looking again before anything is released", "gone", len(gone), "holds", len(holds))
	}
	n.suspects = suspects
}
