// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
)

type handle = netlinksafe.Handle

// addRows are about what ADD makes and answers.
func addRows() []row {
	return []row{
		{
			id: "add-interface", form: true, level: must, where: "§2 ADD, §5 ADD Success", needs: []need{anInterface},
			says:  "the interface is in the container, up, with the addresses of the result; the result has name, MAC and sandbox of it, and each address points to it",
			check: addInterface,
		},
		{
			id: "add-mtu", level: should, where: "§5 ADD Success", since: "1.1.0", needs: []need{anInterface},
			says: "the result has the interface's MTU", check: addMTU,
		},
		{
			id: "add-abbreviated", level: must, where: "§5 Delegated plugins", needs: []need{anIPAM},
			says: "an IPAM plugin's result has no interfaces, and none in its addresses", check: addAbbreviated,
		},
		{
			id: "add-exists", level: must, where: "§2 ADD", needs: []need{anInterface},
			says: "ADD fails when the container has an interface of that name, and leaves that one alone", check: addExists,
		},
		{
			id: "add-hostname", level: must, where: "§2 Parameters, CNI_IFNAME", needs: []need{anInterface},
			says: "a name that the host has an interface of works in a container, or is refused; the host's stays as it is", check: addHostName,
		},
		{
			id: "add-prevresult", form: true, level: must, where: "§2 ADD, §5 ADD Success", needs: []need{anInterface},
			says: "the result of an earlier plugin in the chain is in the result", check: addPrevResult,
		},
		{
			id: "add-repeat", level: extra, where: "§2 ADD is a duty of runtimes", needs: []need{choosing},
			says: "a second ADD of a living attachment fails or has the same address", check: addRepeat,
		},
		{
			id: "add-repeat-keeps", level: extra, where: "§2 ADD is a duty of runtimes", needs: []need{counted},
			says: "and the attachment goes on holding one address, which no other gets", check: addRepeatKeeps,
		},
		{
			id: "add-exhausted", level: must, where: "§2 Errors", needs: []need{small},
			says: "ADD fails when there is no address left, and works again when one was given back", check: addExhausted,
		},
		{
			id: "add-mode", level: extra, where: "kernel: one mode per ipvlan master", needs: []need{anInterface},
			says: "an attachment whose configuration wants another ipvlan mode on the same link does not change that of the others", check: addMode,
		},
	}
}

func addInterface(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	index := slices.IndexFunc(a.result.Interfaces, func(l madeLink) bool { return l.Name == a.ifName && l.Sandbox == a.netns })
	if index < 0 {
		return fmt.Errorf("the result has no interface %s in the container's sandbox", a.ifName)
	}
	return a.inside(func(h handle, l netlink.Link) error {
		if mac := l.Attrs().HardwareAddr.String(); a.result.Interfaces[index].MAC != mac {
			return fmt.Errorf("the interface's MAC is not the result's")
		}
		if l.Attrs().RawFlags&1 == 0 { // IFF_UP
			return errors.New("the interface is down")
		}
		for _, ip := range a.result.IPs {
			if ip.Interface == nil || *ip.Interface != index {
				return errors.New("an address of the result does not point to the interface")
			}
			if has, err := carries(h, l, ip.Address); err != nil || !has {
				return errors.Join(err, errors.New("the interface does not have an address of the result"))
			}
		}
		return nil
	})
}

// carries reports whether the link has the address.
func carries(h handle, l netlink.Link, address netip.Prefix) (bool, error) {
	list, err := h.AddrList(l, netlink.FAMILY_ALL)
	return slices.ContainsFunc(list, func(a netlink.Addr) bool { return a.IPNet.String() == address.String() }), err
}

func addMTU(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	return a.inside(func(_ handle, l netlink.Link) error {
		for _, i := range a.result.Interfaces {
			if i.Name == a.ifName && i.MTU != l.Attrs().MTU {
				return fmt.Errorf("it has %d for an interface of %d", i.MTU, l.Attrs().MTU)
			}
		}
		return nil
	})
}

func addAbbreviated(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	if len(a.result.Interfaces) > 0 || slices.ContainsFunc(a.result.IPs, func(ip madeAddress) bool { return ip.Interface != nil }) {
		return errors.New("the result has interfaces")
	}
	return nil
}

func addExists(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	h, err := podHandle(a)
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a.ifName
	if err = h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("make an interface: %w", err)
	}
	if _, _, err = k.fails(call{command: "ADD", at: a}); err != nil {
		return err
	}
	l, err := h.LinkByName(a.ifName)
	if err != nil || l.Type() != "bridge" {
		return errors.Join(err, errors.New("the interface that was there is gone"))
	}
	return nil
}

func addHostName(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	a.ifName = "eth0" // the worker's own
	before, err := k.hostLink(a.ifName)
	if err != nil {
		return err
	}
	r, err := k.do(call{command: "ADD", at: a})
	if err != nil {
		return err
	}
	if r.code != 0 {
		_, err = r.refusal()
	} else {
		_, err = r.result(k.version)
	}
	after, hostErr := k.hostLink(a.ifName)
	if err = errors.Join(err, hostErr); err == nil && before != after {
		err = errors.New("the host's interface is another one now")
	}
	return err
}

// hostLink is the index of a link where the plugins run.
func (k *kit) hostLink(name string) (index int, err error) {
	err = k.ground.do(func() error {
		l, findErr := netlink.LinkByName(name)
		if findErr == nil {
			index = l.Attrs().Index
		}
		return findErr
	})
	return index, err
}

func addPrevResult(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	earlier := object{"address": "192.0.2.7/24", "interface": 0}
	if !since(k.version, "1.0.0") {
		earlier["version"] = "4"
	}
	prev := object{
		"cniVersion": k.version,
		"interfaces": []any{object{"name": "first0", "mac": "02:00:00:00:00:07", "sandbox": a.netns}},
		"ips":        []any{earlier},
	}
	if err := k.add(a, object{"prevResult": prev}); err != nil {
		return err
	}
	first := slices.IndexFunc(a.result.Interfaces, func(l madeLink) bool { return l.Name == "first0" })
	own := slices.IndexFunc(a.result.Interfaces, func(l madeLink) bool { return l.Name == a.ifName })
	switch {
	case first < 0:
		return errors.New("the result does not have the interface of prevResult")
	case own < 0:
		return errors.New("the result does not have the plugin's own interface")
	}
	for _, ip := range a.result.IPs {
		want := own
		if ip.Address.String() == earlier["address"] {
			want = first
		}
		if ip.Interface == nil || *ip.Interface != want {
			return errors.New("an address points to the wrong interface")
		}
	}
	if !slices.Contains(a.result.addresses(), netip.MustParseAddr("192.0.2.7")) {
		return errors.New("the result does not have the address of prevResult")
	}
	return nil
}

// again is a second ADD.
func (k *kit) again(a *attachment) error {
	r, err := k.do(call{command: "ADD", at: a, config: a.config})
	if err != nil {
		return err
	}
	if r.code != 0 {
		_, err = r.refusal()
		return err
	}
	second, err := r.result(k.version)
	if err == nil && !slices.Equal(second.addresses(), a.result.addresses()) {
		err = errors.New("the second ADD has another address")
	}
	return err
}

func addRepeat(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	return k.again(a)
}

func addRepeatKeeps(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	a, err := k.attach()
	if err != nil {
		return err
	}
	if err = k.holds(before, len(a.result.IPs), "after ADD"); err != nil {
		return err
	}
	if _, err = k.do(call{command: "ADD", at: a, config: a.config}); err != nil {
		return err
	}
	if err = k.holds(before, len(a.result.IPs), "after a second ADD"); err != nil {
		return err
	}
	other, err := k.attach()
	if err != nil {
		return err
	}
	if slices.Equal(other.result.addresses(), a.result.addresses()) {
		return errors.New("another attachment got the address")
	}
	return nil
}

// exhaust attaches as many as there is room for, with the configuration that it returns.
func (k *kit) exhaust() (list []*attachment, narrow object, err error) {
	*k.smalls++
	narrow = k.subject.Small(*k.smalls)
	for range k.subject.Capacity {
		a, err := k.container()
		if err != nil {
			return nil, nil, err
		}
		if err := k.add(a, narrow); err != nil {
			return nil, nil, fmt.Errorf("attachment %d of %d: %w", len(list)+1, k.subject.Capacity, err)
		}
		list = append(list, a)
	}
	return list, narrow, nil
}

func addExhausted(k *kit) error {
	all, narrow, err := k.exhaust()
	if err != nil {
		return err
	}
	late, err := k.container()
	if err != nil {
		return err
	}
	late.config = narrow
	if _, _, err := k.fails(call{command: "ADD", at: late, config: merge(narrow, k.subject.Hasty)}); err != nil {
		return err
	}
	if err := errors.Join(k.del(late), k.del(all[0])); err != nil {
		return err
	}
	return k.add(late, narrow)
}

func addMode(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	mode := func() (m netlink.IPVlanMode, err error) {
		err = a.inside(func(_ handle, l netlink.Link) error {
			child, is := l.(*netlink.IPVlan)
			if !is {
				return fmt.Errorf("the interface is %s", l.Type())
			}
			m = child.Mode
			return nil
		})
		return m, err
	}
	before, err := mode()
	if err != nil {
		return err
	}
	other, err := k.container()
	if err != nil {
		return err
	}
	other.n = a.n // the same link
	r, err := k.do(call{command: "ADD", at: other, config: object{"mode": "l3"}})
	if err != nil {
		return err
	}
	after, err := mode()
	if err == nil && after != before {
		err = fmt.Errorf("the first attachment's mode changed when a second wanted l3 (exit status of its ADD %d)", r.code)
	}
	return err
}
