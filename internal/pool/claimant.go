// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// A claim is a registration that no CNI call is behind: an address appeared on an interface of a pod, and somebody asks for it in
// the pod's stead. Each claimed address is a hold of its own, keyed by the network namespace, the interface and the address. Claims
// are about now: of two pods that want a floating address the later has it, so an address that is believed to be here already is
// asked for once more when it appears anew, since another worker may have taken it without our knowledge. Only when it passes from
// one pod to another on an ENI that the metadata shows it on is EC2 left out, so that it has an owner all the time. The metadata is a
// few seconds behind: should another worker have taken it within these, that shows soon, and the address is left there.

// ClaimResult is what became of one address of [Node.Claim].
type ClaimResult struct {
	// New is whether the address is on the ENI on account of a claim, this or an earlier one, so that [Node.Yield] gives it back. It
	// is false for what an attachment has from its CNI plugin.
	New bool
	// Err is nil when the claimant's ENI has the address. Else it is a [*Refusal]: [Invalid] will not succeed, [Taken] will not
	// before the address appears anew or nobody has it, and after others it is worth trying again.
	Err error
}

// Claim has EC2 know addresses that the claimant's interface carries, in as few calls as it can, and answers for each of them.
// Whether this pod may have them is settled before: floating addresses, for which conflict is [attachment.Reassign], are taken
// from whoever has them. It is idempotent; what is claimed ends with [Node.Yield], or with the network namespace.
func (n *Node) Claim(ctx context.Context, c attachment.Claimant, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]ClaimResult {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.MaxWait)
	defer cancel()
	results := map[netip.Addr]ClaimResult{}
	p, err := n.parent(ctx, c)
	if err != nil {
		for _, a := range addrs {
			results[a] = ClaimResult{Err: err}
		}
		return results
	}
	c = n.find(c)
	visible := c.Netns.Path != "" && n.sight(c.Netns) == Alive
	kept := n.keptByOthers(c, addrs)
	if conflict != attachment.Reassign { // of what floats EC2 is asked anyway
		n.lookAnew(ctx, addrs)
	}
	var shown map[unit]bool
	if p.depends(c, addrs, conflict) {
		shown = p.shown(ctx)
	}
	var ws []*waiter
	n.mu.Lock()
	for _, a := range addrs {
		if _, twice := results[a]; twice {
			continue
		}
		h := &hold{
			Attachment: attachment.Attachment{Key: claimKey(c, a), Pod: c.Pod, Netns: c.Netns},
			addrs:      []netip.Addr{a}, visible: visible, claimed: true, floats: conflict == attachment.Reassign, link: c.Link, eni: p.id, told: 1,
		}
		w, result := n.contend(p, h, kept[a], shown[single(a)], conflict)
		results[a] = result
		if w != nil {
			ws = append(ws, w)
			p.waiters = append(p.waiters, w)
		}
	}
	p.serve()
	p.hurry(ws...)
	if soon := time.Now().Add(backoffBase); conflict == attachment.Reassign && p.w.resume.After(soon) {
		p.w.resume = soon // a pod is unreachable until then; how often a pod may claim is bounded elsewhere
	}
	n.mu.Unlock()
	p.poke()
	for _, w := range ws {
		_, err := n.wait(ctx, p, w)
		results[w.exact[0]] = ClaimResult{New: err == nil, Err: n.overtaken(ctx, p, w, err)}
	}
	return results
}

// claimKey is the key of a claim's hold. A cookie is never used again, so neither is the key.
func claimKey(c attachment.Claimant, a netip.Addr) attachment.Key {
	return attachment.Key{ContainerID: netnsName(c.Netns), IfName: c.IfName + "@" + a.String()}
}

// netnsName stands for a container that is known by its network namespace only. Inode numbers are used again at once, cookies never.
func netnsName(ns attachment.Netns) string {
	return fmt.Sprintf("netns-%d", cmp.Or(ns.Cookie, ns.Inode))
}

// parent finds the ENI whose link the claimant's interface is a child of.
func (n *Node) parent(ctx context.Context, c attachment.Claimant) (*iface, error) {
	if err := n.awaitReady(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.ifaces {
		if c.Link == 0 || p.link.Index != c.Link || p.gone {
			continue
		}
		if ok, why := p.managed(); !ok {
			return nil, &Refusal{Invalid, fmt.Sprintf("interface %s is on %s, which %s", c.IfName, p, why)}
		}
		return p, nil
	}
	return nil, &Refusal{Invalid, fmt.Sprintf("interface %s: the host's link with index %d is no ENI's", c.IfName, c.Link)}
}

// find completes a claimant with a path that leads to its namespace, if any is to be seen: without one nothing tells when it ends.
// What CNI calls said of the same namespace helps.
func (n *Node) find(c attachment.Claimant) attachment.Claimant {
	for _, h := range n.snapshot(func(h *hold) bool { return h.Netns.Path != "" && h.Netns.Same(c.Netns) }) {
		if n.ports.Namespaces.Look(h.Netns) != Alive {
			continue
		}
		c.Netns = h.Netns
		if c.Pod == (attachment.Pod{}) {
			c.Pod = h.Pod
		}
		if c.Pod != (attachment.Pod{}) {
			return c
		}
	}
	if c.Netns.Path != "" {
		return c
	}
	found, err := n.ports.Namespaces.Scan()
	if err != nil {
		n.log.Warn("look into the network namespaces", "error", err)
	}
	for _, f := range found {
		if f.Netns.Same(c.Netns) {
			c.Netns = f.Netns
		}
	}
	return c
}

// keptByOthers says which of the addresses another pod of this worker has and still carries.
func (n *Node) keptByOthers(c attachment.Claimant, addrs []netip.Addr) map[netip.Addr]bool {
	kept := map[netip.Addr]bool{}
	for _, a := range addrs {
		for _, h := range n.snapshot(func(h *hold) bool { return slices.Contains(h.addrs, a) && !h.Netns.Same(c.Netns) }) {
			kept[a] = kept[a] || n.carries(h.Netns, []netip.Addr{a})
		}
	}
	return kept
}

// contend settles what is known here about an address that is claimed: the result, or who waits for EC2. The caller holds n.mu.
func (n *Node) contend(p *iface, h *hold, kept, shown bool, conflict attachment.OnConflict) (*waiter, ClaimResult) {
	refuse := func(r *Refusal) (*waiter, ClaimResult) { return nil, ClaimResult{Err: r} }
	a := h.addrs[0]
	w := &waiter{
		hold: h, exact: []netip.Addr{a}, since: time.Now(), done: make(chan error, 1),
		claim: claim{source: sourceNamed, guest: true, conflict: conflict, patience: conflictPatience},
	}
	if conflict == attachment.Reassign {
		w.claim.patience = 0
	}
	if why := p.unfit(w, attachment.Query{Requested: w.exact}); why != "" {
		return refuse(&Refusal{Invalid, fmt.Sprintf("%s %s", p, why)})
	}
	old := n.holder(a)
	if old == nil {
		w.renew = conflict == attachment.Reassign && p.elsewhere(single(a), shown)
		return w, ClaimResult{}
	}
	mine := old.Netns.Same(h.Netns)
	switch {
	case kept && !mine:
		return refuse(&Refusal{Taken, fmt.Sprintf("address %s is on an interface of another pod of this worker, attachment %s", a, old.Key)})
	case !old.claimed && !n.stranded(old):
		return n.ofPlugin(old, a, mine)
	case old.eni != p.id:
		if err := n.setAside(old); err != nil {
			return refuse(&Refusal{NotReady, err.Error()})
		}
		w.claim.conflict, w.claim.patience = attachment.Reassign, 0
	case shown && old.state != ownership.Lost && (!mine || conflict != attachment.Reassign):
		if err := n.pass(p, old, h); err != nil {
			return refuse(&Refusal{NotReady, err.Error()})
		}
		p.outrun(h)
		return nil, ClaimResult{New: true}
	default:
		w.renew = true
	}
	h.floats = h.floats || old.floats
	return w, ClaimResult{}
}

// outrun refuses those who claimed the hold's address before it and wait for EC2 still: its answer is no longer theirs. The caller
// holds n.mu.
func (p *iface) outrun(by *hold) {
	p.waiters = slices.DeleteFunc(p.waiters, func(w *waiter) bool {
		if !w.hold.claimed || !slices.Contains(w.exact, by.addrs[0]) {
			return false
		}
		w.done <- &Refusal{Taken, fmt.Sprintf("address %s has been claimed since by another pod of this worker, attachment %s", by.addrs[0], by.Key)}
		return true
	})
}

// elsewhere reports whether an address that nobody has, and that is believed to be here or on its way, may have been taken by another
// worker meanwhile. The caller holds n.mu.
func (p *iface) elsewhere(u unit, shown bool) bool {
	switch p.state(u) {
	case ownership.None:
		return false
	case ownership.Assigning, ownership.Unknown:
		return true
	case ownership.Unassigning:
		return !shown || !p.units[u].unsent
	}
	return !shown
}

// depends reports whether what the metadata shows makes a difference to any of the claims: it does where EC2 may be left out, and
// where somebody else may have taken what is believed to be here.
func (p *iface) depends(c attachment.Claimant, addrs []netip.Addr, conflict attachment.OnConflict) bool {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool {
		if old := p.n.holder(a); old != nil {
			return conflict != attachment.Reassign || !old.Netns.Same(c.Netns)
		}
		return p.state(single(a)) != ownership.None
	})
}

// holder is the hold that has the address, of whatever state, on any of the worker's ENIs. The caller holds n.mu.
func (n *Node) holder(a netip.Addr) *hold {
	for _, h := range n.holds {
		if slices.Contains(h.addrs, a) {
			return h
		}
	}
	return nil
}

// stranded reports whether a hold was made for whoever carried an address that is of no stock: the agent was killed before it
// recorded the claim. The caller holds n.mu.
func (n *Node) stranded(h *hold) bool {
	p := n.ifaces[h.eni]
	return p != nil && h.found() && p.units[single(h.addrs[0])] != nil && p.units[single(h.addrs[0])].source == sourceNamed
}

// found reports whether no more is known of the hold's attachment than the namespace.
func (h *hold) found() bool {
	return h.ContainerID == netnsName(h.Netns) && h.IfName == h.addrs[0].String()
}

// ofPlugin answers a claim of an address that an attachment has from its CNI plugin.
func (n *Node) ofPlugin(old *hold, a netip.Addr, mine bool) (*waiter, ClaimResult) {
	switch {
	case mine && (old.state == ownership.Held || old.state == ownership.Guest):
		return nil, ClaimResult{}
	case mine && old.state == ownership.Lost:
		return nil, ClaimResult{Err: &Refusal{Exhausted, fmt.Sprintf("EC2 no longer has %s on %s; it is assigned again unless another ENI has it", a, old.eni)}}
	}
	return nil, ClaimResult{Err: &Refusal{Exhausted, fmt.Sprintf("address %s is %s by attachment %s on this worker; try again", a, holding(old.state), old.Key)}}
}

// holding words what an attachment does with its address.
func holding(s ownership.State) string {
	if s == ownership.Cooling {
		return "kept in its cooldown"
	}
	return "held"
}

// pass gives the address of a claim to another claimant on the same ENI, or to the same anew. EC2 is not asked. The caller holds
// n.mu.
func (n *Node) pass(p *iface, old, h *hold) error {
	h.state, h.uptime, h.floats = ownership.Guest, n.cfg.Uptime(), h.floats || old.floats
	recs := []Record{h.record()}
	if old.Key != h.Key {
		recs = append(recs, Record{Key: holdKey(old.Key)})
	}
	if err := n.ports.Ledger.Put(recs...); err != nil {
		return fmt.Errorf("cannot record the claim of %v: %w; free space in the agent's state directory", h.addrs, err)
	}
	delete(n.holds, old.Key)
	n.holds[h.Key] = h
	u := single(h.addrs[0])
	if p.state(u) == ownership.Held { // it was lost, and found again
		p.apply(u, ownership.Release)
	}
	p.apply(u, ownership.Register)
	p.units[u].key, p.units[u].passed = h.Key, time.Now()
	if !old.Netns.Same(h.Netns) {
		n.log.Info("address handed over", "ip", name(u), "eni", p.id, "from", old.Key.String(), "to", h.Key.String())
	}
	return nil
}

// renewed files that EC2 gave an address once more that was believed to be here already. The caller holds n.mu.
func (p *iface) renewed(w wish) {
	n, by := p.n, w.by
	old := n.holder(w.unit.Addr())
	if old != nil && old.eni == p.id && old.state == ownership.Lost {
		if err := n.end(old); err != nil {
			n.log.Error("cannot record that a lost address was claimed again", "ip", name(w.unit), "error", err)
		}
	}
	if old == nil || old.eni != p.id || old.state == ownership.Lost { // the next read shows it
		by.renew = false
		p.expect(w)
		return
	}
	if !slices.Contains(p.waiters, by) { // nobody waits for the answer any more
		return
	}
	p.leave(by)
	if err := n.pass(p, old, by.hold); err != nil {
		by.done <- &Refusal{NotReady, err.Error()}
		return
	}
	by.done <- nil
}

// expect files that EC2 gave an address that nobody has: a read is to show it. The caller holds n.mu.
func (p *iface) expect(w wish) {
	e := p.units[w.unit]
	switch p.state(w.unit) {
	case ownership.None:
		p.units[w.unit] = &entry{since: time.Now(), written: time.Now(), source: w.by.claim.source}
		fallthrough
	case ownership.Unknown:
		if err := p.applyAll([]unit{w.unit}, ownership.Assign); err != nil {
			p.n.log.Error("cannot record an assign", "error", err)
		}
	case ownership.Unassigning:
		e.unsent = true // it was to be given back, or was before it was given anew
	}
	p.promised(w)
}

// promised files that EC2 said yes to an address that is not believed to be here yet. What a claim's address is moved from may
// be another ENI of this worker. The caller holds n.mu.
func (p *iface) promised(w wish) {
	if !w.by.hold.claimed {
		return
	}
	if e := p.units[w.unit]; e != nil {
		e.doubted = false // that it was here before does not matter, now that EC2 says that it is
	}
	if old := p.n.holder(w.unit.Addr()); old != nil && old.eni != p.id && old.claimed && old.state == ownership.Cooling {
		if err := p.n.end(old); err != nil {
			p.n.log.Error("cannot record that an address moved to another ENI of this worker", "ip", name(w.unit), "error", err)
		}
	}
}

// setAside lets a claim cool while its address is moved to another ENI of this worker. The caller holds n.mu.
func (n *Node) setAside(h *hold) error {
	if h.state != ownership.Cooling {
		if err := n.release(h, "it is claimed on another ENI of this worker"); err != nil {
			return err
		}
	}
	if until := time.Now().Add(n.cfg.MaxWait); h.deadline.Before(until) {
		h.deadline = until
	}
	return nil
}

// end drops a hold whose address is no longer on its ENI. The caller holds n.mu.
func (n *Node) end(h *hold) error {
	if err := n.ports.Ledger.Put(Record{Key: holdKey(h.Key)}); err != nil {
		return fmt.Errorf("record the end of %s: %w", h.Key, err)
	}
	delete(n.holds, h.Key)
	if p := n.ifaces[h.eni]; p != nil {
		for _, a := range h.addrs {
			switch p.state(single(a)) {
			case ownership.Lost:
				p.apply(single(a), ownership.Release)
			case ownership.Cooling:
				p.apply(single(a), ownership.Unassigned)
			}
		}
	}
	return nil
}
