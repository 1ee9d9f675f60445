// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Claim has EC2 know addresses as those of the ENI of the caller's interface, as far as the caller may have them. Whoever asks can
// forbid that they are taken from other ENIs (conflict never), and cannot allow it.
func (g *Guard) Claim(ctx context.Context, c Caller, ifName string, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]Result {
	results := map[netip.Addr]Result{}
	who, err := g.identify(ctx, g.claims, c, ifName, addrs)
	if err != nil {
		return all(results, addrs, err)
	}
	given, claimed := g.ports.Node.Has(c.Netns())
	var floating, others []netip.Addr
	for a, refused := range g.judge(ctx, who, addrs, given, claimed) {
		switch {
		case refused != nil:
			results[a] = Result{Err: refused}
			g.cfg.Log.Warn("claim refused", "ip", a, "interface", ifName, "eni", who.eni.ID, "netns", c.Netns(), "reason", refused)
		case slices.Contains(given, a):
			results[a] = Result{} // a CNI call saw to it, and its DEL will
		case within(g.cfg.Floating, a):
			floating = append(floating, a)
		default:
			others = append(others, a)
		}
	}
	taking := attachment.Reassign
	if conflict == attachment.Never {
		taking = attachment.Never
	}
	maps.Copy(results, g.claim(ctx, who, floating, taking))
	maps.Copy(results, g.claim(ctx, who, others, attachment.Never))
	if conflict != attachment.Never && g.cfg.OnConflict != attachment.Never {
		g.move(ctx, who, others, results)
	}
	return results
}

// move takes from other ENIs those of the addresses that are contested and that Multus gave the pod. For what cannot be found out it
// may be tried again.
func (g *Guard) move(ctx context.Context, who claimant, addrs []netip.Addr, results map[netip.Addr]Result) {
	contested := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !errors.Is(results[a].Err, ErrContested) })
	vouched, err := g.vouched(ctx, who, contested)
	if err != nil {
		for _, a := range contested {
			results[a] = Result{Err: fmt.Errorf("another ENI has %s, and it is not known whether it may be moved here: %w", a, err)}
		}
		return
	}
	maps.Copy(results, g.claim(ctx, who, vouched, g.cfg.OnConflict))
	carriers, err := g.ports.Namespaces.Carriers(vouched)
	for _, a := range vouched {
		// Who had it on this worker before is about to go: that is no contest.
		if gone := alone(who, a, carriers[a]); err == nil && gone != nil && errors.Is(results[a].Err, ErrContested) {
			results[a] = Result{Err: gone}
		}
	}
}

func (g *Guard) claim(ctx context.Context, who claimant, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]Result {
	if len(addrs) == 0 {
		return nil
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return all(g.ports.Node.Claim(ctx, who.word, addrs, conflict), addrs, errors.New("the agent has no answer for it"))
}

// all gives the addresses that have no result yet the same error.
func all(results map[netip.Addr]Result, addrs []netip.Addr, err error) map[netip.Addr]Result {
	for _, a := range addrs {
		if _, ok := results[a]; !ok {
			results[a] = Result{Err: err}
		}
	}
	return results
}

// Yield gives back what the caller claimed of the addresses. Its interface may have gone.
func (g *Guard) Yield(ctx context.Context, c Caller, ifName string, addrs []netip.Addr) error {
	if err := fewEnough(addrs); err != nil {
		return err
	}
	if err := g.yields.wait(ctx, c.Netns()); err != nil {
		return err
	}
	return g.ports.Node.Yield(ctx, attachment.Claimant{Netns: c.Netns(), IfName: ifName}, addrs)
}

// Standing says who has addresses that the caller carries.
func (g *Guard) Standing(ctx context.Context, c Caller, ifName string, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	who, err := g.identify(ctx, g.questions, c, ifName, addrs)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if !slices.Contains(who.seen.Addrs, a) {
			return nil, fmt.Errorf("%s does not carry %s", ifName, a) // EC2 is no oracle for what others have
		}
	}
	return g.ports.Node.Standing(ctx, who.word, addrs)
}

// fewEnough bounds what one request costs the worker's other pods: the pool looks for each address under its lock.
func fewEnough(addrs []netip.Addr) error {
	if len(addrs) > MaxAddresses {
		return fmt.Errorf("%w: %d addresses at once are more than %d", ErrRefused, len(addrs), MaxAddresses)
	}
	return nil
}

// claimant is a caller's interface with what is known of it.
type claimant struct {
	word attachment.Claimant
	seen Seen
	eni  ENI
}

// identify finds the ENI of the caller's interface.
func (g *Guard) identify(ctx context.Context, pace *pacer, c Caller, ifName string, addrs []netip.Addr) (claimant, error) {
	if err := fewEnough(addrs); err != nil {
		return claimant{}, err
	}
	if err := pace.wait(ctx, c.Netns()); err != nil {
		return claimant{}, err
	}
	enis, err := g.ports.Node.ENIs(ctx)
	if err != nil {
		return claimant{}, err
	}
	seen, err := c.Look(ifName)
	switch {
	case err != nil:
		return claimant{}, fmt.Errorf("look at interface %q of the caller: %w", ifName, err)
	case seen.Link == 0:
		return claimant{}, fmt.Errorf("%w: interface %s is %s, and only an ipvlan child of an ENI of this worker can have addresses of the VPC", ErrRefused, ifName, seen.Kind)
	case seen.Mode != "l2":
		return claimant{}, fmt.Errorf("%w: interface %s is an ipvlan child in mode %s, in which the VPC does not reach it: use l2", ErrRefused, ifName, seen.Mode)
	}
	i := slices.IndexFunc(enis, func(e ENI) bool { return e.Link == seen.Link })
	if i < 0 { // an ENI that was just attached is one soon
		return claimant{}, fmt.Errorf("the parent of interface %s, link %d on the host, is not known as an ENI's", ifName, seen.Link)
	}
	word := attachment.Claimant{Netns: c.Netns(), IfName: ifName, Link: seen.Link}
	return claimant{word, seen, enis[i]}, nil
}
