// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/candidate"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// failed words why the class could not grow, tells those for whom waiting is of no use, and backs off.
func (c *class) failed(err error) {
	p, n := c.p, c.p.n
	if errors.Is(err, context.Canceled) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f := c.word(err)
	f.at = time.Now()
	c.failure = f
	if !f.final {
		p.result(err)
	} else {
		pause := min(fullPause<<min(c.fulls, 7), fullPauseCap)
		c.full = f.at.Add(pause/2 + rand.N(pause))
		c.fulls++
		p.reservationsAt = time.Time{} // read again before the next attempt: there may be more by then
		p.refuse()
	}
	n.log.Warn("pool cannot grow", "eni", p.id, "class", c.String(), "error", err, "again", time.Until(c.growAt()).Round(time.Millisecond))
}

// limit is what the class met last, if that still stands. The caller holds n.mu.
func (c *class) limit() *failure {
	if c.failure != nil && c.failure.slots && (c.p.slotsLeft(c.V6) > 0 || len(c.p.idle(c.V6)) > 0) {
		return nil
	}
	return c.failure
}

// slotsFull notes that every slot of the ENI is taken while somebody waits, by addresses that others have, and refuses
// those who wait in vain. It is not full for long when what takes the slots is about to be adopted.
func (c *class) slotsFull(now time.Time) {
	p := c.p
	_, due := p.orphans(now)
	soon := max(0, due.Sub(now))
	if c.prospects() > 0 && soon < p.n.cfg.MaxWait {
		return
	}
	c.failure = &failure{at: now, reason: Exhausted, final: true, slots: true, text: c.wordSlots(soon)}
	p.refuse()
}

// wordSlots says what takes the slots, and when some come free, if that is known.
func (c *class) wordSlots(soon time.Duration) string {
	if c.outside() {
		return c.wordFull()
	}
	p := c.p
	text := fmt.Sprintf("ENI slots full: %s holds %d secondary addresses, all that a %s allows, and none is free", p, c.slots(), p.n.instance.Type)
	if foreign := p.count(ownership.Foreign); foreign > 0 {
		text += fmt.Sprintf("; %d of them are foreign, which somebody else put there", foreign)
	}
	if c.prospects() > 0 {
		return text + fmt.Sprintf(", and are used from in %s on, when nobody has turned up for them; try again", soon.Round(time.Second))
	}
	return text + "; use more ENIs (several that match eni are filled in turn), a larger instance type, source prefix, or fewer pods per worker"
}

// outside reports whether the ranges lie in no reservation, so that there can be no address for them.
func (c *class) outside() bool {
	return c.Source == attachment.SourceReservation && len(c.Ranges) > 0 && len(c.reservations()) > 0 &&
		!slices.ContainsFunc(c.Ranges, func(r attachment.Range) bool {
			return slices.ContainsFunc(c.reservations(), func(x eni.Reservation) bool { return r.Contains(x.CIDR.Addr()) || x.CIDR.Contains(r.From) })
		})
}

func (c *class) slots() int { return c.p.slots(c.V6) }

func (p *iface) slots(v6 bool) int {
	if v6 {
		return p.n.limits.IPv6PerInterface
	}
	return p.n.limits.SecondarySlots()
}

// word turns an error into what the user should know: the limit and the remedy.
func (c *class) word(err error) *failure {
	p := c.p
	switch {
	case errors.Is(err, errReservationFull):
		return &failure{reason: Exhausted, final: true, text: c.wordFull()}
	case errors.Is(err, eni.ErrSlotsFull):
		return &failure{reason: Exhausted, final: true, text: fmt.Sprintf(
			"ENI slots full: EC2 allows %s no more addresses (a %s has %d per ENI); use more ENIs, a larger instance type, or fewer pods per worker",
			p, p.n.instance.Type, c.slots())}
	case errors.Is(err, eni.ErrSubnetFull):
		return &failure{reason: Exhausted, final: true, text: fmt.Sprintf("subnet full: %s has no free address; use another subnet", p.subnet.ID)}
	case errors.Is(err, eni.ErrNoPrefix):
		return &failure{reason: Exhausted, final: true, text: fmt.Sprintf(
			"no prefix free: %s has no contiguous block for a prefix; reserve one with a subnet CIDR reservation of type prefix", p.subnet.ID)}
	case errors.Is(err, eni.ErrThrottled):
		return &failure{reason: Exhausted, text: fmt.Sprintf(
			"throttled: EC2 limits the account's requests (RequestLimitExceeded) and has not let an assignment to %s through yet; it goes on trying; raise the request rate in Service Quotas or start fewer workers at once", p.id)}
	case errors.Is(err, eni.ErrUnauthorized):
		return &failure{reason: NotReady, final: true, text: fmt.Sprintf(
			"not authorised: the agent's role may not read or assign addresses of %s (%v); grant the actions of the agent's IAM policy", p.id, err)}
	default:
		return &failure{reason: NotReady, text: fmt.Sprintf("EC2 has not assigned an address to %s yet: %v; it goes on trying", p.id, err)}
	}
}

func (c *class) wordFull() string {
	if c.Source == attachment.SourceReservation && len(c.reservations()) == 0 {
		return fmt.Sprintf("no reservation: %s has no explicit subnet CIDR reservation for %s; create one (aws ec2 create-subnet-cidr-reservation)", c.p.subnet.ID, c)
	}
	if c.outside() {
		return fmt.Sprintf("no reservation: ranges %v lie in no explicit subnet CIDR reservation of %s; correct them, or reserve them", c.Ranges, c.p.subnet.ID)
	}
	var cidrs []string
	for _, r := range c.reservations() {
		cidrs = append(cidrs, r.CIDR.String())
	}
	remedy := "enlarge it or add another explicit reservation to the subnet"
	if len(c.Ranges)+len(c.Exclude) > 0 {
		remedy = "widen ranges, narrow exclude, or " + remedy
	}
	if !c.V6 && c.order.Windows() > maxWindows {
		return fmt.Sprintf("reservation full: none of the %d addresses looked at in %v of %s is free for %s; %s",
			maxWindows*candidate.WindowBlocks<<(32-candidate.BlockBits), cidrs, c.p.subnet.ID, c, remedy)
	}
	return fmt.Sprintf("reservation full: no free address is left in %v of %s for %s; %s", cidrs, c.p.subnet.ID, c, remedy)
}
