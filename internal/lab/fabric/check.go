// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The source check: what comes from an ENI must have a source that is routed to that very ENI, as
//
//	table inet vpc {
//		chain prerouting {
//			type filter hook prerouting priority raw; policy accept;
//			iifname "eni-*" ip6 saddr fe80::/10 accept
//			iifname "eni-*" ip6 saddr :: accept
//			iifname "eni-*" meta nfproto ipv4 fib saddr . iif oif missing counter drop
//			iifname "eni-*" meta nfproto ipv6 fib saddr . iif oif missing counter drop
//		}
//	}
//
// would have it. It stands in for the rp_filter that IPv6 lacks, and counts for both families.
const (
	checkTable = "vpc"
	checkChain = "prerouting"
)

// Where the source address starts in an IPv6 header (RFC 8200 section 3).
const ipv6SourceOffset = 8

// Drops counts the packets that the source check dropped since [New].
type Drops struct {
	IPv4, IPv6 uint64
}

// Drops reads the counters of the source check.
func (f *Fabric) Drops() (Drops, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Drops{}, fmt.Errorf("read source check: fabric is closed")
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(f.fd)))
	if err != nil {
		return Drops{}, fmt.Errorf("open nftables: %w", err)
	}
	table := &nftables.Table{Name: checkTable, Family: nftables.TableFamilyINet}
	rules, err := conn.GetRules(table, &nftables.Chain{Name: checkChain, Table: table})
	if err != nil {
		return Drops{}, fmt.Errorf("read source check: %w", err)
	}
	var packets []uint64 // in the order of the rules: IPv4, IPv6
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				packets = append(packets, c.Packets)
			}
		}
	}
	if len(packets) != 2 {
		return Drops{}, fmt.Errorf("read source check: %d counters, want 2", len(packets))
	}
	return Drops{IPv4: packets[0], IPv6: packets[1]}, nil
}

// addSourceCheck installs the rules in the VPC's namespace.
func (f *Fabric) addSourceCheck() error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(f.fd)))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Name: checkTable, Family: nftables.TableFamilyINet})
	accept := nftables.ChainPolicyAccept
	chain := conn.AddChain(&nftables.Chain{
		Name: checkChain, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw, Policy: &accept,
	})
	for _, rule := range [][]expr.Any{
		linkLocalRule(),
		unspecifiedRule(),
		missingRouteRule(unix.NFPROTO_IPV4),
		missingRouteRule(unix.NFPROTO_IPV6),
	} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("add source check (needs the kernel's nf_tables and nft_fib_inet): %w", err)
	}
	return nil
}

// fromENI matches packets of one family that arrive from an ENI.
func fromENI(family byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(fabricEndPrefix)},
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
	}
}

func ipv6Source(length uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: ipv6SourceOffset, Len: length}
}

// linkLocalRule lets neighbour discovery pass: link-local sources are never forwarded.
func linkLocalRule() []expr.Any {
	return append(fromENI(unix.NFPROTO_IPV6),
		ipv6Source(2),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xc0}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0xfe, 0x80}},
		&expr.Verdict{Kind: expr.VerdictAccept})
}

// unspecifiedRule lets duplicate address detection pass.
func unspecifiedRule() []expr.Any {
	return append(fromENI(unix.NFPROTO_IPV6),
		ipv6Source(16),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 16)},
		&expr.Verdict{Kind: expr.VerdictAccept})
}

// missingRouteRule counts and drops a source that is not routed to the link it came from.
func missingRouteRule(family byte) []expr.Any {
	return append(fromENI(family),
		&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop})
}
