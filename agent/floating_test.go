// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/guard"
)

// yields takes down what is given back.
type yields struct {
	guard.Node
	addrs []netip.Addr
}

func (y *yields) Yield(_ context.Context, _ attachment.Claimant, addrs []netip.Addr) error {
	y.addrs = append(y.addrs, addrs...)
	return nil
}

// TestManyAddressesAreGivenBack: a pod that lost interest in more addresses than one request may be about gives all of them back.
func TestManyAddressesAreGivenBack(t *testing.T) {
	t.Parallel()
	var addrs []netip.Addr
	for a := netip.MustParseAddr("10.10.1.80"); len(addrs) <= guard.MaxAddresses; a = a.Next() {
		addrs = append(addrs, a)
	}
	node := &yields{}
	r := agentAlone{guard.New(guard.DefaultConfig(), guard.Ports{Node: node}), tenant{attachment.Netns{Cookie: 1}}}
	if err := r.Release(t.Context(), attachment.Interface{Name: "net1"}, addrs); err != nil || !slices.Equal(node.addrs, addrs) {
		t.Errorf("given back: %v, %v; want %v", node.addrs, err, addrs)
	}
}
