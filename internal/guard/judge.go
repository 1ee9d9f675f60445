// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// judge says of each address why the caller may not claim it, nil when it may.
func (g *Guard) judge(ctx context.Context, who claimant, addrs, given, claimed []netip.Addr) map[netip.Addr]error {
	verdicts := map[netip.Addr]error{}
	var carriers map[netip.Addr][]attachment.Netns
	var err error
	fixed := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return within(g.cfg.Floating, a) })
	if len(fixed) > 0 { // to look into every namespace takes its time, which a failover has not
		carriers, err = g.ports.Namespaces.Carriers(fixed)
	}
	if err != nil {
		err = fmt.Errorf("see whether another pod of this worker carries it: %w", err)
	}
	for _, a := range addrs {
		if _, judged := verdicts[a]; judged {
			continue
		}
		verdicts[a] = errors.Join(g.allowed(who, a, slices.Contains(given, a)), err)
		if verdicts[a] != nil || slices.Contains(given, a) || slices.Contains(claimed, a) {
			continue // what it has stays its own, whoever else carries it now
		}
		if !within(g.cfg.Floating, a) {
			verdicts[a] = g.undisputed(ctx, who, a, carriers[a])
		}
		if verdicts[a] != nil {
			continue
		}
		if len(claimed) >= MaxAddresses {
			verdicts[a] = full(claimed, who.seen.All)
			continue
		}
		claimed = append(slices.Clip(claimed), a)
	}
	return verdicts
}

// full says that a network namespace has claimed as much as it may. What it does not carry any more it is about to give back: a pod
// whose addresses change tells so by two requests, which may come in any order.
func full(claimed, carried []netip.Addr) error {
	for _, c := range claimed {
		if !slices.Contains(carried, c) {
			return fmt.Errorf("this network namespace has claimed %d addresses, and has yet to give back %s", len(claimed), c)
		}
	}
	return fmt.Errorf("%w: this network namespace has claimed %d addresses, and may not claim more", ErrRefused, len(claimed))
}

// allowed is about the caller, its ENI and the configuration alone.
func (g *Guard) allowed(who claimant, a netip.Addr, given bool) error {
	subnet, in := subnetOf(who.eni.Subnet, a)
	switch {
	case !slices.Contains(who.seen.Addrs, a):
		return fmt.Errorf("%s does not carry %s", who.word.IfName, a) // any more, when it flaps
	case !in:
		return fmt.Errorf("%w: %s is not in subnet %s of %s: give the pod an address of the ENI's subnet", ErrRefused, a, who.eni.Subnet.ID, who.eni.ID)
	case eni.ReservedByVPC(subnet, a):
		return fmt.Errorf("%w: %s is one of the addresses of subnet %s that the VPC keeps for itself", ErrRefused, a, who.eni.Subnet.ID)
	case a == who.eni.Primary:
		return fmt.Errorf("%w: %s is the primary address of %s, the worker's own: keep it out of the pods' range", ErrRefused, a, who.eni.ID)
	case given || within(g.cfg.Ranges, a) || within(g.cfg.Floating, a) && !who.eni.Stock(a):
		return nil
	case within(g.cfg.Floating, a):
		return fmt.Errorf("%w: floating %s is of a range that vpcipam gives out: tag its reservation %s=%s", ErrRefused, a, eni.TagRole, eni.RoleStatic)
	case len(g.cfg.Ranges) > 0:
		return fmt.Errorf("%w: %s is not in the agent's sync.ranges %v: widen them, or give the pod another address", ErrRefused, a, g.cfg.Ranges)
	case who.eni.Stock(a):
		return fmt.Errorf("%w: %s is of a range that vpcipam gives out: keep it out of the other IPAM's range, or tag the reservation %s=%s", ErrRefused, a, eni.TagRole, eni.RoleStatic)
	}
	return nil
}

func subnetOf(s eni.Subnet, a netip.Addr) (netip.Prefix, bool) {
	for _, p := range append([]netip.Prefix{s.IPv4}, s.IPv6...) {
		if p.IsValid() && p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// undisputed demands that no other pod carries the address, or that Multus gave it to this one: else a pod that is root in its network
// namespace could keep others from theirs.
func (g *Guard) undisputed(ctx context.Context, who claimant, a netip.Addr, carriers []attachment.Netns) error {
	disputed := alone(who, a, carriers)
	if disputed == nil || g.ports.Pods == nil {
		return disputed
	}
	vouched, err := g.vouched(ctx, who, []netip.Addr{a})
	if err != nil {
		return errors.Join(disputed, err)
	}
	if len(vouched) == 0 {
		return disputed
	}
	return nil
}

// alone demands that no other network namespace carries the address. The other one may be on its way out.
func alone(who claimant, a netip.Addr, carriers []attachment.Netns) error {
	for _, n := range carriers {
		if !n.Same(who.word.Netns) {
			return fmt.Errorf("another pod of this worker carries %s, in the network namespace %s", a, n.Path)
		}
	}
	return nil
}

// vouched are those of the addresses that Multus gave the very pod that claims them.
func (g *Guard) vouched(ctx context.Context, who claimant, addrs []netip.Addr) (vouched []netip.Addr, err error) {
	if len(addrs) == 0 || g.ports.Pods == nil {
		return nil, nil
	}
	pods, err := g.ports.Pods.Networks(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the Kubernetes API what Multus gave this pod: %w", err)
	}
	for _, a := range addrs {
		if slices.ContainsFunc(pods, func(p PodNetworks) bool { return slices.Contains(p.Addrs[who.word.IfName], a) && g.isThe(p, who) }) {
			vouched = append(vouched, a)
		}
	}
	return vouched, nil
}

// isThe reports whether the caller is that pod: it carries the pod's first interface's addresses, and no other namespace of the
// worker does, so that it did not put them there itself while the pod lives.
func (g *Guard) isThe(p PodNetworks, who claimant) bool {
	carriers, err := g.ports.Namespaces.Carriers(p.Default)
	if err != nil {
		g.cfg.Log.Warn("network namespaces not read", "error", err)
		return false
	}
	for _, a := range p.Default {
		if !slices.Contains(who.seen.All, a) || alone(who, a, carriers[a]) != nil {
			return false
		}
	}
	return true
}
