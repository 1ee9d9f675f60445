// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/candidate"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// grow asks EC2 for as many addresses as are needed: it reads who holds the next candidates, names free ones in one
// call, and leaves it to EC2 to decide.
func (p *iface) grow(ctx context.Context) {
	n := p.n
	began := time.Now()
	n.mu.Lock()
	need := p.need()
	n.mu.Unlock()
	if need <= 0 {
		return
	}
	addrs, err := p.candidates(ctx, need)
	if err == nil && len(addrs) == 0 {
		err = errReservationFull
	}
	if err != nil {
		p.failed(err, began)
		return
	}
	n.mu.Lock()
	err = p.applyAll(addrs, ownership.Assign)
	p.stamp(addrs)
	if err != nil {
		_ = p.applyAll(addrs, ownership.NotDone) // the ledger is full: what it does not know must not be asked for
		n.mu.Unlock()
		p.failed(fmt.Errorf("record the intent: %w", err), began)
		return
	}
	n.mu.Unlock()
	p.assign(ctx, addrs, true, began)
}

var errReservationFull = errors.New("reservation full")

// assign names the addresses to EC2 and files the answer. When EC2 refuses because some are another ENI's, the others
// are sent at once, but only once more: whether a refused batch was applied in part is not documented, so after that a
// read decides.
func (p *iface) assign(ctx context.Context, addrs []netip.Addr, again bool, began time.Time) {
	n := p.n
	err := n.ports.EC2.Assign(ctx, p.id, addrs, false)
	n.mu.Lock()
	p.stamp(addrs)
	n.log.Info("addresses asked for", "eni", p.id, "ips", addrs, "outcome", outcome(err))
	var survivors []netip.Addr
	if inUse, ok := errors.AsType[*eni.InUseError](err); ok {
		survivors = p.refused(addrs, inUse.Addrs, again)
	} else {
		p.file(addrs, err)
	}
	n.mu.Unlock()
	if len(survivors) > 0 {
		p.assign(ctx, survivors, false, began)
		return
	}
	if err != nil && !errors.Is(err, eni.ErrAddressInUse) {
		p.failed(err, began)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p.result(nil)
	if err == nil {
		p.failure, p.w.full, p.w.fulls = nil, time.Time{}, 0
	}
}

// refused files a batch of which EC2 named some as another ENI's, and returns those that are to be sent again.
func (p *iface) refused(addrs, named []netip.Addr, again bool) (survivors []netip.Addr) {
	isNamed := func(a netip.Addr) bool { return slices.Contains(named, a) }
	if again && len(named) > 0 {
		survivors = slices.DeleteFunc(slices.Clone(addrs), isNamed)
		addrs = slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !isNamed(a) })
	}
	if err := p.applyAll(addrs, ownership.Refused); err != nil {
		p.n.log.Error("cannot record a refusal", "error", err)
	}
	for _, a := range addrs {
		if isNamed(a) {
			p.addrs[a].named = true
		}
	}
	return survivors
}

// file applies the outcome of an assign that was not refused for an address in use.
func (p *iface) file(addrs []netip.Addr, err error) {
	var event ownership.Event
	switch {
	case err == nil:
		return // assigning until a read shows them
	case errors.Is(err, eni.ErrThrottled):
		event = ownership.NotDone
	case errors.Is(err, eni.ErrOutcomeUnknown):
		event = ownership.ReplyLost
	default:
		event = ownership.Refused
	}
	if lerr := p.applyAll(addrs, event); lerr != nil {
		p.n.log.Error("cannot record an outcome", "error", lerr)
	}
}

// candidates picks addresses that nobody held when it looked. It reads on in the ENI's order until it has enough, or
// something from two windows, or has been through the whole order.
func (p *iface) candidates(ctx context.Context, need int) ([]netip.Addr, error) {
	if err := p.n.readReservations(ctx, p, reservationAge); err != nil {
		return nil, err
	}
	p.reorder()
	var picked []netip.Addr
	for tried := 1; tried <= p.w.order.Windows(); tried++ {
		w := p.w.order.Window(p.w.window)
		owners, err := p.owners(ctx, w)
		if err != nil {
			return nil, err
		}
		p.n.mu.Lock()
		picked = append(picked, w.Pick(need-len(picked), func(a netip.Addr) bool {
			_, owned := owners[a]
			return owned || p.addrs[a] != nil || time.Since(p.recent[a]) < p.n.cfg.Cooldown
		})...)
		p.n.mu.Unlock()
		if len(picked) >= need || tried >= 2 && len(picked) > 0 {
			break
		}
		p.w.window = (p.w.window + 1) % p.w.order.Windows()
	}
	return picked, nil
}

// reorder makes the order anew when the reservations changed.
func (p *iface) reorder() {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	cidrs := make([]netip.Prefix, len(p.reservations))
	for i, r := range p.reservations {
		cidrs[i] = r.CIDR
	}
	if !slices.Equal(cidrs, p.w.orderOf) {
		p.w.order, p.w.orderOf = candidate.NewOrder(p.id, p.subnet.IPv4, cidrs), cidrs
		p.w.window, p.w.reads = 0, map[int]windowRead{}
	}
	maps.DeleteFunc(p.recent, func(_ netip.Addr, at time.Time) bool { return time.Since(at) > 2*p.n.cfg.Cooldown })
}

// owners says who holds what in the window, from a read that is not too old.
func (p *iface) owners(ctx context.Context, w candidate.Window) (map[netip.Addr]eni.ID, error) {
	if r, ok := p.w.reads[p.w.window]; ok && time.Since(r.at) < windowAge {
		return r.owners, nil
	}
	began := time.Now()
	owners, err := p.n.ports.EC2.Owners(ctx, p.subnet.ID, w.Addrs())
	if err != nil {
		return nil, err
	}
	p.w.reads[p.w.window] = windowRead{began, owners}
	return owners, nil
}

// failed words why the ENI could not grow, tells those for whom waiting is of no use, and backs off.
func (p *iface) failed(err error, began time.Time) {
	n := p.n
	if errors.Is(err, context.Canceled) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f := p.word(err)
	f.at = time.Now()
	p.failure = f
	if !f.final {
		p.result(err)
	} else {
		pause := min(fullPause<<min(p.w.fulls, 7), fullPauseCap)
		p.w.full = f.at.Add(pause/2 + rand.N(pause))
		p.w.fulls++
		p.reservationsAt = time.Time{} // read again before the next attempt: there may be more by then
		p.refuse()
	}
	n.log.Warn("pool cannot grow", "eni", p.id, "error", err, "again", time.Until(p.growAt()).Round(time.Millisecond))
}

// word turns an error into what the user should know: the limit and the remedy.
func (p *iface) word(err error) *failure {
	switch {
	case errors.Is(err, errReservationFull):
		return &failure{reason: Exhausted, final: true, text: fmt.Sprintf(
			"reservation full: no free address is left in %v of %s; enlarge it or add another explicit reservation to the subnet", p.w.orderOf, p.subnet.ID)}
	case errors.Is(err, eni.ErrSlotsFull):
		return &failure{reason: Exhausted, final: true, text: fmt.Sprintf(
			"ENI slots full: EC2 allows %s no more addresses (a %s has %d secondary addresses per ENI); use more ENIs, a larger instance type, or fewer pods per worker",
			p, p.n.instance.Type, p.n.limits.SecondarySlots())}
	case errors.Is(err, eni.ErrSubnetFull):
		return &failure{reason: Exhausted, final: true, text: fmt.Sprintf("subnet full: %s has no free address; use another subnet", p.subnet.ID)}
	case errors.Is(err, eni.ErrThrottled):
		return &failure{reason: Exhausted, text: fmt.Sprintf(
			"throttled: EC2 limits the account's requests (RequestLimitExceeded) and has not let an assignment to %s through yet; it goes on trying; raise the request rate in Service Quotas or start fewer workers at once", p.id)}
	case errors.Is(err, eni.ErrUnauthorized):
		return &failure{reason: NotReady, final: true, text: fmt.Sprintf(
			"not authorised: the agent's role may not read or assign addresses of %s (%v); grant ec2:AssignPrivateIpAddresses, ec2:UnassignPrivateIpAddresses, ec2:DescribeNetworkInterfaces and ec2:GetSubnetCidrReservations", p.id, err)}
	default:
		return &failure{reason: NotReady, text: fmt.Sprintf("EC2 has not assigned an address to %s yet: %v; it goes on trying", p.id, err)}
	}
}

// readReservations reads the explicit reservations of p's subnet unless they are younger than maxAge.
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
	rs = slices.DeleteFunc(rs, func(r eni.Reservation) bool {
		return r.Type != eni.Explicit || r.Role() == eni.RoleStatic || !r.CIDR.Addr().Is4()
	})
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
