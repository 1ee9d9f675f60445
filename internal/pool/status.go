// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Status is a snapshot of the node for people.
type Status struct {
	Instance eni.Instance
	ENIs     []ENIStatus
	Holds    []HoldStatus
	Problems []string
}

// ENIStatus is one ENI with its addresses.
type ENIStatus struct {
	ENI             eni.Interface
	Subnet          eni.Subnet
	Link            attachment.Link
	Managed, Active bool
	Slots           int
	Addresses       []AddressStatus
	Prefixes        []PrefixStatus
}

// PrefixStatus is one delegated prefix, and how many of its addresses somebody has.
type PrefixStatus struct {
	Prefix netip.Prefix
	State  ownership.State
	Used   int
}

// AddressStatus is one address.
type AddressStatus struct {
	Addr   netip.Addr
	State  ownership.State
	Holder attachment.Key
}

// HoldStatus is one attachment.
type HoldStatus struct {
	attachment.Attachment
	ENI       eni.ID
	Addresses []netip.Addr
	State     ownership.State
	Visible   bool
}

// Status describes the node as it is now, ENIs by card and device index, addresses and attachments in order.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := Status{Instance: n.instance}
	select {
	case <-n.ready:
	default:
		s.Problems = append(s.Problems, "not ready: "+n.notReady)
	}
	for _, dir := range slices.Sorted(maps.Keys(n.blind)) {
		s.Problems = append(s.Problems, fmt.Sprintf(
			"the agent sees no network namespace in %s, where those of %d attachments were, and concludes nothing from that; mount the folder into the agent", dir, n.blind[dir]))
	}
	for _, p := range n.sorted() {
		managed, why := p.managed()
		e := ENIStatus{ENI: p.eni, Subnet: p.subnet, Link: p.link, Managed: managed, Active: len(p.classes) > 0, Slots: n.limits.SecondarySlots()}
		used := p.used()
		for u, x := range p.units {
			if u.IsSingleIP() {
				e.Addresses = append(e.Addresses, AddressStatus{u.Addr(), x.state, x.key})
			} else {
				e.Prefixes = append(e.Prefixes, PrefixStatus{u, x.state, used[u]})
			}
		}
		slices.SortFunc(e.Addresses, func(a, b AddressStatus) int { return a.Addr.Compare(b.Addr) })
		slices.SortFunc(e.Prefixes, func(a, b PrefixStatus) int { return compareUnits(a.Prefix, b.Prefix) })
		s.ENIs = append(s.ENIs, e)
		s.Problems = append(s.Problems, p.problems(managed, why)...)
	}
	for _, h := range n.holds {
		s.Holds = append(s.Holds, HoldStatus{h.Attachment, h.eni, h.addrs, n.shown(h), h.visible})
		if h.claimed && !h.visible && h.state != ownership.Cooling {
			s.Problems = append(s.Problems, fmt.Sprintf(
				"no path to the network namespace of %s can be seen by the agent, so it does not notice when the pod that claimed %v has gone; mount the folder of the namespaces into the agent", h.Key, h.addrs))
		} else if h.state == ownership.Held && !h.visible {
			s.Problems = append(s.Problems, fmt.Sprintf(
				"the network namespace %s of %s cannot be seen by the agent, so only a DEL frees %v; mount its folder into the agent", h.Netns.Path, h.Key, h.addrs))
		}
	}
	slices.SortFunc(s.Holds, func(a, b HoldStatus) int {
		return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.IfName, b.IfName))
	})
	return s
}

func (p *iface) problems(managed bool, why string) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if len(p.classes) > 0 && !managed {
		say("%s %s", p, why)
	}
	if p.linkProblem != "" {
		say("%s: %s", p, p.linkProblem)
	}
	if len(p.classes) > 0 && p.link.Index == 0 {
		say("%s has no link with MAC %s on this host", p, p.mac)
	}
	if len(p.classes) > 0 && p.link.Index != 0 && !p.link.Up {
		say("%s: its link %s is down and could not be brought up", p, p.link.Name)
	}
	if cut := p.cutOff(); cut > 0 {
		say("%s", p.wordCut(cut))
	}
	if p.foreignMode != "" {
		say("%s: its link %s carries ipvlan children in mode %s", p, p.link.Name, p.foreignMode)
	}
	if len(p.onHost) > 0 {
		say("%s: the operating system configured %v on %s, so that the host cannot reach pods with these addresses; have it leave ENIs for pods alone (amazon-ec2-net-utils, systemd-networkd, NetworkManager)",
			p, names(p.onHost), p.hostLink)
	}
	for _, c := range p.sortedClasses() {
		if f := c.limit(); f != nil {
			say("%s", f.text)
		}
	}
	for _, u := range p.inState(ownership.Lost) {
		if owner := p.units[u].owner; owner != "" {
			say("%s of attachment %s is on %s now, and not on %s: the pod is unreachable by it; delete the pod, or release the address there", name(u), p.units[u].key, owner, p)
		} else {
			say("EC2 no longer has %s of attachment %s on %s; it is assigned again unless another ENI has it", name(u), p.units[u].key, p)
		}
	}
	return out
}

// differs says what the metadata shows otherwise than we believe, among what we have not written about lately, since
// the metadata is behind. The addresses of ENIs that are none of ours are only noted. The caller holds n.mu.
func (n *Node) differs(ifs []eni.Interface) string {
	now := time.Now()
	what := ""
	for _, i := range ifs {
		p := n.ifaces[i.ID]
		if p == nil {
			what = fmt.Sprintf("%s is new", i.ID)
			continue
		}
		all := unitsOf(i)
		if !p.minds() {
			p.mirror(all, now)
			continue
		}
		for u, e := range p.units {
			settled := now.Sub(e.written) > settleTime && now.Sub(e.since) > settleTime
			shown := slices.Contains(all, u)
			if settled && !e.delegated() && shown == (e.state == ownership.Lost) {
				what = fmt.Sprintf("%s of %s (%s)", name(u), i.ID, e.state)
			}
		}
		for _, u := range all {
			if p.units[u] == nil && now.Sub(p.recent[u]) > settleTime {
				what = fmt.Sprintf("%s on %s is new", name(u), i.ID)
			}
		}
	}
	for id, p := range n.ifaces {
		if !p.gone && !slices.ContainsFunc(ifs, func(i eni.Interface) bool { return i.ID == id }) {
			what = fmt.Sprintf("%s is missing", id)
		}
	}
	return what
}

// minds reports whether it matters to us what the ENI has: it is for pods, or has something of ours.
func (p *iface) minds() bool {
	ok, _ := p.managed()
	return ok || p.count(ownership.Foreign) < len(p.units)
}

// mirror notes what the metadata shows on an ENI that is none of ours. The Amazon VPC CNI takes and gives back addresses
// on its own ENIs with every few pods, which must not cost us a read from EC2 each time.
func (p *iface) mirror(all []unit, now time.Time) {
	maps.DeleteFunc(p.units, func(u unit, _ *entry) bool { return !slices.Contains(all, u) })
	for _, u := range all {
		if p.units[u] == nil {
			p.units[u] = &entry{state: ownership.Foreign, since: now, seen: now}
		}
	}
}
