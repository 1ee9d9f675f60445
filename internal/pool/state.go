// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// Ledger keys. A key of another prefix is a newer version's and is left alone.
const (
	holdPrefix    = "hold/"    // containerID/ifName → holdRecord
	addressPrefix = "address/" // eni/address → addressRecord
	activePrefix  = "active/"  // eni → {}: a pod was here once
)

// holdRecord is what the ledger keeps of a hold. The cooldown's end is not kept: after a restart the cooldown starts
// anew, which no clock change can shorten.
type holdRecord struct {
	attachment.Attachment
	ENI       eni.ID        `json:"eni"`
	Addresses []netip.Addr  `json:"addresses"`
	State     string        `json:"state"`
	Uptime    time.Duration `json:"uptime"`
	Visible   bool          `json:"visible"`
}

type addressRecord struct {
	State string `json:"state"`
}

func holdKey(k attachment.Key) string { return holdPrefix + k.ContainerID + "/" + k.IfName }

func (h *hold) record() Record {
	v, err := json.Marshal(holdRecord{h.Attachment, h.eni, h.addrs, h.state.String(), h.uptime, h.visible})
	if err != nil { // strings, numbers and addresses always marshal
		panic(err)
	}
	return Record{Key: holdKey(h.Key), Value: v}
}

// durable is the word that the ledger keeps for a state: who has a held or cooling address stands in its hold, and
// what is not ours is not recorded.
func durable(s ownership.State) string {
	switch s {
	case ownership.Assigning, ownership.Unknown:
		return ownership.Assigning.String()
	case ownership.Free, ownership.Held, ownership.Cooling:
		return ownership.Free.String()
	case ownership.Unassigning:
		return ownership.Unassigning.String()
	default:
		return ""
	}
}

func addressRecords(id eni.ID, s ownership.State, addrs []netip.Addr) []Record {
	recs := make([]Record, len(addrs))
	for i, a := range addrs {
		recs[i].Key = addressPrefix + string(id) + "/" + a.String()
		if word := durable(s); word != "" {
			recs[i].Value, _ = json.Marshal(addressRecord{word})
		}
	}
	return recs
}

// load fills the node from the ledger. Records that cannot be read are left alone: the reads at boot find the
// addresses again.
func (n *Node) load(records []Record, rebooted bool) {
	event := ownership.Restarted
	if rebooted {
		event = ownership.Rebooted
	}
	for _, r := range records {
		switch kind, rest, _ := strings.Cut(r.Key, "/"); kind + "/" {
		case activePrefix:
			n.wasActive[eni.ID(rest)] = true
		case addressPrefix:
			n.loadAddress(rest, r.Value, event)
		case holdPrefix:
			n.loadHold(r, event)
		}
	}
}

// settleReboot records what a reboot made of the holds, so that it is not concluded again at the next start.
func (n *Node) settleReboot() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.rebooted) == 0 {
		return
	}
	if err := n.ports.Ledger.Put(n.rebooted...); err != nil {
		n.log.Error("cannot record what the reboot ended; it is concluded again at the next start", "error", err)
		return
	}
	n.rebooted = nil
}

func (n *Node) loadAddress(key string, value json.RawMessage, event ownership.Event) {
	id, text, _ := strings.Cut(key, "/")
	addr, err := netip.ParseAddr(text)
	var rec addressRecord
	if err != nil || json.Unmarshal(value, &rec) != nil {
		n.log.Warn("ledger record not understood", "key", addressPrefix+key)
		return
	}
	state, ok := ownership.ParseState(rec.State)
	if !ok {
		return
	}
	next, _, ok := ownership.Next(state, event)
	if !ok || next == ownership.None {
		return
	}
	if n.ours[eni.ID(id)] == nil {
		n.ours[eni.ID(id)] = map[netip.Addr]ownership.State{}
	}
	n.ours[eni.ID(id)][addr] = next
}

func (n *Node) loadHold(r Record, event ownership.Event) {
	var rec holdRecord
	if err := json.Unmarshal(r.Value, &rec); err != nil || len(rec.Addresses) == 0 {
		n.log.Warn("ledger hold not understood", "error", err)
		return
	}
	state, ok := ownership.ParseState(rec.State)
	if !ok {
		return
	}
	next, _, ok := ownership.Next(state, event)
	if !ok {
		return
	}
	h := &hold{Attachment: rec.Attachment, eni: rec.ENI, addrs: rec.Addresses, state: next, uptime: rec.Uptime, visible: rec.Visible}
	if event == ownership.Rebooted {
		changed := h.record()
		if next == ownership.None {
			changed.Value = nil
		}
		n.rebooted = append(n.rebooted, Record{Key: r.Key, Value: changed.Value})
	}
	if next == ownership.None {
		return
	}
	if next == ownership.Cooling {
		h.deadline = time.Now().Add(n.cfg.Cooldown)
	}
	n.holds[h.Key] = h
}

// apply moves addr by the event and returns the effect. The caller holds n.mu and records what has to be recorded.
func (p *iface) apply(addr netip.Addr, event ownership.Event) ownership.Effect {
	a := p.addrs[addr]
	if a == nil {
		a = &address{since: time.Now()}
	}
	next, effect, ok := ownership.Next(a.state, event)
	if !ok {
		p.n.log.Error("event makes no sense for the address", "eni", p.id, "ip", addr, "state", a.state.String(), "event", event.String())
		return ownership.Nothing
	}
	if next != a.state {
		if next == ownership.None && (event == ownership.Unassigned || event == ownership.Unseen) {
			p.recent[addr] = time.Now() // reads may still show it here
		}
		a.state, a.since, a.missing, a.named = next, time.Now(), time.Time{}, false
		if next != ownership.Held && next != ownership.Cooling && next != ownership.Lost {
			a.key = attachment.Key{}
		}
	}
	if next == ownership.None {
		delete(p.addrs, addr)
	} else {
		p.addrs[addr] = a
	}
	return effect
}

// applyAll moves the addresses by the event and records where they came to stand.
func (p *iface) applyAll(addrs []netip.Addr, event ownership.Event) error {
	var recs []Record
	for _, a := range addrs {
		before := durable(p.state(a))
		p.apply(a, event)
		if durable(p.state(a)) != before {
			recs = append(recs, addressRecords(p.id, p.state(a), []netip.Addr{a})...)
		}
	}
	if len(recs) == 0 {
		return nil
	}
	return p.n.ports.Ledger.Put(recs...)
}

func (p *iface) state(addr netip.Addr) ownership.State {
	if a := p.addrs[addr]; a != nil {
		return a.state
	}
	return ownership.None
}

// inState lists the addresses in a state, ascending.
func (p *iface) inState(states ...ownership.State) []netip.Addr {
	var addrs []netip.Addr
	for addr, a := range p.addrs {
		if slices.Contains(states, a.state) {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

func (p *iface) count(states ...ownership.State) int {
	c := 0
	for _, a := range p.addrs {
		if slices.Contains(states, a.state) {
			c++
		}
	}
	return c
}

// slotsLeft is how many more addresses EC2 would let the ENI have, as far as we know. An address that EC2 named as
// another ENI's takes no slot here; the slot of one that was lost is kept for its return.
func (p *iface) slotsLeft() int {
	used := len(p.eni.Prefixes)
	for _, a := range p.addrs {
		if a.state.OnENI() && !(a.state == ownership.Unknown && a.named) || a.state == ownership.Lost {
			used++
		}
	}
	return max(0, p.n.limits.SecondarySlots()-used)
}

// feeds reports whether an address belongs to one of the reservations that feed this ENI.
func (p *iface) feeds(addr netip.Addr) bool {
	return slices.ContainsFunc(p.reservations, func(r eni.Reservation) bool { return r.CIDR.Contains(addr) })
}

// managed reports whether the pool may take addresses for the ENI, and why not.
func (p *iface) managed() (bool, string) {
	switch {
	case p.gone:
		return false, "is no longer attached"
	case p.eni.IsPrimary():
		return false, "is the instance's primary ENI, which belongs to the cluster's CNI"
	case p.eni.Tags[eni.TagNoManage] != "true":
		return false, "lacks the tag " + eni.TagNoManage + "=true, so the Amazon VPC CNI may take it"
	case len(p.reservations) == 0:
		return false, "is in " + string(p.subnet.ID) + ", which has no explicit subnet CIDR reservation for pods"
	}
	return true, ""
}
