// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// After a change of links the metadata is asked a few times whether there is an ENI more or less: it is behind.
const (
	looksAfterChange = 5
	lookInterval     = 2 * time.Second
)

// LinksChanged says that the host's links changed: links are read again, and the metadata is, for an ENI that may be
// new or gone.
func (n *Node) LinksChanged() {
	n.RefreshLinks()
	poke(n.look)
}

// drift compares the instance metadata with what we believe, and reads EC2 when they differ, and now and then anyway.
// Links change with every pod that the cluster's own CNI starts, so after such a change no more is asked than which ENIs
// there are.
func (n *Node) drift(ctx context.Context) {
	next := time.Now().Add(n.cfg.DriftInterval)
	full := time.Now().Add(describeAge/2 + rand.N(describeAge/2))
	for looks := 0; ; looks = max(0, looks-1) {
		wait := time.Until(next)
		if looks > 0 {
			wait = min(wait, lookInterval)
		}
		if nap(ctx, wait, n.look) {
			looks = looksAfterChange + 1
		}
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return
		case !now.Before(full):
			full = now.Add(describeAge/2 + rand.N(describeAge/2))
			n.describe(ctx, now)
			n.rereadAll(ctx)
		case !now.Before(next):
			next = now.Add(n.cfg.DriftInterval)
			n.lookAround()
			n.compare(ctx, now)
		default:
			n.countENIs(ctx, now)
		}
	}
}

// lookAround reads what may change on the host without an event that we hear.
func (n *Node) lookAround() {
	n.RefreshLinks()
	if found, err := n.ports.Namespaces.Scan(); err == nil {
		n.mu.Lock()
		n.judgeModes(found)
		n.mu.Unlock()
	}
	if onHost, err := n.ports.Host.Addresses(); err == nil {
		n.mu.Lock()
		n.judgeHost(onHost)
		n.mu.Unlock()
	}
}

// judgeHost notes addresses of pools that the host's own links carry: the operating system configured an ENI that is for
// pods. The caller holds n.mu.
func (n *Node) judgeHost(onHost map[netip.Addr]string) {
	for _, p := range n.ifaces {
		p.unbar(onHost)
		was := len(p.onHost)
		p.onHost = nil
		for u, e := range p.units {
			if link, ok := onHost[u.Addr()]; ok && u.IsSingleIP() && (e.barred || e.state != ownership.Foreign && e.state != ownership.Guest) {
				p.onHost = append(p.onHost, u)
				p.hostLink = link
			}
		}
		slices.SortFunc(p.onHost, compareUnits)
		if len(p.onHost) > 0 && was == 0 {
			n.log.Warn("addresses for pods are configured on a link of the host, which cannot reach the pods that get them", "ips", names(p.onHost), "link", p.hostLink)
		}
	}
}

// compare reads the metadata, and EC2 when they differ from what we believe.
func (n *Node) compare(ctx context.Context, now time.Time) {
	ifs, err := n.ports.Metadata.Interfaces(ctx)
	if err != nil {
		n.log.Debug("instance metadata", "error", err)
		return
	}
	n.mu.Lock()
	differs := n.differs(ifs)
	n.mu.Unlock()
	if differs != "" {
		n.log.Info("instance metadata differs, reading EC2", "what", differs)
		n.describe(ctx, now)
	}
}

// countENIs reads which ENIs the metadata shows, and EC2 when there is one more or less.
func (n *Node) countENIs(ctx context.Context, now time.Time) {
	macs, err := n.ports.Metadata.MACs(ctx)
	if err != nil {
		n.log.Debug("instance metadata", "error", err)
		return
	}
	n.mu.Lock()
	same := true
	known := map[eni.MAC]bool{}
	for _, p := range n.ifaces {
		if !p.gone {
			known[p.mac] = true
			same = same && slices.Contains(macs, p.mac)
		}
	}
	for _, m := range macs {
		same = same && known[m]
	}
	n.mu.Unlock()
	if !same {
		n.log.Info("an ENI came or went, reading EC2", "shown", len(macs), "known", len(known))
		n.describe(ctx, now)
	}
}

// rereadAll reads the reservations of all pool subnets again, once each.
func (n *Node) rereadAll(ctx context.Context) {
	n.mu.Lock()
	ours := slices.DeleteFunc(n.sorted(), func(p *iface) bool { return p.eni.IsPrimary() || p.eni.Tags[eni.TagNoManage] != "true" })
	n.mu.Unlock()
	for _, p := range ours {
		if err := n.readReservations(ctx, p, describeAge/4); err != nil && ctx.Err() == nil {
			n.log.Warn("read reservations", "error", err)
		}
		n.mu.Lock()
		p.activateByRole()
		n.mu.Unlock()
		p.poke()
	}
}
