// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// parallelRows are about attachments that come and go at once.
func parallelRows() []row {
	const where = "§3 Lifecycle & Ordering"
	return []row{
		{
			id: "parallel", level: must, where: where, needs: []need{choosing}, once: true,
			says: "of many ADDs at once (110 of an IPAM plugin) no two that succeed have the same address", check: parallelUnique,
		},
		{
			id: "parallel-all", level: extra, where: where, needs: []need{choosing}, once: true,
			says: "and all of them succeed within a minute, those that fail with code 11 (try again later) when tried again", check: parallelAll,
		},
		{
			id: "parallel-race", level: must, where: where, needs: []need{choosing, counted}, once: true,
			says: "ADDs and DELs at once: no two living attachments have the same address, and in the end nothing is held", check: parallelRace,
		},
	}
}

// crowd makes containers one after the other, so that only what is measured is parallel. An IPAM plugin has nothing to do
// in a namespace, so there they share one.
func (k *kit) crowd() (list []*attachment, err error) {
	for range k.subject.Parallel {
		if len(list) > 0 && !k.subject.Interface {
			*k.serial++
			a := *list[0]
			a.n, a.id = *k.serial, fmt.Sprintf("%s-c%d", k.ground.prefix, *k.serial)
			a.podName = a.id
			list = append(list, &a)
			continue
		}
		a, err := k.container()
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// together runs f for each at once and returns what failed.
func together(list []*attachment, f func(*attachment) error) []error {
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, a := range list {
		all.Go(func() { errs[i] = f(a) })
	}
	all.Wait()
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

// unique is nil when no address is in two results.
func unique(list []*attachment) error {
	owner := map[netip.Addr]string{}
	for _, a := range list {
		for _, addr := range a.result.addresses() {
			if owner[addr] != "" {
				return errors.New("an address was given twice")
			}
			owner[addr] = a.id
		}
	}
	return nil
}

// patiently ADDs as runtimes do that were told to try again later.
func (k *kit) patiently(a *attachment) error {
	for deadline := time.Now().Add(callTimeout); ; {
		r, err := k.do(call{command: "ADD", at: a})
		if err != nil {
			return err
		}
		if e, refusalErr := r.refusal(); refusalErr == nil && e.Code == types.ErrTryAgainLater && time.Now().Before(deadline) {
			continue
		}
		a.result, err = r.result(k.version)
		return err
	}
}

// crowded is what came of many ADDs at once.
type crowded struct {
	failed []error
	all    []*attachment
}

// addAtOnce adds a crowd, one for all rows that ask about it.
func (k *kit) addAtOnce() (*crowded, error) {
	if k.crowded != nil {
		return k.crowded, nil
	}
	all, err := k.crowd()
	if err != nil {
		return nil, err
	}
	c := &crowded{all: all}
	c.failed = together(all, k.patiently)
	if errs := together(all, k.del); len(errs) > 0 {
		return nil, errs[0]
	}
	k.crowded = c
	return c, nil
}

func parallelUnique(k *kit) error {
	c, err := k.addAtOnce()
	if err == nil && len(c.failed) == len(c.all) {
		err = c.failed[0]
	}
	if err == nil {
		err = unique(c.all)
	}
	return err
}

func parallelAll(k *kit) error {
	c, err := k.addAtOnce()
	if err == nil && len(c.failed) > 0 {
		err = fmt.Errorf("%d of %d failed, such as: %w", len(c.failed), len(c.all), c.failed[0])
	}
	return err
}

// parallelRace has every second attachment go while the others come.
func parallelRace(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	all, err := k.crowd()
	if err != nil {
		return err
	}
	early, late := all[:len(all)/2], all[len(all)/2:]
	for _, a := range early {
		if err := k.add(a, nil); err != nil {
			return err
		}
	}
	errs := together(all, func(a *attachment) error {
		if slices.Contains(late, a) {
			return k.patiently(a)
		}
		return k.del(a)
	})
	if len(errs) > 0 {
		return fmt.Errorf("%d of %d calls failed, such as: %w", len(errs), len(all), errs[0])
	}
	if err := errors.Join(unique(late), k.holds(before, len(late), "with half of them gone")); err != nil {
		return err
	}
	if errs := together(late, k.del); len(errs) > 0 {
		return errs[0]
	}
	return k.holds(before, 0, "after all DELs")
}
