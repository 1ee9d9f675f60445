// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/candidate"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// kind says what a class of stock is: addresses of one family and source, narrowed as a network asks for. Two networks
// that ask alike share a class; an address may serve several.
type kind struct {
	V6              bool               `json:"v6,omitempty"`
	Source          string             `json:"source"`
	ReservationTags map[string]string  `json:"reservationTags,omitempty"`
	Ranges          []attachment.Range `json:"ranges,omitempty"`
	Exclude         []attachment.Range `json:"exclude,omitempty"`
}

// kindsOf lists what a query wants, one per family.
func kindsOf(q attachment.Query) []kind {
	families := q.Families
	if len(families) == 0 {
		families = []string{attachment.IPv4}
	}
	kinds := make([]kind, len(families))
	for i, f := range families {
		kinds[i] = kind{V6: f == attachment.IPv6, Source: cmp.Or(q.Source, attachment.SourceReservation)}
		if kinds[i].Source == attachment.SourceReservation {
			kinds[i].ReservationTags, kinds[i].Ranges, kinds[i].Exclude = q.ReservationTags, q.Ranges, q.Exclude
		}
		kinds[i] = kinds[i].ofFamily()
	}
	return kinds
}

// ofFamily drops the ranges that say nothing of the kind's family.
func (k kind) ofFamily() kind {
	other := func(r attachment.Range) bool { return r.From.Is6() != k.V6 }
	k.Ranges = slices.DeleteFunc(slices.Clone(k.Ranges), other)
	k.Exclude = slices.DeleteFunc(slices.Clone(k.Exclude), other)
	return k
}

// key is the kind in a form that can be compared and kept in the ledger. JSON sorts the keys of maps.
func (k kind) key() string {
	v, err := json.Marshal(k)
	if err != nil { // strings and addresses always marshal
		panic(err)
	}
	return string(v)
}

func (k kind) family() string {
	if k.V6 {
		return "IPv6"
	}
	return "IPv4"
}

// admits reports whether ranges and exclude let the address in.
func (k kind) admits(a netip.Addr) bool {
	in := func(r attachment.Range) bool { return r.Contains(a) }
	return (len(k.Ranges) == 0 || slices.ContainsFunc(k.Ranges, in)) && !slices.ContainsFunc(k.Exclude, in)
}

// class is a kind of stock that an ENI keeps, with what its worker knows about getting more of it.
type class struct {
	kind
	p       *iface
	asked   time.Time // when a pod asked for it last, or the agent learnt of it
	failure *failure  // why the last attempt to grow failed
	full    time.Time // when it tries again after a limit
	fulls   int       // limits met in a row
	grown   time.Time // when the last call succeeded
	lost    int       // calls in a row in which another ENI was faster
	after   time.Time // of the last such call, when reads show who was
	births  time.Time // until when an address that EC2 chose may still turn up after a lost reply

	// The worker's own.
	order   candidate.Order
	orderOf []netip.Prefix
	window  int // where in the order
	reads   map[int]windowRead
}

// windowRead is who holds what in a window, as of a moment.
type windowRead struct {
	at     time.Time
	owners map[netip.Addr]eni.ID
}

// class returns the ENI's class of a kind, making it when it is new. The caller holds n.mu.
func (p *iface) class(k kind) *class {
	c := p.classes[k.key()]
	if c == nil {
		c = &class{kind: k, p: p, asked: time.Now(), reads: map[int]windowRead{}}
		p.classes[k.key()] = c
	}
	return c
}

// sortedClasses lists the ENI's classes in a stable order.
func (p *iface) sortedClasses() []*class {
	all := make([]*class, 0, len(p.classes))
	for _, key := range slices.Sorted(maps.Keys(p.classes)) {
		all = append(all, p.classes[key])
	}
	return all
}

// reservations that feed the class.
func (c *class) reservations() []eni.Reservation {
	return slices.DeleteFunc(slices.Clone(c.p.reservations), func(r eni.Reservation) bool { return !c.draws(r) })
}

// draws reports whether a reservation feeds the class: one of its type and family with its tags, never a static one.
func (c *class) draws(r eni.Reservation) bool {
	want := eni.Explicit
	if c.Source == attachment.SourcePrefix {
		want = eni.Prefix
	}
	if r.Type != want || r.Role() == eni.RoleStatic || r.CIDR.Addr().Is6() != c.V6 {
		return false
	}
	for k, v := range c.ReservationTags {
		if r.Tags[k] != v {
			return false
		}
	}
	return true
}

// feeds reports whether an address that nobody accounts for would be stock of the class.
func (c *class) feeds(a netip.Addr) bool {
	return c.Source == attachment.SourceReservation && a.Is6() == c.V6 && c.admits(a) &&
		slices.ContainsFunc(c.p.reservations, func(r eni.Reservation) bool { return r.CIDR.Contains(a) && c.draws(r) })
}

// within reports whether a prefix lies in a reservation that feeds the class.
func (c *class) within(u unit) bool {
	return slices.ContainsFunc(c.p.reservations, func(r eni.Reservation) bool {
		return r.CIDR.Bits() <= u.Bits() && r.CIDR.Contains(u.Addr()) && c.draws(r)
	})
}

// serves reports whether the entry at u is, or was, an address of the class.
func (c *class) serves(u unit, e *entry) bool {
	if u.Addr().Is6() != c.V6 || !u.IsSingleIP() || e.source != c.Source {
		return false
	}
	return c.Source != attachment.SourceReservation || c.feeds(u.Addr())
}

// stock counts what could be handed out, and what soon can.
func (c *class) stock() (free, coming int) {
	if c.Source == attachment.SourcePrefix {
		return c.p.delegatedStock(c.V6)
	}
	for u, e := range c.p.units {
		if !c.serves(u, e) {
			continue
		}
		switch e.state {
		case ownership.Free:
			free++
		case ownership.Assigning:
			coming++
		}
	}
	return free, coming
}

// used counts the addresses of the class that somebody has or had a moment ago.
func (c *class) used() int {
	used := 0
	for u, e := range c.p.units {
		if c.serves(u, e) && (e.state == ownership.Held || e.state == ownership.Cooling) {
			used++
		}
	}
	return used
}

// need is how many more addresses the class should get.
func (c *class) need() int {
	free, coming := c.stock()
	stock, cfg := free+coming, &c.p.n.cfg
	expected := stock + c.prospects()
	return max(cfg.WarmIPTarget+c.waiting()-expected, cfg.MinimumIPTarget-expected-c.used(), c.waiting()-stock, 0)
}

// waiting counts those who wait for an address of the class.
func (c *class) waiting() int {
	n := 0
	for _, w := range c.p.waiters {
		if slices.Contains(w.classes, c) {
			n++
		}
	}
	return n
}

// surplus is how much of the class's stock is more than wanted.
func (c *class) surplus() int {
	free, coming := c.stock()
	cfg := &c.p.n.cfg
	return max(0, min(free-cfg.WarmIPTarget-c.waiting(), free+coming+c.used()-cfg.MinimumIPTarget))
}

// pick finds an address of the class to hand out: what has been free the longest, or in the fullest prefix, so that
// whole prefixes come free. via is the prefix it lies in.
func (c *class) pick() (a netip.Addr, via unit, ok bool) {
	if c.Source == attachment.SourcePrefix {
		return c.p.pickDelegated(c.V6)
	}
	var best *entry
	for u, e := range c.p.units {
		if e.state != ownership.Free || !c.serves(u, e) || c.p.wanted(u.Addr()) {
			continue
		}
		if best == nil || e.since.Before(best.since) || e.since.Equal(best.since) && u.Addr().Less(a) {
			best, a = e, u.Addr()
		}
	}
	return a, unit{}, best != nil
}

// pickDelegated finds an address in the fullest of the ENI's prefixes that is not full.
func (p *iface) pickDelegated(v6 bool) (a netip.Addr, via unit, ok bool) {
	best := -1
	used := p.used()
	for u, e := range p.units {
		if e.state != ownership.Free || u.IsSingleIP() || u.Addr().Is6() != v6 {
			continue
		}
		room := capacity(u) - used[u]
		if room > 0 && (best < 0 || room < best || room == best && compareUnits(u, via) < 0) {
			best, via = room, u
		}
	}
	if best < 0 {
		return a, via, false
	}
	for a = via.Addr(); p.units[single(a)] != nil || p.spoken(a); {
		a = a.Next()
	}
	return a, via, true
}

// spoken reports whether an address of a prefix is spoken for: the VPC keeps some of each subnet, in IPv6 too
// (https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html#subnet-sizing-ipv6).
func (p *iface) spoken(a netip.Addr) bool {
	if a.Is4() {
		return eni.ReservedByVPC(p.subnet.IPv4, a)
	}
	return slices.ContainsFunc(p.subnet.IPv6, func(s netip.Prefix) bool { return eni.ReservedByVPC(s, a) })
}

// capacity is how many addresses of a prefix are counted: a /80 has more than any pool wants.
func capacity(u unit) int {
	const plenty = 1 << 12
	if bits := u.Addr().BitLen() - u.Bits(); bits < 12 {
		return 1 << bits
	}
	return plenty
}

// used counts the addresses of each delegated prefix that somebody has or had a moment ago.
func (p *iface) used() map[unit]int {
	counts := map[unit]int{}
	for _, e := range p.units {
		if e.delegated() {
			counts[e.via]++
		}
	}
	return counts
}

// delegatedStock counts the addresses of prefixes that could be handed out, and those that soon can.
func (p *iface) delegatedStock(v6 bool) (free, coming int) {
	used := p.used()
	for u, e := range p.units {
		switch {
		case u.IsSingleIP() || u.Addr().Is6() != v6:
		case e.state == ownership.Free:
			free += capacity(u) - used[u]
		case e.state == ownership.Assigning:
			coming += capacity(u)
		}
	}
	return free, coming
}

// randomIn draws an IPv6 address of the prefix.
func randomIn(r netip.Prefix) netip.Addr {
	b := r.Masked().Addr().As16()
	for bit := r.Bits(); bit < 128; bit++ {
		if rand.N(2) == 1 {
			b[bit/8] |= 1 << (7 - bit%8)
		}
	}
	return netip.AddrFrom16(b)
}

func (c *class) String() string {
	s := fmt.Sprintf("%s, source %s", c.family(), c.Source)
	if len(c.ReservationTags) > 0 {
		s += fmt.Sprintf(", reservationTags %v", c.ReservationTags)
	}
	if len(c.Ranges) > 0 {
		s += fmt.Sprintf(", ranges %v", c.Ranges)
	}
	if len(c.Exclude) > 0 {
		s += fmt.Sprintf(", exclude %v", c.Exclude)
	}
	return s
}
