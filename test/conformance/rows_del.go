// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// delRows are about DEL as long as everything it needs is there.
func delRows() []row {
	freed := func(id string, l level, where, says string, f func(*kit, *attachment) (call, error)) row {
		return row{id: id, form: id == "del-prevresult", level: l, where: where, says: says, check: func(k *kit) error { return delFrees(k, f) }}
	}
	return []row{
		freed("del", must, "§2 DEL", "DEL removes the interface, and gives the address back", plainDel),
		freed("del-prevresult", must, "§2 DEL", "so it does with the result of ADD in prevResult", func(_ *kit, a *attachment) (call, error) {
			return call{command: "DEL", at: a, config: object{"prevResult": a.result.raw}}, nil
		}),
		freed("del-no-netns", should, "§2 DEL", "and when the network namespace no longer exists", func(_ *kit, a *attachment) (call, error) {
			return call{command: "DEL", at: a}, a.pod.Delete()
		}),
		freed("del-empty-netns", must, "§2 DEL, optional parameters", "and without CNI_NETNS", func(_ *kit, a *attachment) (call, error) {
			return call{command: "DEL", at: a, env: map[string]string{"CNI_NETNS": ""}}, a.pod.Delete()
		}),
		{
			id: "del-no-link", level: must, where: "§2 DEL", needs: []need{anInterface},
			says: "and when the interface is gone already",
			check: func(k *kit) error {
				return delFrees(k, func(_ *kit, a *attachment) (call, error) {
					return call{command: "DEL", at: a}, a.inside(func(h handle, l netlink.Link) error { return h.LinkDel(l) })
				})
			},
		},
		freed("del-minimal", extra, "§3: configuration does not change", "and with no more of the configuration than the types", func(k *kit, a *attachment) (call, error) {
			cut := object{}
			for key := range k.subject.Config(a.n) {
				cut[key] = k.subject.Minimal[key] // nil removes
			}
			if ipam, has := k.subject.Config(a.n)["ipam"].(object); has {
				cut["ipam"] = onlyKeys(ipam, k.subject.Minimal["ipam"])
			}
			return call{command: "DEL", at: a, config: cut}, nil
		}),
		{
			id: "del-twice", level: must, where: "§2 DEL",
			says: "a second and a third DEL succeed", check: delTwice,
		},
		{
			id: "del-unknown", level: must, where: "§2 DEL",
			says: "DEL of what was never ADDed succeeds, with and without a namespace", check: delUnknown,
		},
		{
			id: "del-other", level: must, where: "§3: what an attachment is", needs: []need{counted},
			says: "DEL of another interface of the container gives nothing back", check: delOther,
		},
		{
			id: "del-late", level: must, where: "§3: what an attachment is", needs: []need{choosing, counted},
			says:  "a late DEL of a pod's old sandbox leaves the address of its new one, which no other attachment gets",
			check: delLate,
		},
	}
}

func plainDel(_ *kit, a *attachment) (call, error) { return call{command: "DEL", at: a}, nil }

// onlyKeys removes all keys of o that minimal does not have.
func onlyKeys(o object, minimal any) object {
	keep, _ := minimal.(object)
	cut := object{}
	for key := range o {
		cut[key] = keep[key]
	}
	return cut
}

// delFrees attaches, DELs as f says, and looks what is left.
func delFrees(k *kit, f func(*kit, *attachment) (call, error)) error {
	counts := k.subject.Outside.Held != nil
	before, err := 0, error(nil)
	if counts {
		if before, err = k.held(); err != nil {
			return err
		}
	}
	a, err := k.attach()
	if err != nil {
		return err
	}
	c, err := f(k, a)
	if err != nil {
		return err
	}
	if err := k.must(c); err != nil {
		return err
	}
	if there, err := a.has(); err == nil && there { // an error: the namespace is gone
		return errors.New("the interface is still there")
	}
	if counts {
		return k.holds(before, 0, "after DEL")
	}
	return nil
}

func delTwice(k *kit) error {
	a, err := k.attach()
	if err != nil {
		return err
	}
	return errors.Join(k.del(a), k.del(a), a.pod.Delete(), k.del(a))
}

func delUnknown(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	return errors.Join(k.del(a), k.must(call{command: "DEL", at: a, env: map[string]string{"CNI_NETNS": ""}}))
}

func delOther(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	a, err := k.attach()
	if err != nil {
		return err
	}
	other := *a
	other.ifName = "net2"
	if err := k.del(&other); err != nil {
		return err
	}
	if there, err := a.has(); err != nil || there != k.subject.Interface {
		return errors.Join(err, errors.New("the interface is gone"))
	}
	return k.holds(before, len(a.result.IPs), "after DEL of another interface")
}

func delLate(k *kit) error {
	old, err := k.attach()
	if err != nil {
		return err
	}
	fresh, err := k.container()
	if err != nil {
		return err
	}
	fresh.podName = old.podName
	if err = k.add(fresh, nil); err != nil {
		return err
	}
	before, err := k.held()
	if err != nil {
		return err
	}
	if err = k.del(old); err != nil {
		return err
	}
	after, err := k.held()
	if err != nil {
		return err
	}
	if after < before-1 || after == 0 {
		return errors.New("the new sandbox's address was given back")
	}
	for range 3 {
		other, err := k.attach()
		if err != nil {
			return err
		}
		if slices.Equal(other.result.addresses(), fresh.result.addresses()) {
			return errors.New("another attachment got the new sandbox's address")
		}
	}
	return k.released(fresh)
}

// released is nil when DEL gives the attachment's addresses back.
func (k *kit) released(a *attachment) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	if err := k.del(a); err != nil {
		return err
	}
	return k.holds(before, -len(a.result.IPs), "after DEL")
}

const (
	// briefly is what a DEL may take while something is away: nodes that drain delete their pods one after the other.
	briefly = 15 * time.Second
	// settling is for a daemon that comes back to do what it missed.
	settling = 30 * time.Second
)

// lossRows are about DEL while what the plugin talks to is away.
func lossRows() []row {
	return []row{
		{
			id: "del-daemon-down", level: should, where: "§2 DEL", needs: []need{aDaemon}, once: true,
			says:  "DEL succeeds within 15 s while the daemon, or the API that it needs, is away",
			check: func(k *kit) error { return delWithout(k, false) },
		},
		{
			id: "del-daemon-back", level: extra, where: "best effort, §2 DEL", needs: []need{aDaemon, counted}, once: true,
			says:  "and within 30 s of its return the address is given back",
			check: func(k *kit) error { return delWithout(k, true) },
		},
		{
			id: "del-backend-down", level: extra, where: "best effort, §2 DEL", needs: []need{aBackend, counted}, once: true,
			says: "DEL succeeds and gives the address back while the daemon cannot reach what it depends on", check: delCut,
		},
	}
}

func delWithout(k *kit, back bool) (err error) {
	before := 0
	if back {
		if before, err = k.held(); err != nil {
			return err
		}
	}
	a, err := k.attach()
	if err != nil {
		return err
	}
	if err = k.subject.Outside.Down(k.ctx); err != nil {
		return err
	}
	start := time.Now()
	err = k.del(a)
	took := time.Since(start)
	if err = errors.Join(err, k.subject.Outside.Up(k.ctx)); err != nil {
		return err
	}
	if took > briefly {
		return fmt.Errorf("DEL took %v", took.Round(time.Second))
	}
	if !back {
		return nil
	}
	return k.eventually(settling, func() error { return k.holds(before, 0, "after the daemon's return") })
}

func delCut(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	a, err := k.attach()
	if err != nil {
		return err
	}
	if err := k.subject.Outside.Cut(); err != nil {
		return err
	}
	if err := errors.Join(k.del(a), k.subject.Outside.Mend()); err != nil {
		return err
	}
	return k.holds(before, 0, "after DEL")
}
