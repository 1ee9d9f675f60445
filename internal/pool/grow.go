// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/candidate"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// grow gets the class more stock: out of reservations by naming addresses, else by having EC2 choose.
func (c *class) grow(ctx context.Context) {
	c.p.n.mu.Lock()
	need := c.ask()
	c.p.n.mu.Unlock()
	if need <= 0 {
		return
	}
	if c.Source != attachment.SourceReservation {
		c.growByCount(ctx, need)
		return
	}
	if err := c.growByName(ctx, need); err != nil {
		c.failed(err)
	}
}

// growByName asks EC2 for as many addresses as are needed: it reads who holds the next candidates, names free ones in
// one call, and leaves it to EC2 to decide. What comes of the call is filed by assign.
func (c *class) growByName(ctx context.Context, need int) error {
	p, n := c.p, c.p.n
	if err := n.readReservations(ctx, p, reservationAge); err != nil {
		return err
	}
	var addrs []netip.Addr
	var err error
	if c.V6 {
		addrs = c.draw(need)
	} else if addrs, err = c.candidates(ctx, need); err != nil {
		return err
	}
	if len(addrs) == 0 {
		clear(c.reads) // the next attempt looks again: space may have come back
		return errReservationFull
	}
	before := p.shown(ctx)
	n.mu.Lock()
	us := p.leftOf(singles(addrs), c.V6)
	if len(us) == 0 {
		n.mu.Unlock()
		return nil
	}
	for _, u := range us {
		p.units[u] = &entry{since: time.Now(), source: c.Source}
	}
	err = p.applyAll(us, ownership.Assign)
	p.doubt(us, before)
	p.asking(us)
	if err != nil {
		_ = p.applyAll(us, ownership.NotDone) // the ledger is full: what it does not know must not be asked for
	}
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("record the intent: %w; free space in the agent's state directory", err)
	}
	c.assign(ctx, us, true)
	return nil
}

// leftOf drops from units that were chosen before what floating addresses have taken meanwhile: the unit itself, or the slot. The
// caller holds n.mu.
func (p *iface) leftOf(us []unit, v6 bool) []unit {
	us = slices.DeleteFunc(us, func(u unit) bool { return p.units[u] != nil })
	return us[:min(len(us), p.slotsLeft(v6))]
}

var errReservationFull = errors.New("reservation full")

// assign names the addresses to EC2 and files the answer. When EC2 refuses because some are another ENI's, the others
// are sent at once, but only once more: whether a refused batch was applied in part is not documented, so after that a
// read decides.
func (c *class) assign(ctx context.Context, us []unit, again bool) {
	p, n := c.p, c.p.n
	err := p.assignUnits(ctx, us, false)
	n.mu.Lock()
	p.answered(us)
	n.log.Info("addresses asked for", "eni", p.id, "ips", names(us), "outcome", outcome(err))
	var survivors []unit
	if inUse, ok := errors.AsType[*eni.InUseError](err); ok {
		n.cfg.Count(Conflict)
		survivors = p.refused(us, singles(inUse.Addrs), again)
		p.asking(survivors)
		c.overtaken()
	} else {
		p.file(us, err, again)
	}
	n.mu.Unlock()
	if len(survivors) > 0 {
		c.assign(ctx, survivors, false)
		return
	}
	if err != nil && !errors.Is(err, eni.ErrAddressInUse) {
		c.failed(err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.result(nil)
	if err == nil {
		c.failure, c.full, c.fulls, c.grown = nil, time.Time{}, 0, time.Now()
		if again {
			c.lost = 0
		}
	}
}

// overtaken notes that another ENI was faster: what was read of the windows is behind, and whoever started with us would
// meet us again. So the class goes on in the next window, with a new read, and at a random moment at which reads show who
// has what. The caller holds n.mu.
func (c *class) overtaken() {
	pause := conflictPause << min(c.lost, 2)
	c.lost++
	c.after = time.Now().Add(pause/2 + rand.N(pause/2))
	c.reads = map[int]windowRead{}
	c.window = (c.window + 1) % max(c.order.Windows(), 1)
}

// refused files a batch of which EC2 named some as another ENI's, and returns those that are to be sent again.
func (p *iface) refused(us, named []unit, again bool) (survivors []unit) {
	isNamed := func(u unit) bool { return slices.Contains(named, u) }
	if again && len(named) > 0 {
		survivors = slices.DeleteFunc(slices.Clone(us), isNamed)
		us = slices.DeleteFunc(slices.Clone(us), func(u unit) bool { return !isNamed(u) })
	}
	if err := p.applyAll(us, ownership.Refused); err != nil {
		p.n.log.Error("cannot record a refusal", "error", err)
	}
	for _, u := range us {
		if e := p.units[u]; e != nil && isNamed(u) {
			e.named = true
		}
	}
	return survivors
}

// file applies the outcome of an assign that was not refused for an address in use. Of survivors that are sent again
// nothing is known to be undone: the refused batch may have been applied in part.
func (p *iface) file(us []unit, err error, first bool) {
	var event ownership.Event
	switch {
	case err == nil:
		return // assigning until a read shows them
	case errors.Is(err, eni.ErrThrottled) && first:
		event = ownership.NotDone
	case errors.Is(err, eni.ErrOutcomeUnknown):
		event = ownership.ReplyLost
	default:
		event = ownership.Refused
	}
	if lerr := p.applyAll(us, event); lerr != nil {
		p.n.log.Error("cannot record an outcome", "error", lerr)
	}
}

// growByCount has EC2 choose addresses or prefixes. Nothing can be recorded before the answer, so after a lost reply
// whatever new turns up on the ENI for a while is taken for ours.
func (c *class) growByCount(ctx context.Context, need int) {
	p, n := c.p, c.p.n
	before := p.shown(ctx)
	n.mu.Lock()
	need = min(need, p.slotsLeft(c.V6))
	p.choosing[family(c.V6)] = need
	n.mu.Unlock()
	if need == 0 {
		return
	}
	var us []unit
	var err error
	if c.Source == attachment.SourcePrefix {
		us, err = n.ports.EC2.AssignPrefixes(ctx, p.id, c.V6, need)
	} else {
		var addrs []netip.Addr
		addrs, err = n.ports.EC2.AssignCount(ctx, p.id, c.V6, need)
		us = singles(addrs)
	}
	n.mu.Lock()
	p.choosing[family(c.V6)] = 0
	if errors.Is(err, eni.ErrOutcomeUnknown) {
		c.births = time.Now().Add(birthTime) // also when the next request succeeds
	}
	for _, u := range us {
		if p.units[u] == nil {
			p.units[u] = &entry{since: time.Now(), source: c.Source}
			if lerr := p.applyAll([]unit{u}, ownership.Assign); lerr != nil {
				n.log.Error("cannot record what EC2 chose; it is found again on the ENI", "error", lerr)
			}
		}
	}
	p.doubt(us, before)
	p.answered(us)
	n.log.Info("EC2 asked to choose", "eni", p.id, "class", c.String(), "count", need, "ips", names(us), "outcome", outcome(err))
	n.mu.Unlock()
	if err != nil {
		c.failed(err)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.result(nil)
	c.failure, c.full, c.fulls, c.grown = nil, time.Time{}, 0, time.Now()
}

// maxWindows is how many windows in a row are read without a find: a reservation of a /16 has 342, and 500 workers that
// read it whole would need an hour of the account's requests. Where 8 windows of the ENI's order, 1,536 addresses, have
// nothing free the reservation is as good as full; the next attempt goes on from there.
const maxWindows = 8

// candidates picks addresses that nobody held when it looked. It reads on in the ENI's order until it has enough, or
// something from two windows, or has been through the whole order or maxWindows of it.
func (c *class) candidates(ctx context.Context, need int) ([]netip.Addr, error) {
	c.reorder()
	p := c.p
	var picked []netip.Addr
	for tried := 1; tried <= min(c.order.Windows(), maxWindows); tried++ {
		w := c.order.Window(c.window)
		owners, err := c.owners(ctx, w)
		if err != nil {
			return nil, err
		}
		p.n.mu.Lock()
		picked = append(picked, w.Pick(need-len(picked), func(a netip.Addr) bool {
			_, owned := owners[a]
			return owned || !c.admits(a) || !p.untouched(a)
		})...)
		p.n.mu.Unlock()
		if len(picked) >= need || tried >= 2 && len(picked) > 0 {
			break
		}
		c.window = (c.window + 1) % c.order.Windows()
	}
	return picked, nil
}

// untouched reports whether we have nothing to do with the address, and had not a moment ago.
func (p *iface) untouched(a netip.Addr) bool {
	u := single(a)
	return p.units[u] == nil && time.Since(p.recent[u]) >= p.n.cfg.Cooldown
}

// draw picks IPv6 addresses at random: among so many, two workers do not meet, and EC2 decides if they do.
func (c *class) draw(need int) []netip.Addr {
	p := c.p
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	rs := c.reservations()
	var picked []netip.Addr
	const tries = 64 // per address: narrow ranges and full /124s must come to an end
	for i := 0; len(rs) > 0 && len(picked) < need && i < tries*need; i++ {
		r := rs[rand.N(len(rs))].CIDR
		a := randomIn(r)
		if len(c.Ranges) > 0 {
			a = randomBetween(c.Ranges[rand.N(len(c.Ranges))])
		}
		if r.Contains(a) && !p.spoken(a) && c.admits(a) && p.untouched(a) && !slices.Contains(picked, a) {
			picked = append(picked, a)
		}
	}
	return picked
}

// randomBetween draws an address of the range.
func randomBetween(r attachment.Range) netip.Addr {
	from, to := number(r.From), number(r.To)
	span := to.Sub(to, from)
	b := make([]byte, 16)
	for i := range b {
		b[i] = byte(rand.N(256))
	}
	n := new(big.Int).Mod(new(big.Int).SetBytes(b), span.Add(span, big.NewInt(1)))
	var a [16]byte
	n.Add(n, from).FillBytes(a[:])
	return netip.AddrFrom16(a)
}

func number(a netip.Addr) *big.Int {
	b := a.As16()
	return new(big.Int).SetBytes(b[:])
}

// reorder makes the order anew when the reservations changed.
func (c *class) reorder() {
	p := c.p
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	var cidrs []netip.Prefix
	for _, r := range c.reservations() {
		cidrs = append(cidrs, r.CIDR)
	}
	if !slices.Equal(cidrs, c.orderOf) {
		c.order, c.orderOf = candidate.NewOrder(p.id, p.subnet.IPv4, cidrs), cidrs
		c.window, c.reads = 0, map[int]windowRead{}
	}
}

// owners says who holds what in the window, from a read that is not too old.
func (c *class) owners(ctx context.Context, w candidate.Window) (map[netip.Addr]eni.ID, error) {
	if r, ok := c.reads[c.window]; ok && time.Since(r.at) < windowAge {
		return r.owners, nil
	}
	began := time.Now()
	owners, err := c.p.n.ports.EC2.Owners(ctx, c.p.subnet.ID, w.Addrs())
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(c.reads, func(_ int, r windowRead) bool { return time.Since(r.at) >= windowAge })
	c.reads[c.window] = windowRead{began, owners}
	return owners, nil
}

// readReservations reads the reservations of p's subnet unless they are younger than maxAge.
func (n *Node) readReservations(ctx context.Context, p *iface, maxAge time.Duration) error {
	n.mu.Lock()
	fresh := time.Since(p.reservationsAt) < maxAge
	n.mu.Unlock()
	if fresh {
		return nil
	}
	began := time.Now()
	rs, err := n.ports.EC2.Reservations(ctx, p.subnet.ID)
	if err != nil {
		return fmt.Errorf("read the reservations of %s: %w", p.subnet.ID, err)
	}
	slices.SortFunc(rs, func(a, b eni.Reservation) int { return a.CIDR.Addr().Compare(b.CIDR.Addr()) })
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range n.ifaces { // one read serves all ENIs of the subnet
		if q.subnet.ID == p.subnet.ID {
			q.reservations, q.reservationsAt = rs, began
		}
	}
	p.reservations, p.reservationsAt = rs, began
	return nil
}
