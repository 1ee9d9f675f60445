// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Ground is an ENI with what is needed to judge who may have an address on it.
type Ground struct {
	ENI    eni.Interface
	Subnet eni.Subnet
	Link   attachment.Link // the zero value when the host has none
}

// Grounds lists the worker's ENIs, once they are known.
func (n *Node) Grounds(ctx context.Context) ([]Ground, error) {
	if err := n.awaitReady(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []Ground
	for _, p := range n.sorted() {
		if !p.gone {
			all = append(all, Ground{p.eni, p.subnet, p.link})
		}
	}
	return all, nil
}

// Stocks reports whether an address on an ENI is for pods that did not name it: it is part of what feeds a stock that the ENI
// keeps, of a reservation that is tagged for pools, or of a delegated prefix, or EC2 chose it.
func (n *Node) Stocks(id eni.ID, a netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.ifaces[id]
	if p == nil {
		return false
	}
	for _, r := range p.reservations {
		if r.Role() == eni.RolePool && r.CIDR.Contains(a) {
			return true
		}
	}
	if _, delegated := p.prefixAround(a); delegated || p.feeds(a) {
		return true
	}
	e := p.units[single(a)]
	return e != nil && e.state != ownership.Guest && e.source != "" && e.source != sourceNamed
}

// HeldIn lists the addresses that a network namespace has by CNI calls, and those that it claimed.
func (n *Node) HeldIn(ns attachment.Netns) (given, claimed []netip.Addr) {
	for _, h := range n.snapshot(func(h *hold) bool { return h.state != ownership.Cooling && h.Netns.Same(ns) }) {
		if h.claimed {
			claimed = append(claimed, h.addrs...)
		} else if h.state != ownership.Lost {
			given = append(given, h.addrs...)
		}
	}
	return given, claimed
}
