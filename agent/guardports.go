// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/guard"
	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/netns"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// The types of this file give pool and hands the shapes that the guard's ports have. They decide nothing.

// caller is who asks on the sync socket.
type caller struct{ agentapi.Caller }

func (c caller) Netns() attachment.Netns { return c.Caller.Netns }

func (c caller) Look(ifName string) (seen guard.Seen, err error) {
	err = c.Enter(func(path string) error {
		seen, err = lookAt(path, ifName)
		return err
	})
	return seen, err
}

func lookAt(path, ifName string) (guard.Seen, error) {
	i, err := netns.ReadInterface(path, ifName)
	return guard.Seen{Link: i.Child.ParentIndex, Kind: i.Kind, Mode: i.Child.Mode, Addrs: i.Addrs, All: i.All}, err
}

// claims is the pool, for the guard.
type claims struct{ node *pool.Node }

func (c claims) ENIs(ctx context.Context) ([]guard.ENI, error) {
	grounds, err := c.node.Grounds(ctx)
	if err != nil {
		return nil, err
	}
	enis := make([]guard.ENI, len(grounds))
	for i, g := range grounds {
		stock := func(a netip.Addr) bool { return c.node.Stocks(g.ENI.ID, a) }
		enis[i] = guard.ENI{Interface: g.ENI, Subnet: g.Subnet, Link: g.Link.Index, Stock: stock}
	}
	return enis, nil
}

func (c claims) Has(n attachment.Netns) (given, claimed []netip.Addr) { return c.node.HeldIn(n) }

func (c claims) Claim(ctx context.Context, who attachment.Claimant, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]guard.Result {
	results := map[netip.Addr]guard.Result{}
	for a, r := range c.node.Claim(ctx, who, addrs, conflict) {
		results[a] = guard.Result{New: r.New, Err: judged(r.Err)}
	}
	return results
}

func (c claims) Yield(ctx context.Context, who attachment.Claimant, addrs []netip.Addr) error {
	return c.node.Yield(ctx, who, addrs)
}

func (c claims) Standing(ctx context.Context, who attachment.Claimant, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	standings, err := c.node.Standing(ctx, who, addrs)
	return standings, judged(err)
}

// judged says in the guard's words what a pool's refusal means for who asks.
func judged(err error) error {
	r, ok := errors.AsType[*pool.Refusal](err)
	switch {
	case ok && r.Reason == pool.Invalid:
		return fmt.Errorf("%w: %w", guard.ErrRefused, err)
	case ok && r.Reason == pool.Taken:
		return fmt.Errorf("%w: %w", guard.ErrContested, err)
	}
	return err
}

func (namespaces) Carriers(addrs []netip.Addr) (map[netip.Addr][]attachment.Netns, error) {
	return netns.Carriers(addrs, netns.Dirs())
}

// networks is the Kubernetes API, for the guard.
type networks struct {
	api  *kube.Client
	node string
}

func (n networks) Networks(ctx context.Context) ([]guard.PodNetworks, error) {
	found, err := n.api.Networks(ctx, n.node)
	all := make([]guard.PodNetworks, len(found))
	for i, f := range found {
		all[i] = guard.PodNetworks(f)
	}
	return all, err
}
