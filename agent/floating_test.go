// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/guard"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// books are a pool that does as it is told, and takes down what it was told of.
type books struct{ claimed, asked, yielded []netip.Addr }

func (*books) ENIs(context.Context) ([]guard.ENI, error) {
	return []guard.ENI{{Link: 3, Subnet: eni.Subnet{IPv4: netip.MustParsePrefix("10.10.1.0/24")}, Stock: func(netip.Addr) bool { return false }}}, nil
}

func (b *books) Has(attachment.Netns) (given, claimed []netip.Addr) { return nil, b.claimed }

func (b *books) Claim(_ context.Context, _ attachment.Claimant, addrs []netip.Addr, _ attachment.OnConflict) map[netip.Addr]guard.Result {
	b.claimed = append(b.claimed, addrs...)
	results := map[netip.Addr]guard.Result{}
	for _, a := range addrs {
		results[a] = guard.Result{New: true}
	}
	return results
}

func (b *books) Yield(_ context.Context, _ attachment.Claimant, addrs []netip.Addr) error {
	b.yielded = append(b.yielded, addrs...)
	return nil
}

func (b *books) Standing(_ context.Context, _ attachment.Claimant, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	b.asked = append(b.asked, addrs...)
	standings := map[netip.Addr]attachment.Standing{}
	for _, a := range addrs {
		standings[a] = attachment.Elsewhere
	}
	return standings, nil
}

// TestPodWithManyAddresses: of a pod that carries more than a request may be about, and more than it may have, the first get what they
// ask for.
func TestPodWithManyAddresses(t *testing.T) {
	t.Parallel()
	var addrs []netip.Addr
	for a := netip.MustParseAddr("10.10.1.80"); len(addrs) <= guard.MaxAddresses; a = a.Next() {
		addrs = append(addrs, a)
	}
	pool := &books{}
	r := agentAlone{guard.New(guard.DefaultConfig(), guard.Ports{Node: pool, Namespaces: nobody{}}), &flapper{cookie: 7, has: addrs}}
	net1 := attachment.Interface{Name: "net1"}
	for a, got := range r.Register(t.Context(), net1, addrs, attachment.Never) {
		if last := a == addrs[guard.MaxAddresses]; got.New == last || errors.Is(got.Err, podsync.ErrRefused) != last {
			t.Errorf("%s: %+v", a, got)
		}
	}
	if got, err := r.Standing(t.Context(), net1, addrs); err != nil || len(got) != len(addrs) || !slices.Equal(pool.asked, addrs) {
		t.Errorf("standings of %d, %v", len(got), err)
	}
	if err := r.Release(t.Context(), net1, addrs); err != nil || !slices.Equal(pool.yielded, addrs) {
		t.Errorf("given back: %v, %v; want %v", pool.yielded, err, addrs)
	}
}
