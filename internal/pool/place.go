// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// rereadAfter is how old a list of reservations must be before an ADD that misses one has it read again: the user may
// just have made it.
const rereadAfter = 10 * time.Second

func (p *iface) String() string {
	return fmt.Sprintf("%s (card %d, device index %d, %s %s)",
		p.id, p.eni.NetworkCard, p.eni.DeviceIndex, p.subnet.ID, p.subnet.IPv4)
}

// Resolve finds the ENI that a query means, for addresses that come from elsewhere. It takes nothing.
func (n *Node) Resolve(ctx context.Context, q attachment.Query) (Allocation, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.MaxWait)
	defer cancel()
	if err := n.awaitReady(ctx); err != nil {
		return Allocation{}, err
	}
	p, err := n.resolve(q)
	if err != nil {
		return Allocation{}, err
	}
	if err := n.bringUp(p); err != nil {
		return Allocation{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return Allocation{ENI: p.eni, Subnet: p.subnet, Link: p.link}, nil
}

func (n *Node) resolve(q attachment.Query) (*iface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	matches, err := n.matching(q)
	if err != nil {
		return nil, err
	}
	return withLink(matches, q)
}

// place makes sure that there is an ENI for the waiter: a reservation that was made a moment ago is found, and the link
// of the ENI that would be chosen is up.
func (n *Node) place(ctx context.Context, w *waiter, q attachment.Query) error {
	choose := func() (*iface, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.choose(w, q)
	}
	p, err := choose()
	if errors.Is(err, errNoReservation) {
		if rerr := n.rereadReservations(ctx, q); rerr == nil {
			p, err = choose()
		}
	}
	if err != nil {
		return err
	}
	return n.bringUp(p)
}

// enlist has the ENI keep stock of what is asked for from now on, since a pod was here, and notes what the waiter waits
// for. The caller holds n.mu.
func (n *Node) enlist(p *iface, w *waiter, q attachment.Query) error {
	w.classes = nil
	if len(w.exact) > 0 {
		return nil
	}
	for _, k := range kindsOf(q) {
		c, err := n.activate(p, k)
		if err != nil {
			return err
		}
		w.classes = append(w.classes, c)
	}
	return nil
}

// activate lets the ENI take stock of a kind from now on, across restarts. The caller holds n.mu.
func (n *Node) activate(p *iface, k kind) (*class, error) {
	if c := p.classes[k.key()]; c != nil {
		c.asked = time.Now()
		return c, nil
	}
	if err := n.ports.Ledger.Put(Record{Key: activeKey(p.id, k), Value: json.RawMessage(k.key())}); err != nil {
		return nil, &Refusal{NotReady, fmt.Sprintf("cannot record that %s is in use: %v; free space in the agent's state directory", p.id, err)}
	}
	c := p.class(k)
	n.log.Info("ENI active: it keeps stock from now on", "eni", p.id, "class", c.String())
	p.poke()
	return c, nil
}

var errNoReservation = errors.New("no reservation")

type noReservation struct{ *Refusal }

func (noReservation) Is(target error) bool { return target == errNoReservation }

func (e noReservation) Unwrap() error { return e.Refusal }

// choose finds the ENI for the waiter. The caller holds n.mu, and queues the waiter before it lets go of it: whoever
// comes at the same time counts it in.
func (n *Node) choose(w *waiter, q attachment.Query) (*iface, error) {
	matches, err := n.matching(q)
	if err != nil {
		return nil, err
	}
	var managed []*iface
	var why []string
	for _, p := range matches {
		if reason := p.unfit(w, q); reason != "" {
			why = append(why, fmt.Sprintf("%s %s", p, reason))
		} else {
			managed = append(managed, p)
		}
	}
	if len(managed) == 0 {
		return nil, noReservation{&Refusal{Invalid, fmt.Sprintf("no ENI for pods: %s; %s", strings.Join(why, "; "), remedy(matches, q))}}
	}
	// A pod that comes back finds its cooling address where it left it.
	for _, old := range n.cooling(w.hold.Attachment) {
		for _, p := range managed {
			if p.id == old.eni && (!q.NeedLink || p.link.Index != 0) {
				return p, nil
			}
		}
	}
	// What is asked for by name may be on one of the ENIs already.
	for _, a := range w.exact {
		for _, p := range managed {
			if s := p.state(single(a)); s.OnENI() && (!q.NeedLink || p.link.Index != 0) {
				return p, nil
			}
		}
	}
	return withLink(managed, q)
}

// remedy is what to do when none of the ENIs that match is fit.
func remedy(matches []*iface, q attachment.Query) string {
	ours := slices.ContainsFunc(matches, func(p *iface) bool { ok, _ := p.managed(); return ok })
	switch {
	case ours && q.Sticky != nil:
		return fmt.Sprintf("ranges must lie in a reservation tagged %s=%s, and the StatefulSet's pods run where that subnet is: choose its Availability Zone by node affinity (topology.kubernetes.io/zone)",
			eni.TagRole, eni.RoleStatic)
	case ours && len(q.Requested) > 0:
		return "name an address of the ENI's subnet that nobody else has"
	}
	return fmt.Sprintf("tag secondary ENIs %s=true and create a reservation of type explicit in their subnet (aws ec2 create-subnet-cidr-reservation)", eni.TagNoManage)
}

// byName reports whether the query is about certain addresses, which do not come out of stock.
func byName(q attachment.Query) bool { return len(q.Requested) > 0 || q.Sticky != nil }

// unfit says why the ENI cannot serve the query, "" when it can.
func (p *iface) unfit(w *waiter, q attachment.Query) string {
	if ok, reason := p.managed(); !ok {
		return reason
	}
	for _, a := range w.exact {
		switch around := p.subnetAround(a); {
		case around.IsSingleIP():
			return fmt.Sprintf("is in %s in %s, which does not contain %s", p.subnet.ID, p.subnet.AZ, a)
		case p.spoken(a) || a == p.eni.Primary:
			return fmt.Sprintf("cannot have %s, which the VPC or the worker itself uses", a)
		}
		if r, shared := p.feedsOthers(a); shared && q.Sticky != nil {
			return fmt.Sprintf("is in %s, whose reservation %s contains %s and is not %s=%s, so that other pods get addresses out of it", p.subnet.ID, r.CIDR, a, eni.TagRole, eni.RoleStatic)
		}
	}
	if byName(q) { // no stock is needed
		return ""
	}
	for _, k := range kindsOf(q) {
		c := &class{kind: k, p: p}
		switch {
		case k.V6 && len(p.subnet.IPv6) == 0:
			return "is in " + string(p.subnet.ID) + ", which has no IPv6 CIDR"
		case !k.V6 && !p.subnet.IPv4.IsValid():
			return "is in " + string(p.subnet.ID) + ", which has no IPv4 CIDR"
		case k.Source == attachment.SourceReservation && !slices.ContainsFunc(p.reservations, c.draws):
			reason := "is in " + string(p.subnet.ID) + ", which has no explicit subnet CIDR reservation for pods"
			if k.V6 {
				reason += " in IPv6"
			}
			if len(k.ReservationTags) > 0 {
				reason += fmt.Sprintf(" with the tags %v", k.ReservationTags)
			}
			return reason
		}
	}
	return ""
}

// matching lists the ENIs that the query's selector matches; without a selector, the only managed one. The caller
// holds n.mu.
func (n *Node) matching(q attachment.Query) ([]*iface, error) {
	var all, secondary, managed []*iface
	for _, p := range n.sorted() {
		if p.gone {
			continue
		}
		all = append(all, p)
		if !p.eni.IsPrimary() {
			secondary = append(secondary, p)
		}
		if ok, _ := p.managed(); ok && p.invited(q) {
			managed = append(managed, p)
		}
	}
	if q.Selector.IsZero() {
		if len(managed) > 1 {
			return nil, &Refusal{Invalid, fmt.Sprintf(
				"no selector, and the worker has several ENIs for pods: %s; choose with eni (deviceIndex, networkCard, subnetID or subnetTags) or master",
				list(managed))}
		}
		if len(managed) == 1 {
			return managed, nil
		}
		if len(secondary) == 0 {
			return nil, &Refusal{Invalid, fmt.Sprintf("the worker %s has no secondary ENI; attach one tagged %s=true", n.instance.ID, eni.TagNoManage)}
		}
		return secondary, nil
	}
	matches := slices.DeleteFunc(slices.Clone(all), func(p *iface) bool { return !q.Selector.Matches(p.eni, p.subnet) })
	if len(matches) == 0 {
		return nil, &Refusal{Invalid, fmt.Sprintf("no ENI of the worker matches %s; choose among %s, or attach one that does", q.Selector, list(all))}
	}
	return matches, nil
}

// withLink drops the ENIs that cannot carry an ipvlan child, if the caller makes one, and takes the one with most room.
func withLink(ps []*iface, q attachment.Query) (*iface, error) {
	usable := ps
	if q.NeedLink {
		var why []string
		usable = nil
		for _, p := range ps {
			switch {
			case p.linkProblem != "":
				why = append(why, fmt.Sprintf("%s: %s", p, p.linkProblem))
			case p.link.Index == 0:
				why = append(why, fmt.Sprintf("%s has no link with MAC %s on this host; it may still be attaching", p, p.mac))
			case p.foreignMode != "":
				return nil, &Refusal{MasterMode, fmt.Sprintf(
					"link %s of %s already carries ipvlan children in mode %s, and the mode belongs to the link: a child in l2 would switch them; remove them or use another ENI",
					p.link.Name, p, p.foreignMode)}
			default:
				usable = append(usable, p)
			}
		}
		if len(usable) == 0 {
			return nil, &Refusal{NotReady, strings.Join(why, "; ")}
		}
	}
	return slices.MaxFunc(usable, func(a, b *iface) int { return cmp.Compare(a.roomFor(q), b.roomFor(q)) }), nil
}

// roomFor is how many more attachments that ask like q the ENI could serve, by the family that has least.
func (p *iface) roomFor(q attachment.Query) int {
	room := math.MaxInt
	if byName(q) {
		return p.slotsLeft(false) + p.slotsLeft(true)
	}
	for _, k := range kindsOf(q) {
		left := p.slotsLeft(k.V6)
		if k.Source == attachment.SourcePrefix {
			left *= 1 << 4 // a /28; a /80 has more than that
		}
		if c := p.classes[k.key()]; c != nil {
			free, coming := c.stock()
			left += free + coming - c.waiting()
		}
		room = min(room, left)
	}
	return room
}

// invited reports whether an ENI is for pods' addresses without being selected: its subnet has a reservation that feeds
// stock, or the query needs none.
func (p *iface) invited(q attachment.Query) bool {
	if q.Source != "" && q.Source != attachment.SourceReservation || byName(q) {
		return true
	}
	return slices.ContainsFunc(p.reservations, func(r eni.Reservation) bool { return r.Type == eni.Explicit && r.Role() != eni.RoleStatic })
}

func (n *Node) sorted() []*iface {
	all := make([]*iface, 0, len(n.ifaces))
	for _, p := range n.ifaces {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *iface) int {
		return cmp.Or(cmp.Compare(a.eni.NetworkCard, b.eni.NetworkCard), cmp.Compare(a.eni.DeviceIndex, b.eni.DeviceIndex), cmp.Compare(a.eni.ID, b.eni.ID))
	})
	return all
}

func list(ps []*iface) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}

// rereadReservations reads the reservations of the query's ENIs again if what is known is not brand new.
func (n *Node) rereadReservations(ctx context.Context, q attachment.Query) error {
	n.mu.Lock()
	matches, err := n.matching(q)
	n.mu.Unlock()
	if err != nil {
		return err
	}
	for _, p := range matches {
		if err := n.readReservations(ctx, p, rereadAfter); err != nil {
			return err
		}
	}
	return nil
}
