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
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Allocation is what an attachment got.
type Allocation struct {
	ENI       eni.Interface
	Subnet    eni.Subnet
	Link      attachment.Link // zero when the host has no link for the ENI
	Addresses []netip.Prefix  // with the subnet's prefix length
	// Fresh is true when this call took the addresses, so that [Node.Undelivered] may give them back.
	Fresh bool
	// Again is true when the attachment's pod had them before and got them back out of the cooldown.
	Again bool
}

// Add gives the attachment addresses. It is idempotent: an attachment that already holds some gets the same ones. With
// stock it returns at once; without, it waits for EC2 up to Config.MaxWait or the end of ctx, whichever is first, and
// then says in a [*Refusal] which limit it met.
func (n *Node) Add(ctx context.Context, a attachment.Attachment, q attachment.Query) (Allocation, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.MaxWait)
	defer cancel()
	if err := n.buried(a.Key); err != nil {
		return Allocation{}, err
	}
	if err := n.awaitReady(ctx); err != nil {
		return Allocation{}, err
	}
	h := &hold{Attachment: a, visible: n.ports.Namespaces.Look(a.Netns) == Alive}

	n.mu.Lock()
	if have := n.holds[a.Key]; have != nil && have.state == ownership.Held {
		defer n.mu.Unlock()
		return n.again(have, a)
	}
	n.mu.Unlock()
	p, err := n.place(ctx, h, q)
	if err != nil {
		return Allocation{}, err
	}
	if err := n.bringUp(p); err != nil {
		return Allocation{}, err
	}
	return n.take(ctx, p, h)
}

// again answers a repeated ADD. The caller holds n.mu.
func (n *Node) again(have *hold, a attachment.Attachment) (Allocation, error) {
	if have.Netns != (attachment.Netns{}) && !have.Netns.Same(a.Netns) || have.Network != a.Network {
		return Allocation{}, &Refusal{Invalid, fmt.Sprintf(
			"attachment %s already holds %v for network %q in another network namespace (%s); the runtime must DEL it first",
			a.Key, have.addrs, have.Network, have.Netns.Path)}
	}
	if n.ifaces[have.eni] == nil {
		return Allocation{}, &Refusal{Invalid, fmt.Sprintf(
			"attachment %s holds %v on %s, which is not attached to the worker; the runtime must DEL it first", a.Key, have.addrs, have.eni)}
	}
	return n.allocation(have), nil
}

// take gives h stock of p, or waits for some.
func (n *Node) take(ctx context.Context, p *iface, h *hold) (Allocation, error) {
	n.mu.Lock()
	if have := n.holds[h.Key]; have != nil && have.state == ownership.Held { // a concurrent ADD of the same key won
		defer n.mu.Unlock()
		return n.again(have, h.Attachment)
	} else if have != nil && have.state == ownership.Lost {
		if err := n.release(have, "its pod asks anew"); err != nil {
			n.mu.Unlock()
			return Allocation{}, &Refusal{NotReady, err.Error()}
		}
	}
	if old := n.cooling(h.Attachment); old != nil && old.eni == p.id {
		defer n.mu.Unlock()
		return n.rehold(p, old, h)
	}
	if addr, ok := p.oldestFree(); ok && len(p.waiters) == 0 {
		defer n.mu.Unlock()
		defer poke(p.wake)
		if err := n.grant(p, h, addr); err != nil {
			return Allocation{}, err
		}
		got := n.allocation(h)
		got.Fresh = true
		return got, nil
	}
	w := &waiter{hold: h, done: make(chan error, 1)}
	p.waiters = append(p.waiters, w)
	p.refuse()
	n.mu.Unlock()
	poke(p.wake)
	return n.wait(ctx, p, w)
}

// wait is the ADD that found no stock: the ENI's worker grants the hold, or says why it cannot.
func (n *Node) wait(ctx context.Context, p *iface, w *waiter) (Allocation, error) {
	var err error
	select {
	case err = <-w.done:
	case <-ctx.Done():
		n.mu.Lock()
		p.leave(w)
		late := p.tooLate()
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
	if have == nil || have.state != ownership.Held {
		return Allocation{}, &Refusal{NotReady, fmt.Sprintf("attachment %s was deleted while its ADD waited", w.hold.Key)}
	}
	got := n.allocation(have)
	got.Fresh = true
	return got, nil
}

// tooLate words why a waiter got nothing in time.
func (p *iface) tooLate() error {
	if p.failure != nil {
		return &Refusal{p.failure.reason, p.failure.text}
	}
	return &Refusal{NotReady, fmt.Sprintf(
		"%s: EC2 has not confirmed an address within %s; it is still being asked, so try again", p, p.n.cfg.MaxWait)}
}

func (p *iface) leave(w *waiter) {
	p.waiters = slices.DeleteFunc(p.waiters, func(x *waiter) bool { return x == w })
}

// grant records the hold and gives it addr, which is free. On a ledger that cannot be written the address stays free:
// an allocation that a restart would forget is none. The caller holds n.mu.
func (n *Node) grant(p *iface, h *hold, addr netip.Addr) error {
	h.eni, h.addrs, h.state, h.uptime = p.id, []netip.Addr{addr}, ownership.Held, n.cfg.Uptime()
	recs := []Record{h.record()}
	var moved *hold
	if old := n.holds[h.Key]; old != nil && old.state == ownership.Cooling {
		// The key's own record is overwritten, so what cooled under it goes on cooling under a name of its own.
		aside := *old
		aside.ContainerID += "~" + old.addrs[0].String()
		moved = &aside
		recs = append(recs, moved.record())
	}
	if err := n.ports.Ledger.Put(recs...); err != nil {
		return &Refusal{NotReady, fmt.Sprintf("cannot record the allocation of %s: %v; free space in the agent's state directory", addr, err)}
	}
	if moved != nil {
		n.holds[moved.Key] = moved
	}
	p.apply(addr, ownership.Hold)
	p.addrs[addr].key = h.Key
	n.holds[h.Key] = h
	n.log.Info("address held", "ip", addr, "eni", p.id, "containerID", h.ContainerID, "ifName", h.IfName, "network", h.Network,
		"pod", h.Pod.Namespace+"/"+h.Pod.Name, "netnsVisible", h.visible)
	return nil
}

// cooling finds the hold that the same pod, interface and network gave back. The caller holds n.mu.
func (n *Node) cooling(a attachment.Attachment) *hold {
	for _, h := range n.holds {
		if h.state == ownership.Cooling && identity(h.Attachment) == identity(a) {
			return h
		}
	}
	return nil
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
	h.eni, h.addrs, h.state, h.uptime = old.eni, old.addrs, ownership.Held, n.cfg.Uptime()
	recs := []Record{h.record()}
	if old.Key != h.Key {
		recs = append(recs, Record{Key: holdKey(old.Key)})
	}
	if err := n.ports.Ledger.Put(recs...); err != nil {
		return Allocation{}, &Refusal{NotReady, fmt.Sprintf("cannot record the allocation of %v: %v; free space in the agent's state directory", h.addrs, err)}
	}
	delete(n.holds, old.Key)
	n.holds[h.Key] = h
	for _, a := range h.addrs {
		p.apply(a, ownership.Rehold)
		p.addrs[a].key = h.Key
	}
	n.log.Info("address held again", "ips", h.addrs, "eni", p.id, "containerID", h.ContainerID, "ifName", h.IfName)
	got := n.allocation(h)
	got.Fresh, got.Again = true, true
	return got, nil
}

// oldestFree is the stock that has been free the longest.
func (p *iface) oldestFree() (netip.Addr, bool) {
	var best netip.Addr
	for addr, a := range p.addrs {
		if a.state != ownership.Free {
			continue
		}
		if b := p.addrs[best]; b == nil || a.since.Before(b.since) || a.since.Equal(b.since) && addr.Less(best) {
			best = addr
		}
	}
	return best, best.IsValid()
}

// serve gives free addresses to those who wait, first come first served. The caller holds n.mu.
func (p *iface) serve() {
	for len(p.waiters) > 0 {
		w := p.waiters[0]
		if have := p.n.holds[w.hold.Key]; have != nil && have.state == ownership.Held {
			p.waiters = p.waiters[1:]
			w.done <- nil // a concurrent ADD of the same key was granted: both get the same
			continue
		}
		addr, ok := p.oldestFree()
		if !ok {
			return
		}
		p.waiters = p.waiters[1:]
		w.done <- p.n.grant(p, w.hold, addr)
	}
	if p.count(ownership.Free) > 0 {
		p.failure = nil
	}
}

// hopeless reports whether waiting on this ENI is of no use: a limit was met a moment ago, and nothing that is under
// way or cooling could lift it in a waiter's time.
func (p *iface) hopeless() bool {
	if p.failure == nil || !p.failure.final || time.Since(p.failure.at) > fullPause {
		return false
	}
	if p.count(ownership.Free, ownership.Assigning, ownership.Unassigning) > 0 || p.pendingUnknown() > 0 {
		return false
	}
	for _, h := range p.n.holds {
		if h.eni == p.id && h.state == ownership.Cooling && time.Until(h.deadline) < p.n.cfg.MaxWait {
			return false
		}
	}
	return true
}

// refuse tells those who wait that waiting is of no use, if it is. The caller holds n.mu.
func (p *iface) refuse() {
	if !p.hopeless() {
		return
	}
	for _, w := range p.waiters {
		w.done <- &Refusal{p.failure.reason, p.failure.text}
	}
	p.waiters = nil
}

// allocation words a hold. The caller holds n.mu.
func (n *Node) allocation(h *hold) Allocation {
	p := n.ifaces[h.eni]
	got := Allocation{ENI: p.eni, Subnet: p.subnet, Link: p.link}
	for _, a := range h.addrs {
		got.Addresses = append(got.Addresses, netip.PrefixFrom(a, p.subnet.IPv4.Bits()))
	}
	return got
}

// Undelivered takes back what a call of [Node.Add] gave when its answer could not be delivered: nobody knows of it, so
// it is free at once, unless it came out of a cooldown, which it then goes through again. An allocation that an
// earlier call had delivered stays.
func (n *Node) Undelivered(key attachment.Key, got Allocation) {
	if !got.Fresh {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.holds[key]
	if h == nil || h.state != ownership.Held {
		return
	}
	p := n.ifaces[h.eni]
	if got.Again || p == nil {
		n.release(h, "the answer could not be delivered")
		return
	}
	if err := n.ports.Ledger.Put(Record{Key: holdKey(key)}); err != nil {
		n.log.Error("cannot record that an allocation was not delivered; it stays held until its namespace goes", "error", err)
		return
	}
	delete(n.holds, key)
	for _, a := range h.addrs {
		p.apply(a, ownership.Undelivered)
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
