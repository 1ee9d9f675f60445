// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package candidate decides which addresses of a reservation an ENI asks EC2 for. Workers do not talk to one another,
// so each ENI walks the reservation's /28 blocks in an order of its own and prefers blocks that are wholly free:
// workers that start together rarely meet. Pure: the pool reads EC2 and calls it.
package candidate

import (
	"bytes"
	"crypto/sha256"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

const (
	// BlockBits is the prefix length of a block: 16 addresses, about one worker's first stock.
	BlockBits = 28
	// WindowBlocks is how many blocks are read at a time: 12 × 16 = 192 addresses fit into one
	// DescribeNetworkInterfaces filter, which takes 200 values.
	// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Filter.html
	WindowBlocks = 12
)

// Order is the private order of an ENI over the blocks of the reservations that feed it.
type Order struct {
	subnet netip.Prefix
	blocks []netip.Prefix
}

// NewOrder cuts the reservations into blocks and shuffles them by the ENI's ID. The order of two blocks depends only
// on the ENI and on them, so a reservation that is added or removed leaves the others where they were. IPv6
// reservations are skipped: their host parts are drawn at random.
func NewOrder(id eni.ID, subnet netip.Prefix, reservations []netip.Prefix) Order {
	type ranked struct {
		rank  [sha256.Size]byte
		block netip.Prefix
	}
	var all []ranked
	for _, r := range reservations {
		if !r.Addr().Is4() {
			continue
		}
		for _, b := range split(r.Masked()) {
			all = append(all, ranked{sha256.Sum256([]byte(string(id) + " " + b.String())), b})
		}
	}
	slices.SortFunc(all, func(a, b ranked) int { return bytes.Compare(a.rank[:], b.rank[:]) })
	o := Order{subnet: subnet, blocks: make([]netip.Prefix, 0, len(all))}
	for _, r := range all {
		if len(o.blocks) == 0 || o.blocks[len(o.blocks)-1] != r.block {
			o.blocks = append(o.blocks, r.block)
		}
	}
	return o
}

// split cuts p into blocks; a p smaller than a block is one.
func split(p netip.Prefix) []netip.Prefix {
	if p.Bits() >= BlockBits {
		return []netip.Prefix{p}
	}
	blocks := make([]netip.Prefix, 0, 1<<(BlockBits-p.Bits()))
	for a := p.Addr(); p.Contains(a); {
		b := netip.PrefixFrom(a, BlockBits)
		blocks = append(blocks, b)
		a = eni.LastAddr(b).Next()
		if !a.IsValid() {
			break
		}
	}
	return blocks
}

// Windows is how many windows the order has.
func (o Order) Windows() int { return (len(o.blocks) + WindowBlocks - 1) / WindowBlocks }

// Window returns the blocks of window i, which wraps around.
func (o Order) Window(i int) Window {
	n := o.Windows()
	if n == 0 {
		return Window{}
	}
	start := (i % n) * WindowBlocks
	return Window{subnet: o.subnet, blocks: o.blocks[start:min(start+WindowBlocks, len(o.blocks))]}
}

// Window is a run of blocks in an ENI's order.
type Window struct {
	subnet netip.Prefix
	blocks []netip.Prefix
}

// Addrs lists the window's assignable addresses, without those that the VPC keeps for itself.
func (w Window) Addrs() []netip.Addr {
	var addrs []netip.Addr
	for _, b := range w.blocks {
		addrs = append(addrs, w.assignable(b)...)
	}
	return addrs
}

func (w Window) assignable(block netip.Prefix) []netip.Addr {
	var addrs []netip.Addr
	for a := block.Addr(); block.Contains(a); a = a.Next() {
		if !eni.ReservedByVPC(w.subnet, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Pick chooses up to n addresses of the window that taken does not report. Wholly free blocks come first, each in
// ascending order, then what is left of the others.
func (w Window) Pick(n int, taken func(netip.Addr) bool) []netip.Addr {
	var whole, rest []netip.Addr
	for _, b := range w.blocks {
		all := w.assignable(b)
		free := slices.DeleteFunc(slices.Clone(all), taken)
		if len(free) == len(all) {
			whole = append(whole, free...)
		} else {
			rest = append(rest, free...)
		}
	}
	picked := append(whole, rest...)
	return picked[:min(max(n, 0), len(picked))]
}
