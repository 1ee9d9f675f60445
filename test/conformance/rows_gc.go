// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
)

// gcRows are about GC.
func gcRows() []row {
	one := func(id string, l level, says string, f func(*kit) error, needs ...need) row {
		return row{id: id, level: l, where: "§2 GC", says: says, since: statusSince, needs: needs, check: f}
	}
	return []row{
		one("gc", must, "GC succeeds, also when there is nothing to do", gcNothing),
		one("gc-stale", should, "it gives back what attachments hold that are not in the list, and keeps what the others hold", gcStale, counted, accountable),
		one("gc-valid", must, "attachments in the list are as before", gcValid),
		one("gc-network", must, "attachments to another network are as before", gcNetwork),
		one("gc-empty", should, "with an empty list nothing is left", gcEmpty, counted, accountable),
	}
}

// gc is a GC that leaves the attachments alone. libcni sends the list under both names.
// https://github.com/containernetworking/cni/issues/1101
func (k *kit) gc(valid ...*attachment) call {
	list := []any{}
	for _, a := range valid {
		list = append(list, object{"containerID": a.id, "ifname": a.ifName})
	}
	return call{command: "GC", config: object{"cni.dev/valid-attachments": list, "cni.dev/attachments": list}}
}

func gcNothing(k *kit) error { return k.must(k.gc()) }

// stale attaches two, and deletes the namespace of the second.
func (k *kit) stale() (live, dead *attachment, err error) {
	if live, err = k.attach(); err != nil {
		return nil, nil, err
	}
	if dead, err = k.attach(); err != nil {
		return nil, nil, err
	}
	return live, dead, dead.pod.Delete()
}

func gcStale(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	live, _, err := k.stale()
	if err != nil {
		return err
	}
	if err := k.must(k.gc(live)); err != nil {
		return err
	}
	return k.holds(before, len(live.result.IPs), "after GC")
}

func gcValid(k *kit) error {
	live, _, err := k.stale()
	if err != nil {
		return err
	}
	return k.survives(live, k.gc(live))
}

// survives makes the call, which must not change what the attachment has: what CHECK says (a plugin without CHECK says
// the same twice), the interface, and the account at least as high.
func (k *kit) survives(a *attachment, c call) error {
	before, err := k.do(k.check(a))
	if err != nil {
		return err
	}
	if err = k.must(c); err != nil {
		return err
	}
	after, err := k.do(k.check(a))
	if err != nil {
		return err
	}
	if before.code != after.code {
		return fmt.Errorf("afterwards %w", after.done())
	}
	if has, err := a.has(); err != nil || has != k.subject.Interface {
		return errors.Join(err, errors.New("the interface is gone"))
	}
	if k.subject.Outside.Held == nil {
		return nil
	}
	if held, err := k.held(); err != nil || held < len(a.result.IPs) {
		return errors.Join(err, errors.New("its address was given back"))
	}
	return nil
}

func gcNetwork(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	if err := k.add(a, object{"name": k.network + "-other"}); err != nil {
		return err
	}
	return k.survives(a, k.gc())
}

func gcEmpty(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	live, _, err := k.stale()
	if err != nil {
		return err
	}
	if err := errors.Join(live.pod.Delete(), k.must(k.gc())); err != nil {
		return err
	}
	return k.holds(before, 0, "after GC")
}
