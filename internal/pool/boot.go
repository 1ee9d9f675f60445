// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
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
	limits, err := n.ports.EC2.Limits(ctx, n.instance.Type)
	if err != nil {
		return fmt.Errorf("read the limits of %s: %w", n.instance.Type, err)
	}
	n.mu.Lock()
	n.limits = limits
	n.mu.Unlock()
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

// install adds an ENI with what the ledger said of it. The caller holds n.mu.
func (n *Node) install(p *iface) {
	now := time.Now()
	add := func(addr netip.Addr, s ownership.State, key attachment.Key) {
		p.addrs[addr] = &address{state: s, since: now, written: now, key: key}
	}
	for addr, s := range n.ours[p.id] {
		add(addr, s, attachment.Key{})
	}
	for _, h := range n.holds {
		if h.eni == p.id {
			for _, addr := range h.addrs {
				add(addr, h.state, h.Key)
			}
		}
	}
	delete(n.ours, p.id)
	p.active = n.wasActive[p.id] || slices.Contains(n.cfg.ActiveSubnets, p.subnet.ID)
	n.ifaces[p.id] = p
	n.log.Info("ENI", "eni", p.id, "card", p.eni.NetworkCard, "index", p.eni.DeviceIndex, "subnet", p.subnet.ID, "active", p.active)
	select {
	case <-n.ready: // attached while running
		n.spawn(p)
	default:
	}
}

// activateByRole makes an ENI active whose subnet has a reservation for the pool: the tag is the invitation.
func (p *iface) activateByRole() {
	invited := slices.ContainsFunc(p.reservations, func(r eni.Reservation) bool { return r.Role() == eni.RolePool })
	if ok, _ := p.managed(); ok && invited && !p.active {
		p.active = true
		p.n.log.Info("ENI active by its reservation's tag", "eni", p.id)
	}
}

// recognise makes holds of addresses that a visible namespace carries though no hold says so: the ledger was lost or
// is damaged, and a namespace that carries an address always wins. The caller holds n.mu.
func (n *Node) recognise(found []Found) {
	for _, f := range found {
		for _, addr := range f.Addrs {
			for _, p := range n.ifaces {
				switch p.state(addr) {
				case ownership.Free, ownership.Unknown:
				case ownership.Foreign:
					if !p.active || !p.feeds(addr) {
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

// adoptHeld records a hold for whoever lives in the namespace.
func (n *Node) adoptHeld(p *iface, addr netip.Addr, ns attachment.Netns) {
	h := &hold{
		Attachment: attachment.Attachment{
			Key:   attachment.Key{ContainerID: fmt.Sprintf("netns-%d", max(ns.Cookie, ns.Inode)), IfName: addr.String()},
			Netns: ns,
		},
		eni: p.id, addrs: []netip.Addr{addr}, state: ownership.Held, uptime: n.cfg.Uptime(), visible: true,
	}
	recs := append(addressRecords(p.id, ownership.Held, h.addrs), h.record())
	if err := n.ports.Ledger.Put(recs...); err != nil {
		n.log.Error("cannot record a hold that was found", "error", err)
	}
	p.apply(addr, ownership.Carried)
	p.addrs[addr].key = h.Key
	n.holds[h.Key] = h
	n.log.Warn("address found in a network namespace, held for it", "ip", addr, "eni", p.id, "netns", ns.Path)
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
