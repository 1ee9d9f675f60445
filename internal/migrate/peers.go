// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package migrate

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// whereabouts reads `range` with its borders, and `ipRanges`, of which each gives a pod an address.
// https://github.com/k8snetworkplumbingwg/whereabouts/blob/master/doc/extended-configuration.md
func (m *migration) whereabouts(a *addressing, o object, at string) error {
	var sets []object
	if o["range"] != nil {
		sets = append(sets, o)
	}
	more, err := array(o["ipRanges"], at+"ipRanges")
	if err != nil {
		return err
	}
	places := []string{at}[:len(sets)]
	for i, raw := range more {
		place := fmt.Sprintf("%sipRanges[%d]", at, i)
		one, err := open(raw, place)
		if err != nil {
			return err
		}
		sets, places = append(sets, one), append(places, place+".")
	}
	if o["range"] == nil && o["exclude"] != nil { // for a range of a file on the workers
		sets, places = append(sets, object{"exclude": o["exclude"]}), append(places, at)
	}
	for i, set := range sets {
		if err := m.whereaboutsRange(a, set, places[i]); err != nil {
			return err
		}
	}
	if len(a.ranges) == 0 {
		m.note("%srange: missing: addresses come from any explicit reservation of the ENI's subnet that is not tagged multus-vpc.io/role=static", at)
	}
	m.severalOf(a, at)
	if err := m.gateway(a, o, at); err != nil {
		return err
	}
	if err := m.requests(a, o, at); err != nil {
		return err
	}
	m.reserve(a, at)
	return nil
}

// whereaboutsRange reads a CIDR, or "10.10.1.80-10.10.1.82/24", and what lies in it.
func (m *migration) whereaboutsRange(a *addressing, o object, at string) error {
	fields := map[string]string{}
	for _, key := range []string{"range", "range_start", "range_end"} {
		var err error
		if fields[key], err = text(o, at, key); err != nil {
			return err
		}
	}
	start, end := fields["range_start"], fields["range_end"]
	cidr := strings.TrimSpace(fields["range"])
	if from, to, borders := strings.Cut(cidr, "-"); borders {
		start, cidr = strings.TrimSpace(from), strings.TrimSpace(to)
		end, _, _ = strings.Cut(cidr, "/")
	}
	if cidr != "" {
		network, err := netip.ParsePrefix(cidr)
		if err != nil {
			return fmt.Errorf("%srange: %w", at, err)
		}
		r, err := between(network.Masked(), start, end)
		if err != nil {
			return fmt.Errorf("%srange: %w", at, err)
		}
		a.give(r)
	}
	exclude, err := strs(o, at, "exclude")
	if err != nil {
		return err
	}
	for i, s := range exclude {
		if p, err := netip.ParsePrefix(s); err == nil {
			s = p.Masked().String()
		}
		r, err := attachment.ParseRange(s)
		if err != nil {
			return fmt.Errorf("%sexclude[%d]: %w", at, i, err)
		}
		a.exclude = append(a.exclude, show(r))
	}
	return nil
}

// hostLocal reads one range in the object itself, and `ranges`: sets of alternatives, of which each gives a pod an address.
// https://www.cni.dev/plugins/current/ipam/host-local/
func (m *migration) hostLocal(a *addressing, o object, at string) error {
	if o["subnet"] != nil {
		if err := m.hostLocalRange(a, o, at); err != nil {
			return err
		}
	}
	sets, err := array(o["ranges"], at+"ranges")
	if err != nil {
		return err
	}
	for i, raw := range sets {
		set, err := array(raw, fmt.Sprintf("%sranges[%d]", at, i))
		if err != nil {
			return err
		}
		for j, raw := range set {
			place := fmt.Sprintf("%sranges[%d][%d]", at, i, j)
			one, err := open(raw, place)
			if err != nil {
				return err
			}
			if err := m.hostLocalRange(a, one, place+"."); err != nil {
				return err
			}
		}
	}
	if len(a.ranges) == 0 {
		return fmt.Errorf("%sranges: missing; host-local would refuse it", at)
	}
	if len(sets) > 1 {
		m.severalOf(a, at)
	}
	m.note("%stype: host-local gave each worker the whole range; now all workers share it, so that it must have room for all their pods", at)
	m.reserve(a, at)
	return nil
}

func (m *migration) hostLocalRange(a *addressing, o object, at string) error {
	fields := map[string]string{}
	for _, key := range []string{"subnet", "rangeStart", "rangeEnd"} {
		var err error
		if fields[key], err = text(o, at, key); err != nil {
			return err
		}
	}
	network, err := netip.ParsePrefix(fields["subnet"])
	if err != nil {
		return fmt.Errorf("%ssubnet: %w", at, err)
	}
	r, err := between(network.Masked(), fields["rangeStart"], fields["rangeEnd"])
	if err != nil {
		return fmt.Errorf("%ssubnet: %w", at, err)
	}
	a.give(r)
	return m.gateway(a, o, at)
}

// static reads addresses that the configuration names.
// https://www.cni.dev/plugins/current/ipam/static/
func (m *migration) static(a *addressing, o object, at string) error {
	if err := m.requests(a, o, at); err != nil {
		return err
	}
	if len(a.addresses) == 0 {
		m.note("%saddresses: missing: pods that ask for an address get it, others get one of the subnet's reservations", at)
	}
	return nil
}

// severalOf tells of ranges of one family.
func (m *migration) severalOf(a *addressing, at string) {
	if len(a.ranges) > len(a.families) {
		m.note("%sranges: %s: an interface has one address of a family now, out of any of these", at, strings.Join(a.ranges, ", "))
	}
}

// reserve tells what the ranges need.
func (m *migration) reserve(a *addressing, at string) {
	for _, r := range a.ranges {
		m.note("%sranges: %s needs a subnet CIDR reservation of type explicit around what pods are to get of it, not tagged multus-vpc.io/role=static", at, r)
	}
}
