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
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Allocation is what an attachment got.
type Allocation struct {
	ENI       eni.Interface
	Subnet    eni.Subnet
	Link      attachment.Link // zero when the host has no link for the ENI
	Addresses []netip.Prefix  // with the subnet's prefix length

	hold *hold // for [Node.Undelivered]
}

// Add gives the attachment addresses. It is idempotent: an attachment that already holds some gets the same ones. With
// stock it returns at once; without, it waits for EC2 up to Config.MaxWait or the end of ctx, whichever is first, and
// then says in a [*Refusal] which limit it met. Of several families it gives all or none, on one ENI.
func (n *Node) Add(ctx context.Context, a attachment.Attachment, q attachment.Query) (Allocation, error) {
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
	h := &hold{Attachment: a, visible: n.sight(a.Netns) == Alive, floating: q.Floating}

	n.mu.Lock()
	if have := n.holds[a.Key]; have != nil && have.state == ownership.Held {
		defer n.mu.Unlock()
		return n.again(have, a, q)
	}
	n.mu.Unlock()
	w := &waiter{hold: h, exact: q.Requested, claim: claim{source: sourceNamed, conflict: attachment.Never}, done: make(chan error, 1)}
	if q.Sticky != nil {
		addrs, err := n.ordinalAddresses(ctx, a.Pod, q)
		if err != nil {
			return Allocation{}, err
		}
		h.sticky, w.exact = true, addrs
		w.claim = claim{source: sourceNamed, conflict: attachment.Reassign, patience: stickyPatience}
	}
	if err := n.place(ctx, w, q); err != nil {
		return Allocation{}, err
	}
	return n.take(ctx, w, q)
}

// again answers a repeated ADD. The caller holds n.mu.
func (n *Node) again(have *hold, a attachment.Attachment, q attachment.Query) (Allocation, error) {
	if have.Netns != (attachment.Netns{}) && !have.Netns.Same(a.Netns) || have.Network != a.Network {
		return Allocation{}, &Refusal{Invalid, fmt.Sprintf(
			"attachment %s already holds %v for network %q in another network namespace (%s); the runtime must DEL it first",
			a.Key, have.addrs, have.Network, have.Netns.Path)}
	}
	p := n.ifaces[have.eni]
	if p == nil {
		return Allocation{}, &Refusal{Invalid, fmt.Sprintf(
			"attachment %s holds %v on %s, which is not attached to the worker; the runtime must DEL it first", a.Key, have.addrs, have.eni)}
	}
	if q.NeedLink {
		if _, err := withLink([]*iface{p}, q); err != nil {
			return Allocation{}, err
		}
	}
	if n.severed(have) {
		n.rehang(have, q.NeedLink) // its interface is made anew
	}
	return n.allocation(have), nil
}

// take gives the waiter stock of an ENI, or has it wait for some.
func (n *Node) take(ctx context.Context, w *waiter, q attachment.Query) (Allocation, error) {
	h := w.hold
	n.mu.Lock()
	p, err := n.choose(w, q)
	if err == nil {
		err = n.enlist(p, w, q)
	}
	if err != nil {
		n.mu.Unlock()
		return Allocation{}, err
	}
	if have := n.holds[h.Key]; have != nil && have.state == ownership.Held { // a concurrent ADD of the same key won
		defer n.mu.Unlock()
		return n.again(have, h.Attachment, q)
	} else if have != nil && have.state == ownership.Lost {
		if err = n.release(have, "its pod asks anew"); err != nil {
			n.mu.Unlock()
			return Allocation{}, &Refusal{NotReady, err.Error()}
		}
	}
	h.link = p.hangsOn(q)
	for _, old := range n.cooling(h.Attachment) {
		if old.eni == p.id && w.satisfiedBy(old.addrs) {
			defer n.mu.Unlock()
			return n.rehold(p, old, h)
		}
	}
	w.since = time.Now()
	p.waiters = append(p.waiters, w)
	p.serve()
	p.refuse()
	p.hurry(w)
	n.mu.Unlock()
	p.poke()
	return n.wait(ctx, p, w)
}

// satisfiedBy reports whether the addresses are what the waiter asks for.
func (w *waiter) satisfiedBy(addrs []netip.Addr) bool {
	if len(w.exact) > 0 {
		return len(addrs) == len(w.exact) && !slices.ContainsFunc(w.exact, func(a netip.Addr) bool { return !slices.Contains(addrs, a) })
	}
	return len(addrs) == len(w.classes) && !slices.ContainsFunc(w.classes, func(c *class) bool {
		return !slices.ContainsFunc(addrs, func(a netip.Addr) bool {
			e := c.p.units[single(a)]
			return e != nil && c.serves(single(a), e)
		})
	})
}

// wait is the ADD that found no stock: the ENI's worker grants the hold, or says why it cannot.
func (n *Node) wait(ctx context.Context, p *iface, w *waiter) (Allocation, error) {
	var err error
	select {
	case err = <-w.done:
	case <-ctx.Done():
		n.mu.Lock()
		p.leave(w)
		late := p.tooLate(w)
		n.mu.Unlock()
		select {
		case err = <-w.done: // granted or refused in the very moment
		default:
			return Allocation{}, late
		}
	}
	if err != nil {
		return Allocation{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	have := n.holds[w.hold.Key]
	if have == nil || have.state != ownership.Held && have.state != ownership.Guest {
		return Allocation{}, &Refusal{NotReady, fmt.Sprintf("attachment %s was deleted while its ADD waited", w.hold.Key)}
	}
	return n.allocation(have), nil
}

// tooLate words why a waiter got nothing in time.
func (p *iface) tooLate(w *waiter) error {
	for _, c := range w.classes {
		if free, _ := c.stock(); free == 0 && c.limit() != nil {
			return &Refusal{c.limit().reason, c.limit().text}
		}
	}
	if w.why != "" {
		return &Refusal{Exhausted, w.why}
	}
	return &Refusal{NotReady, fmt.Sprintf(
		"%s: EC2 has not confirmed an address within %s; it is still being asked, so try again", p, time.Since(w.since).Round(100*time.Millisecond))}
}

func (p *iface) leave(w *waiter) {
	p.waiters = slices.DeleteFunc(p.waiters, func(x *waiter) bool { return x == w })
}

// dismiss refuses all who wait. The caller holds n.mu.
func (p *iface) dismiss(r Refusal) {
	for _, w := range p.waiters {
		w.done <- &r
	}
	p.waiters = nil
}

// grant records the hold and gives it the addresses, which are free. On a ledger that cannot be written they stay
// free: an allocation that a restart would forget is none. The caller holds n.mu.
func (n *Node) grant(p *iface, w *waiter, got []pick) error {
	h, event := w.hold, ownership.Hold
	h.eni, h.addrs, h.state, h.uptime = p.id, nil, ownership.Held, n.cfg.Uptime()
	if w.claim.guest {
		event, h.state = ownership.Register, ownership.Guest
	}
	for _, g := range got {
		h.addrs = append(h.addrs, g.addr)
	}
	if err := n.enter(h); err != nil {
		return err
	}
	for _, g := range got {
		if g.via.IsValid() {
			p.units[single(g.addr)] = &entry{state: ownership.Free, since: time.Now(), source: attachment.SourcePrefix, via: g.via}
		}
		if event == ownership.Hold && p.state(single(g.addr)) == ownership.Foreign {
			p.apply(single(g.addr), ownership.Adopt)
			p.units[single(g.addr)].source = w.claim.source
		}
		p.apply(single(g.addr), event)
		e := p.units[single(g.addr)]
		e.key, e.source = h.Key, cmp.Or(e.source, w.claim.source)
		n.moved = n.moved || h.claimed
	}
	n.log.Info("address "+h.state.String(), "ips", h.addrs, "eni", p.id, "containerID", h.ContainerID, "ifName", h.IfName, "network", h.Network,
		"pod", h.Pod.Namespace+"/"+h.Pod.Name, "netnsVisible", h.visible)
	return nil
}

// enter records a new hold and files it under its key. What cools under that key goes on cooling under a name of its
// own: else nothing would end its cooldown. The caller holds n.mu.
func (n *Node) enter(h *hold, with ...Record) error {
	recs := append([]Record{h.record()}, with...)
	var moved *hold
	if old := n.holds[h.Key]; old != nil && old.state == ownership.Cooling {
		aside := *old
		aside.ContainerID += "~" + old.addrs[0].String()
		moved = &aside
		recs = append(recs, moved.record())
	}
	if err := n.ports.Ledger.Put(recs...); err != nil {
		return &Refusal{NotReady, fmt.Sprintf("cannot record the allocation of %v: %v; free space in the agent's state directory", h.addrs, err)}
	}
	n.holds[h.Key] = h
	poke(n.watch)
	if moved == nil {
		return nil
	}
	n.holds[moved.Key] = moved
	if p := n.ifaces[moved.eni]; p != nil {
		for _, a := range moved.addrs {
			if e := p.units[single(a)]; e != nil {
				e.key = moved.Key
			}
		}
	}
	return nil
}

// cooling lists the holds that the same pod, interface and network gave back, that of the very sandbox first. The caller
// holds n.mu.
func (n *Node) cooling(a attachment.Attachment) []*hold {
	var found []*hold
	for _, h := range n.holds {
		if h.state == ownership.Cooling && h.IfName == a.IfName && identity(h.Attachment) == identity(a) {
			found = append(found, h)
		}
	}
	slices.SortFunc(found, func(x, y *hold) int {
		if own := (y.Key == a.Key) != (x.Key == a.Key); own && x.Key == a.Key {
			return -1
		} else if own {
			return 1
		}
		return y.deadline.Compare(x.deadline)
	})
	return found
}

// identity is what stays the same when a sandbox is made again. Outside Kubernetes only the container is known.
func identity(a attachment.Attachment) attachment.Attachment {
	id := attachment.Attachment{Key: attachment.Key{IfName: a.IfName}, Network: a.Network, Pod: a.Pod}
	if a.Pod == (attachment.Pod{}) {
		id.ContainerID = a.ContainerID
	}
	return id
}

// rehold gives a pod its cooling addresses back under its new attachment. The caller holds n.mu.
func (n *Node) rehold(p *iface, old, h *hold) (Allocation, error) {
	h.eni, h.addrs, h.state, h.uptime, h.again = old.eni, old.addrs, ownership.Held, n.cfg.Uptime(), true
	delete(n.holds, old.Key)
	var with []Record
	if old.Key != h.Key {
		with = append(with, Record{Key: holdKey(old.Key)})
	}
	if err := n.enter(h, with...); err != nil {
		n.holds[old.Key] = old
		return Allocation{}, err
	}
	for _, a := range h.addrs {
		p.apply(single(a), ownership.Rehold)
		p.units[single(a)].key = h.Key
	}
	n.log.Info("address held again", "ips", h.addrs, "eni", p.id, "containerID", h.ContainerID, "ifName", h.IfName)
	return n.allocation(h), nil
}

// pick is an address to hand out, and the delegated prefix that it lies in, if any.
type pick struct {
	addr netip.Addr
	via  unit
}

// serve gives free addresses to those who wait, first come first served among those who want the same. The caller holds
// n.mu.
func (p *iface) serve() {
	var stay []*waiter
	for _, w := range p.waiters {
		if have := p.n.holds[w.hold.Key]; have != nil && (have.state == ownership.Held || have.state == ownership.Guest) && !w.renew {
			w.done <- w.granted(have) // a concurrent call of the same key was: both get the same
			continue
		}
		got, ok := p.picks(w)
		if !ok {
			stay = append(stay, w)
			continue
		}
		w.done <- p.n.grant(p, w, got)
	}
	p.waiters = stay
	for _, c := range p.classes {
		if free, _ := c.stock(); free > 0 {
			c.failure = nil
		}
	}
}

// granted says what the hold that another call of the same key got means for the waiter.
func (w *waiter) granted(have *hold) error {
	if w.claim.guest && !w.satisfiedBy(have.addrs) {
		return refuseOther(have)
	}
	return nil
}

// picks finds all that the waiter wants, or says that something is missing.
func (p *iface) picks(w *waiter) ([]pick, bool) {
	var got []pick
	if w.renew { // EC2 is asked first
		return nil, false
	}
	for _, a := range w.exact {
		u := single(a)
		via, delegated := p.prefixAround(a)
		switch {
		case p.state(u) == ownership.Free && p.units[u] != nil:
			got = append(got, pick{addr: a})
		case w.claim.guest && (p.state(u) == ownership.Foreign || p.state(u) == ownership.Unassigning && p.units[u].unsent):
			got = append(got, pick{addr: a}) // on the ENI already
		case w.hold.sticky && p.state(u) == ownership.Foreign:
			got = append(got, pick{addr: a}) // likewise: a StatefulSet has one such pod, and this is it
		case delegated && p.units[u] == nil:
			got = append(got, pick{a, via})
		default:
			return nil, false
		}
	}
	for _, c := range w.classes {
		a, via, ok := c.pick()
		if !ok {
			return nil, false
		}
		got = append(got, pick{a, via})
	}
	return got, true
}

// prefixAround is the delegated prefix on the ENI that contains the address.
func (p *iface) prefixAround(a netip.Addr) (unit, bool) {
	for u, e := range p.units {
		if !u.IsSingleIP() && e.state == ownership.Free && u.Contains(a) {
			return u, true
		}
	}
	return unit{}, false
}

// wanted reports whether somebody waits for this very address.
func (p *iface) wanted(a netip.Addr) bool {
	return slices.ContainsFunc(p.waiters, func(w *waiter) bool { return slices.Contains(w.exact, a) })
}

// hopeless reports whether waiting for an address of the class is of no use: a limit was met a moment ago, and nothing
// that is under way or cooling could lift it in a waiter's time.
func (c *class) hopeless() bool {
	p := c.p
	if f := c.limit(); f == nil || !f.final || !f.fresh() {
		return false
	}
	if free, coming := c.stock(); free+coming > 0 || p.count(ownership.Unassigning) > 0 || p.pendingUnknown() > 0 {
		return false
	}
	for _, h := range p.n.holds {
		if h.eni == p.id && h.state == ownership.Cooling && time.Until(h.deadline) < p.n.cfg.MaxWait &&
			slices.ContainsFunc(h.addrs, func(a netip.Addr) bool { return a.Is6() == c.V6 }) {
			return false
		}
	}
	return true
}

// refuse tells those who wait that waiting is of no use, if it is. The caller holds n.mu.
func (p *iface) refuse() {
	p.waiters = slices.DeleteFunc(p.waiters, func(w *waiter) bool {
		for _, c := range w.classes {
			if c.hopeless() {
				w.done <- &Refusal{c.failure.reason, c.failure.text}
				return true
			}
		}
		return false
	})
}

// allocation is an answer that gives out a hold. The caller holds n.mu.
func (n *Node) allocation(h *hold) Allocation {
	h.told++
	got := n.ifaces[h.eni].placed(h)
	got.hold = h
	return got
}

// placed is where a hold is.
func (p *iface) placed(h *hold) Allocation {
	got := Allocation{ENI: p.eni, Subnet: p.subnet, Link: p.link}
	for _, a := range h.addrs {
		got.Addresses = append(got.Addresses, netip.PrefixFrom(a, p.subnetAround(a).Bits()))
	}
	return got
}

// subnetAround is the subnet's CIDR of the address's family.
func (p *iface) subnetAround(a netip.Addr) netip.Prefix {
	for _, s := range append([]netip.Prefix{p.subnet.IPv4}, p.subnet.IPv6...) {
		if s.Contains(a) {
			return s
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// Undelivered says that an answer of [Node.Add] or [Node.Register] could not be delivered. When no other answer gave the
// same addresses out, nobody knows of them: they are free at once, unless they came out of a cooldown, which they then go
// through again.
func (n *Node) Undelivered(key attachment.Key, got Allocation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.holds[key]
	if h == nil || h != got.hold {
		return // deleted meanwhile, and perhaps added anew
	}
	if h.told--; h.told > 0 || h.state != ownership.Held && h.state != ownership.Guest {
		return
	}
	p := n.ifaces[h.eni]
	if h.again || p == nil || h.state == ownership.Guest {
		if err := n.release(h, "the answer could not be delivered"); err != nil {
			n.log.Error("cannot record that an allocation was not delivered; it stays until its namespace goes", "error", err)
		}
		return
	}
	if err := n.ports.Ledger.Put(Record{Key: holdKey(key)}); err != nil {
		n.log.Error("cannot record that an allocation was not delivered; it stays held until its namespace goes", "error", err)
		return
	}
	delete(n.holds, key)
	for _, a := range h.addrs {
		p.apply(single(a), ownership.Undelivered)
	}
	n.log.Info("answer not delivered, address free again", "ips", h.addrs, "eni", h.eni, "containerID", key.ContainerID)
	p.serve()
}

// awaitReady waits until boot is done.
func (n *Node) awaitReady(ctx context.Context) error {
	select {
	case <-n.ready:
		return nil
	default:
	}
	select {
	case <-n.ready:
		return nil
	case <-ctx.Done():
		n.mu.Lock()
		defer n.mu.Unlock()
		return &Refusal{NotReady, fmt.Sprintf("the node agent is not ready: %s; it goes on trying, see its log", n.notReady)}
	}
}
