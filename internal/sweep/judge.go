// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sweep

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// view is what one look shows.
type view struct {
	interfaces   []eni.Interface
	reservations map[eni.SubnetID][]eni.Reservation
	networks     []cluster.Network
	nodes        []cluster.Node
	pods         []cluster.Pod
	at           time.Time // after all was read
}

// settleTime is how long a pod may take until Multus has noted what it got: kubelet gives up after 4 minutes. One that still
// has none then is tried again and again, and each time registers anew what it gets.
// https://github.com/kubernetes/cri-client/blob/master/pkg/remote_runtime.go (RunPodSandbox)
const settleTime = 5 * time.Minute

// claim is a range of addresses that somebody may take without Multus' doing.
type claim struct {
	attachment.Range
	who string
}

// evidence is a view, ordered by what is asked of it.
type evidence struct {
	options      Options
	reservations map[eni.SubnetID][]eni.Reservation
	holders      map[netip.Addr]string // live pods
	ended        map[netip.Addr]string // pods that succeeded or failed
	floating     []claim
	nodes        map[eni.InstanceID]string
	lost         map[string]bool
	// unsettled, registering and unreadable say of nodes which pod on them is being set up, which registers addresses by
	// itself, and what cannot be understood of one; "" is any node, for pods on a node that names no instance.
	unsettled, registering, unreadable map[string]string
	now                                time.Time
	// reserved and chosen name a network for which agents keep such stock.
	reserved, chosen string
}

// judge says of every secondary and IPv6 address what it is, sorted by worker, ENI and address.
func (v view) judge(o Options) []Finding {
	e := v.evidence(o)
	var findings []Finding
	for _, i := range v.interfaces {
		for _, a := range slices.Concat(i.Secondary, i.IPv6) {
			if len(o.Ranges) > 0 && !in(o.Ranges, a) || a == i.Primary {
				continue
			}
			f := Finding{Address: a, ENI: i.ID, SubnetID: i.SubnetID, Instance: i.InstanceID, Node: e.nodes[i.InstanceID], Verdict: Kept}
			if f.Reason = e.keep(i, a); f.Reason == "" {
				f.Verdict, f.Reason = Orphan, e.orphan(i, a)
			}
			findings = append(findings, f)
		}
	}
	slices.SortFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ENI, b.ENI), a.Address.Compare(b.Address))
	})
	return findings
}

func (v view) evidence(o Options) evidence {
	e := evidence{
		options: o, reservations: v.reservations, holders: map[netip.Addr]string{}, ended: map[netip.Addr]string{},
		nodes: map[eni.InstanceID]string{}, lost: map[string]bool{}, unsettled: map[string]string{}, registering: map[string]string{}, unreadable: map[string]string{}, now: v.at,
	}
	named := map[string]bool{}
	for _, n := range v.nodes {
		if n.Instance != "" {
			e.nodes[n.Instance], named[n.Name], e.lost[n.Name] = n.Name, true, n.Lost
		}
	}
	for _, n := range v.networks {
		use, err := n.Use()
		if err != nil { // the plugins refuse it; but who knows what it was before
			use.Reserved, use.Chosen = true, true
		}
		for _, r := range use.Floating {
			e.floating = append(e.floating, claim{r, "network " + n.String()})
		}
		if use.Reserved {
			e.reserved = cmp.Or(e.reserved, n.String())
		}
		if use.Chosen {
			e.chosen = cmp.Or(e.chosen, n.String())
		}
	}
	for _, p := range v.pods {
		node := p.Node
		if !named[node] {
			node = ""
		}
		e.add(p, node)
	}
	return e
}

// add notes what a pod on the node says. What a pod has is on an ENI of its node, so that one of which something cannot be
// understood keeps what is there.
func (e *evidence) add(p cluster.Pod, node string) {
	addrs, written, err := p.Attached()
	if p.Ended {
		for _, a := range addrs {
			e.ended[a] = p.String()
		}
		return
	}
	for _, a := range addrs {
		e.holders[a] = p.String()
	}
	ranges, floatingErr := p.Floating()
	for _, r := range ranges {
		e.floating = append(e.floating, claim{r, "pod " + p.String()})
	}
	if p.Node == "" {
		return
	}
	if err = cmp.Or(err, floatingErr); err != nil {
		e.unreadable[node] = err.Error()
	}
	if p.Multus() && !written && (p.Started.IsZero() || e.now.Sub(p.Started) < settleTime) {
		e.unsettled[node] = p.String()
	}
	if p.Registers() {
		e.registering[node] = p.String()
	}
}

// keep is why the address is not to be freed; empty when it may be.
func (e *evidence) keep(i eni.Interface, a netip.Addr) string {
	if pod, held := e.holders[a]; held {
		return "pod " + pod + " has it"
	}
	if in(e.options.Keep, a) {
		return "--keep says so"
	}
	if n := slices.IndexFunc(e.floating, func(c claim) bool { return c.Contains(a) }); n >= 0 {
		return e.floating[n].who + " lets it float"
	}
	node, known := e.nodes[i.InstanceID]
	switch {
	case i.InstanceID == "" && e.options.Cluster == "":
		return "its ENI is on no instance; --cluster would say whose it is"
	case i.InstanceID == "":
		return ""
	case !known:
		return fmt.Sprintf("%s is no node of this cluster", i.InstanceID)
	case e.lost[node]:
		return "its worker is not ready, and what runs there is not known"
	}
	if reason := e.stock(i, a); reason != "" {
		return reason
	}
	return e.busy(node)
}

// stock is why the address may be an agent's, or the worker's own.
func (e *evidence) stock(i eni.Interface, a netip.Addr) string {
	n := slices.IndexFunc(e.reservations[i.SubnetID], func(r eni.Reservation) bool { return r.Type == eni.Explicit && r.CIDR.Contains(a) })
	if n < 0 {
		switch {
		case a.Is6() && len(e.options.Ranges) == 0:
			return "may be the worker's own IPv6 address; name its range by --range if it is not"
		case e.chosen != "":
			return fmt.Sprintf("may be an agent's stock: network %s has EC2 choose addresses", e.chosen)
		}
		return ""
	}
	switch r := e.reservations[i.SubnetID][n]; {
	case r.Role() == eni.RoleStatic:
		return ""
	case r.Role() == eni.RolePool:
		return fmt.Sprintf("is an agent's stock: %s %s is tagged %s=%s", r.ID, r.CIDR, eni.TagRole, eni.RolePool)
	case e.reserved != "":
		return fmt.Sprintf("may be an agent's stock: network %s may draw on %s %s, which is not tagged %s=%s", e.reserved, r.ID, r.CIDR, eni.TagRole, eni.RoleStatic)
	}
	return ""
}

// busy is why what happens on the node is not known well enough.
func (e *evidence) busy(node string) string {
	for _, n := range []string{node, ""} {
		if what := e.unreadable[n]; what != "" {
			return what
		}
		if pod := e.unsettled[n]; pod != "" {
			return "pod " + pod + " is being set up on this worker, and may get it"
		}
		if pod := e.registering[n]; pod != "" && len(e.options.Ranges) == 0 {
			return "pod " + pod + " on this worker has a sidecar, and may carry it; name its range by --range if it does not"
		}
	}
	return ""
}

// orphan is why nobody is taken to have the address.
func (e *evidence) orphan(i eni.Interface, a netip.Addr) string {
	switch pod := e.ended[a]; {
	case pod != "":
		return "pod " + pod + " has ended"
	case i.InstanceID == "":
		return "no pod has it, and its ENI is on no instance"
	}
	return "no pod has it"
}

func in(ranges []attachment.Range, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r attachment.Range) bool { return r.Contains(a) })
}
