// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"net/netip"
	"time"
)

// CreateSubnetCIDRReservation reserves a range of a subnet. Addresses in use stay in use.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSubnetCidrReservation.html
func (c *Cloud) CreateSubnetCIDRReservation(now time.Time, in CreateSubnetCIDRReservationInput) (out Reservation, err error) {
	err = c.change(now, func(tx *change) error {
		out, err = tx.reserve(in)
		return err
	})
	if err != nil {
		return Reservation{}, err
	}
	return out, nil
}

func (tx *change) reserve(in CreateSubnetCIDRReservationInput) (Reservation, error) {
	s, err := tx.subnet(in.SubnetID)
	if err != nil {
		return Reservation{}, err
	}
	switch {
	case in.Type != ReservationExplicit && in.Type != ReservationPrefix:
		return Reservation{}, InvalidValue("Invalid value '%s' for reservationType.", in.Type)
	case !in.CIDR.IsValid() || in.CIDR != in.CIDR.Masked():
		return Reservation{}, InvalidValue("Value (%s) for parameter cidr is invalid. This is not a valid CIDR block.", in.CIDR)
	case !within(s.cidr(in.CIDR.Addr().Is4()), in.CIDR):
		// unverified: the wording; that it must lie in the subnet is documented.
		return Reservation{}, InvalidValue("Reservation CIDR %s is not within the subnet's CIDR block", in.CIDR)
	}
	for _, r := range tx.reservations.all() {
		if r.SubnetID == s.ID && r.CIDR.Overlaps(in.CIDR) {
			// Documented: "must not overlap", https://docs.aws.amazon.com/vpc/latest/userguide/subnet-cidr-reservation.html.
			// unverified: the wording.
			return Reservation{}, InvalidValue("Reservation CIDR %s has overlap with existing reserved CIDR block", in.CIDR)
		}
	}
	r := Reservation{
		ID: tx.newID("scr"), SubnetID: s.ID, CIDR: in.CIDR, Type: in.Type, Description: in.Description,
		OwnerID: s.OwnerID, Tags: maps.Clone(in.Tags),
	}
	tx.commit = append(tx.commit, func() { tx.reservations.put(tx.now, r.ID, r) })
	return r, nil
}

// DeleteSubnetCIDRReservation deletes a reservation and returns it. Addresses in it stay assigned.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteSubnetCidrReservation.html
func (c *Cloud) DeleteSubnetCIDRReservation(now time.Time, id string) (out Reservation, err error) {
	err = c.change(now, func(tx *change) error {
		r, ok := tx.reservations.newest(id)
		if !ok {
			// https://github.com/hashicorp/terraform-provider-aws/blob/main/internal/service/ec2/errors.go
			return Errorf("InvalidSubnetCidrReservationID.NotFound", "The subnet CIDR reservation ID '%s' does not exist", id)
		}
		out = r
		tx.commit = append(tx.commit, func() { tx.reservations.remove(tx.now, id) })
		return nil
	})
	return out, err
}

// AvailableIPv4 counts the subnet's addresses that are not in use: the five and every address of a delegated prefix
// count as used, a reservation does not.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Subnet.html (availableIpAddressCount)
func (v View) AvailableIPv4(s Subnet) int {
	if !s.IPv4.IsValid() {
		return 0
	}
	n := 1<<(32-s.IPv4.Bits()) - 5
	for _, e := range v.AllENIs() {
		if e.SubnetID == s.ID {
			n -= len(e.IPv4()) + 16*len(e.Prefixes)
		}
	}
	return n
}

// inside reports whether p is valid, canonical and lies in outer.
func inside(outer, p netip.Prefix) bool { return p.IsValid() && p == p.Masked() && within(outer, p) }
