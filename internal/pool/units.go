// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// unit is what EC2 assigns to an ENI and takes back: a single address as a /32 or /128, or a delegated prefix.
type unit = netip.Prefix

// single is an address as a unit.
func single(a netip.Addr) unit { return netip.PrefixFrom(a, a.BitLen()) }

func singles(addrs []netip.Addr) []unit {
	us := make([]unit, len(addrs))
	for i, a := range addrs {
		us[i] = single(a)
	}
	return us
}

// name is how a unit is written: an address without its length.
func name(u unit) string {
	if u.IsSingleIP() {
		return u.Addr().String()
	}
	return u.String()
}

func names(us []unit) []string {
	out := make([]string, len(us))
	for i, u := range us {
		out[i] = name(u)
	}
	return out
}

func addrsOf(us []unit) []netip.Addr {
	out := make([]netip.Addr, len(us))
	for i, u := range us {
		out[i] = u.Addr()
	}
	return out
}

func compareUnits(a, b unit) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// entry is what is believed of a unit on an ENI.
type entry struct {
	state   ownership.State
	since   time.Time // of the state
	written time.Time // of our last write to EC2 about it, or of its answer
	missing time.Time // begin of the first settled read that did not show it, while held
	seen    time.Time // begin of the last read that showed it
	passed  time.Time // when a claim got it on the metadata's word; zero once the metadata cannot have been behind
	asking  bool      // a request about it is under way, and no read concludes anything
	doubted bool      // what the metadata shows of it proves nothing: see [iface.doubt]
	unsent  bool      // its unassign was not sent yet
	barred  bool      // a link of the host carries it, though it is of a pool's range
	named   bool      // EC2 named it as another's: it takes none of our slots
	source  string    // where it came from, one of attachment's sources or [sourceNamed]
	via     unit      // the delegated prefix that it is an address of; EC2 knows only that
	key     attachment.Key
	owner   eni.ID // of a lost address, when another ENI has it
}

// sourceNamed marks an address that a pod asked for by name, outside of what feeds stock: it goes back when the pod does.
const sourceNamed = "named"

// delegated reports whether EC2 knows the address only as part of a prefix.
func (e *entry) delegated() bool { return e.via.IsValid() }

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

// unitRecord is what the ledger keeps of a unit.
type unitRecord struct {
	State  string `json:"state"`
	Source string `json:"source,omitempty"`
}

func unitKey(id eni.ID, u unit) string { return addressPrefix + string(id) + "/" + name(u) }

func (p *iface) unitRecord(u unit) Record {
	r := Record{Key: unitKey(p.id, u)}
	e := p.units[u]
	if e == nil || e.delegated() {
		return r
	}
	if word := durable(e.state); word != "" {
		v, err := json.Marshal(unitRecord{word, e.source})
		if err != nil { // two strings always marshal
			panic(err)
		}
		r.Value = v
	}
	return r
}

// parseUnit reads what [name] wrote.
func parseUnit(s string) (unit, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return single(a), nil
	}
	u, err := netip.ParsePrefix(s)
	if err != nil {
		return u, fmt.Errorf("%q is neither an address nor a prefix", s)
	}
	return u.Masked(), nil
}

// apply moves u by the event and returns the effect. The caller holds n.mu and records what has to be recorded.
func (p *iface) apply(u unit, event ownership.Event) ownership.Effect {
	e := p.units[u]
	if e == nil {
		e = &entry{since: time.Now()}
	}
	next, effect, ok := ownership.Next(e.state, event)
	if !ok {
		p.n.log.Error("event makes no sense for the address", "eni", p.id, "ip", name(u), "state", e.state.String(), "event", event.String())
		return ownership.Nothing
	}
	if stray(e, next, event) && u.IsSingleIP() {
		p.strays = append(p.strays, u.Addr())
		p.n.moved = p.n.moved || p.n.claimedBy(e) != nil
		poke(p.n.tick)
	}
	regained := e.state == ownership.Lost && (next == ownership.Held || next == ownership.Guest)
	if next != e.state {
		if next == ownership.None && (event == ownership.Unassigned || event == ownership.Unseen) {
			maps.DeleteFunc(p.recent, func(_ unit, at time.Time) bool { return time.Since(at) > 2*p.n.cfg.Cooldown })
			p.recent[u] = time.Now() // reads may still show it here
		}
		if event != ownership.Release { // who has it changes nothing about where it was seen
			e.missing = time.Time{}
		}
		e.state, e.since, e.named, e.owner = next, time.Now(), false, ""
		if next != ownership.Held && next != ownership.Cooling && next != ownership.Lost && next != ownership.Guest {
			e.key = attachment.Key{}
		}
	}
	if effect == ownership.ReportLost {
		p.n.cfg.Count(Lost)
		p.tellLost(u, e.key)
	} else if regained {
		p.n.tellHolder(e.key, AddressRegained, "%s is on %s again", name(u), p.id)
	}
	switch {
	case next == ownership.None, next == ownership.Free && e.delegated(): // back into its prefix
		delete(p.units, u)
	default:
		p.units[u] = e
	}
	return effect
}

// stray reports whether the event makes what other pods on the ENI know of the address as a neighbour wrong: it leaves the
// ENI, or comes to it because somebody named it, perhaps from a place where they have just talked to it.
func stray(e *entry, next ownership.State, event ownership.Event) bool {
	switch {
	case event == ownership.Register, event == ownership.Hold && e.source == sourceNamed:
		return true
	case next == ownership.Lost:
		return e.state != next
	case next != ownership.None:
		return false
	}
	return e.state != ownership.None && e.state != ownership.Assigning && e.state != ownership.Unknown
}

// applyAll moves the units by the event and records where they came to stand, and what could not be recorded before. When that
// fails it has moved them all the same: the janitor tries again.
func (p *iface) applyAll(us []unit, event ownership.Event) error {
	changed := false
	for _, u := range us {
		before := durable(p.state(u))
		p.apply(u, event)
		if durable(p.state(u)) != before {
			p.late[u], changed = true, true
		}
	}
	if !changed {
		return nil
	}
	return p.record()
}

// record records where the units stand that the ledger has not been told of. The caller holds n.mu.
func (p *iface) record() error {
	var recs []Record
	for u := range p.late {
		recs = append(recs, p.unitRecord(u))
	}
	if len(recs) == 0 {
		return nil
	}
	if err := p.n.ports.Ledger.Put(recs...); err != nil {
		return err
	}
	clear(p.late)
	return nil
}

func (p *iface) state(u unit) ownership.State {
	if e := p.units[u]; e != nil {
		return e.state
	}
	return ownership.None
}

// inState lists the units in one of the states, ascending.
func (p *iface) inState(states ...ownership.State) []unit {
	var us []unit
	for u, e := range p.units {
		if slices.Contains(states, e.state) {
			us = append(us, u)
		}
	}
	slices.SortFunc(us, compareUnits)
	return us
}

func (p *iface) count(states ...ownership.State) int {
	c := 0
	for _, e := range p.units {
		if slices.Contains(states, e.state) {
			c++
		}
	}
	return c
}

// slotsLeft is how many more units of a family EC2 would let the ENI have, as far as we know: prefixes and addresses
// take one each. What EC2 named as another ENI's takes no slot here; the slot of one that was lost is kept for its
// return.
func (p *iface) slotsLeft(v6 bool) int {
	used := p.choosing[family(v6)]
	for u, e := range p.units {
		if u.Addr().Is6() != v6 || e.delegated() || e.state == ownership.Unknown && e.named {
			continue
		}
		if e.state.OnENI() || e.state == ownership.Lost {
			used++
		}
	}
	if v6 {
		return max(0, p.n.limits.IPv6PerInterface-used)
	}
	return max(0, p.n.limits.SecondarySlots()-used)
}

// managed reports whether the ENI is one for pods, and why not.
func (p *iface) managed() (bool, string) {
	switch {
	case p.gone:
		return false, "is no longer attached"
	case p.eni.IsPrimary():
		return false, "is the instance's primary ENI, which belongs to the cluster's CNI"
	case p.eni.Tags[eni.TagNoManage] != "true":
		return false, "lacks the tag " + eni.TagNoManage + "=true, so the Amazon VPC CNI may take it"
	}
	return true, ""
}
