// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/candidate"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Held is who has what in a subnet.
type Held struct {
	Reservations []eni.Reservation
	taken        map[netip.Addr]bool
	prefixes     []netip.Prefix
	workers      map[eni.InstanceID]bool // that have one of our ENIs there
}

// NewHeld collects what the ENIs of a subnet hold.
func NewHeld(reservations []eni.Reservation, devices []eni.Device) Held {
	h := Held{Reservations: reservations, taken: map[netip.Addr]bool{}, workers: map[eni.InstanceID]bool{}}
	for _, d := range devices {
		for _, a := range append([]netip.Addr{d.Interface.Primary}, d.Secondary...) {
			h.taken[a] = true
		}
		h.prefixes = append(h.prefixes, d.Prefixes...)
		if worker := d.Tags[TagInstance]; worker != "" {
			h.workers[eni.InstanceID(worker)] = true
		}
	}
	return h
}

func (h Held) has(a netip.Addr) bool {
	return h.taken[a] || slices.ContainsFunc(h.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (h Held) reserved(a netip.Addr) bool {
	return slices.ContainsFunc(h.Reservations, func(r eni.Reservation) bool { return r.CIDR.Contains(a) })
}

// candidates are the first n addresses that the target's primary one could be, as far as is known, without those to avoid.
func (h Held) candidates(t Target, n int, avoid map[netip.Addr]bool) (free []netip.Addr) {
	if t.Addressing == Fixed {
		for _, a := range t.Addresses {
			if !h.has(a) && !avoid[a] && len(free) < n {
				free = append(free, a)
			}
		}
		return free
	}
	subnet := t.In.IPv4.Masked()
	for a := subnet.Addr(); subnet.Contains(a) && len(free) < n; a = a.Next() {
		if !eni.ReservedByVPC(subnet, a) && !h.has(a) && !avoid[a] && !h.reserved(a) {
			free = append(free, a)
		}
	}
	return free
}

// primary is the n-th address, from 0, that the target could have. When there are fewer, it counts from the start again.
func (h Held) primary(t Target, n int, avoid map[netip.Addr]bool) (netip.Addr, bool) {
	free := h.candidates(t, n+1, avoid)
	if len(free) == 0 {
		return netip.Addr{}, false
	}
	return free[n%len(free)], true
}

// stock chooses up to n addresses for pods, as the agent would: out of the reservations that are not for static addresses, in an
// order of the worker's own, wholly free blocks first.
func (h Held) stock(worker eni.InstanceID, t Target, n int, avoid map[netip.Addr]bool) (addrs []netip.Addr) {
	var ranges []netip.Prefix
	for _, r := range h.Reservations {
		if r.Type == eni.Explicit && r.Role() != eni.RoleStatic && r.CIDR.Addr().Is4() {
			ranges = append(ranges, r.CIDR)
		}
	}
	order := candidate.NewOrder(eni.ID(string(worker)+" "+t.Slot.String()), t.In.IPv4, ranges)
	for i := 0; i < order.Windows() && len(addrs) < n; i++ {
		addrs = append(addrs, order.Window(i).Pick(n-len(addrs), func(a netip.Addr) bool { return h.has(a) || avoid[a] || slices.Contains(addrs, a) })...)
	}
	return addrs
}
