// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// boot learns the worker's ENIs, retrying until it does. It only reads. False when ctx ended first.
func (n *Node) boot(ctx context.Context) bool {
	for attempt := 0; ; attempt++ {
		err := n.tryBoot(ctx)
		if err == nil {
			n.log.Info("ready", "instance", n.instance.ID, "type", n.instance.Type)
			return true
		}
		n.mu.Lock()
		n.notReady = err.Error()
		n.mu.Unlock()
		if ctx.Err() == nil {
			n.log.Warn("not ready", "error", err)
		}
		if !sleep(ctx, rand.N(min(backoffBase<<min(attempt, 7), backoffCap))) {
			return false
		}
	}
}

func (n *Node) tryBoot(ctx context.Context) error {
	if err := n.readLimits(ctx); err != nil {
		return err
	}
	began := time.Now()
	ifs, err := n.ports.EC2.InterfacesOf(ctx, n.instance.ID)
	if err != nil {
		return fmt.Errorf("read the worker's ENIs: %w", err)
	}
	if len(ifs) == 0 {
		return fmt.Errorf("EC2 shows no ENI on %s yet: %w", n.instance.ID, eni.ErrNotFound)
	}
	found, err := n.ports.Namespaces.Scan()
	if err != nil {
		return fmt.Errorf("look into the network namespaces: %w", err)
	}
	n.mu.Lock()
	n.settleDoubles(found)
	n.mu.Unlock()
	if err := n.meet(ctx, ifs); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.described = began
	n.file(ifs, began)
	n.recognise(found)
	n.judgeModes(found)
	close(n.ready)
	for _, p := range n.ifaces {
		n.spawn(p)
	}
	return nil
}

// readLimits reads what the instance type allows, once: that never changes, and a boot that is throttled later must not
// ask again.
func (n *Node) readLimits(ctx context.Context) error {
	n.mu.Lock()
	known := n.limits != eni.Limits{}
	n.mu.Unlock()
	if known {
		return nil
	}
	limits, err := n.ports.EC2.Limits(ctx, n.instance.Type)
	if err != nil {
		return fmt.Errorf("read the limits of %s: %w", n.instance.Type, err)
	}
	n.mu.Lock()
	n.limits = limits
	n.mu.Unlock()
	return nil
}

// install adds an ENI with what the ledger said of it. The caller holds n.mu.
func (n *Node) install(p *iface) {
	now := time.Now()
	for u, e := range n.ours[p.id] {
		p.units[u] = &entry{state: e.state, since: now, written: now, source: e.source, doubted: e.doubted}
	}
	for _, h := range n.holds {
		if h.eni == p.id {
			p.installHold(h, now)
		}
	}
	delete(n.ours, p.id)
	for _, k := range n.wasActive[p.id] {
		p.class(k)
	}
	if slices.Contains(n.cfg.ActiveSubnets, p.subnet.ID) {
		p.class(kind{Source: attachment.SourceReservation})
	}
	n.ifaces[p.id] = p
	n.log.Info("ENI", "eni", p.id, "card", p.eni.NetworkCard, "index", p.eni.DeviceIndex, "subnet", p.subnet.ID, "active", len(p.classes) > 0)
	select {
	case <-n.ready: // attached while running
		n.spawn(p)
	default:
	}
}

// installHold gives a hold's addresses their entries: an address without a record of its own is of a delegated prefix.
func (p *iface) installHold(h *hold, now time.Time) {
	for _, a := range h.addrs {
		e := &entry{state: h.state, since: now, written: now, key: h.Key}
		if h.claimed {
			e.source = sourceNamed
		}
		if was := p.units[single(a)]; was != nil {
			e.source = was.source
		} else {
			for u := range p.n.ours[p.id] {
				if !u.IsSingleIP() && u.Contains(a) {
					e.source, e.via = attachment.SourcePrefix, u
				}
			}
		}
		p.units[single(a)] = e
	}
}

// activateByRole makes an ENI active whose subnet has a reservation for the pool: the tag is the invitation, to addresses
// of the reservation's family.
func (p *iface) activateByRole() {
	if ok, _ := p.managed(); !ok {
		return
	}
	for _, v6 := range []bool{false, true} {
		invited := slices.ContainsFunc(p.reservations, func(r eni.Reservation) bool {
			return r.Role() == eni.RolePool && r.Type == eni.Explicit && r.CIDR.Addr().Is6() == v6
		})
		active := false
		for _, c := range p.classes {
			active = active || c.V6 == v6
		}
		if invited && !active {
			c := p.class(kind{V6: v6, Source: attachment.SourceReservation})
			p.n.log.Info("ENI active by its reservation's tag", "eni", p.id, "class", c.String())
		}
	}
}

// recognise makes holds of addresses that a visible namespace carries though no hold says so: the ledger was lost or
// is damaged, and a namespace that carries an address always wins. The caller holds n.mu.
func (n *Node) recognise(found []Found) {
	for _, f := range found {
		for _, addr := range f.Addrs {
			for _, p := range n.ifaces {
				switch _, delegated := p.prefixAround(addr); p.state(single(addr)) {
				case ownership.Free:
				case ownership.Unknown:
					if p.units[single(addr)].seen.IsZero() { // not known to be on the ENI
						p.carried[single(addr)] = f.Netns
						continue
					}
				case ownership.Foreign:
					if !p.feeds(addr) {
						continue
					}
				case ownership.None:
					if !delegated {
						if p.doubtfulPrefix(addr) {
							p.carried[single(addr)] = f.Netns
						}
						continue
					}
				default:
					continue
				}
				n.adoptHeld(p, addr, f.Netns)
			}
		}
	}
}

// doubtfulPrefix reports whether the address is of a prefix that may yet turn out to be ours.
func (p *iface) doubtfulPrefix(a netip.Addr) bool {
	for u, e := range p.units {
		if !u.IsSingleIP() && e.state == ownership.Unknown && u.Contains(a) {
			return true
		}
	}
	return false
}

// foundHold is the hold of whoever lives in the namespace.
func (n *Node) foundHold(id eni.ID, addr netip.Addr, ns attachment.Netns) *hold {
	return &hold{
		Attachment: attachment.Attachment{
			Key:   attachment.Key{ContainerID: netnsName(ns), IfName: addr.String()},
			Netns: ns,
		},
		eni: id, addrs: []netip.Addr{addr}, state: ownership.Held, uptime: n.cfg.Uptime(), visible: true, told: 1,
	}
}

// adoptHeld records a hold for whoever lives in the namespace.
func (n *Node) adoptHeld(p *iface, addr netip.Addr, ns attachment.Netns) {
	if p.claimedIn(addr, ns) {
		return // whoever lives there gets it as what was asked for
	}
	h := n.foundHold(p.id, addr, ns)
	u := single(addr)
	if via, delegated := p.prefixAround(addr); delegated && p.units[u] == nil {
		p.units[u] = &entry{state: ownership.Free, since: time.Now(), source: attachment.SourcePrefix, via: via}
	}
	p.apply(u, ownership.Carried)
	p.units[u].key = h.Key
	p.units[u].source = cmp.Or(p.units[u].source, attachment.SourceReservation)
	n.holds[h.Key] = h
	if err := n.ports.Ledger.Put(p.unitRecord(u), h.record()); err != nil {
		n.log.Error("cannot record a hold that was found", "error", err)
	}
	n.log.Warn("address found in a network namespace, held for it", "ip", addr, "eni", p.id, "netns", ns.Path)
}

// feeds reports whether the address would be stock of one of the ENI's classes.
func (p *iface) feeds(a netip.Addr) bool {
	for _, c := range p.classes {
		if c.feeds(a) {
			return true
		}
	}
	return false
}

// judgeModes notes links that carry ipvlan children in another mode than ours. The caller holds n.mu.
func (n *Node) judgeModes(found []Found) {
	for _, p := range n.ifaces {
		p.foreignMode = ""
		for _, f := range found {
			if m := f.Modes[p.link.Index]; p.link.Index != 0 && m != "" && m != "l2" {
				p.foreignMode = m
			}
		}
	}
}
