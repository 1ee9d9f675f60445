// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

func podHandle(a *attachment) (handle, error) { return pod.Handle(a.netns) }

// undoRows are about ADDs that fail.
func undoRows() []row {
	return []row{
		{
			id: "undo-netns", level: should, where: "§3 Lifecycle", needs: []need{counted},
			says:  "after an ADD for a namespace that is not there, and the DEL that follows, nothing is held",
			check: undoNetns,
		},
		{
			id: "undo-print", level: must, where: "§2 Errors, §3 Lifecycle",
			says:  "an ADD whose result cannot be printed fails, and the DEL that follows leaves no interface and no address",
			check: undoPrint,
		},
		{
			id: "undo-itself", level: extra, where: "§3 leaves it to the DEL", needs: []need{counted},
			says:  "such an ADD undoes itself before that DEL",
			check: undoItself,
		},
		{
			id: "undo-broken", level: extra, where: "§3 leaves it to the DEL", needs: []need{counted, broken},
			says:  "an ADD that cannot succeed fails and holds nothing, even before that DEL",
			check: undoBroken,
		},
	}
}

func undoNetns(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	a, err := k.container()
	if err != nil {
		return err
	}
	gone := map[string]string{"CNI_NETNS": a.netns + "-none"}
	r, err := k.do(call{command: "ADD", at: a, env: gone})
	if err != nil {
		return err
	}
	if r.code == 0 && k.subject.Interface {
		return errors.New("ADD succeeded")
	}
	if err := k.must(call{command: "DEL", at: a, env: gone}); err != nil {
		return err
	}
	return k.holds(before, 0, "after DEL")
}

// mute is an ADD that cannot print its result.
func (k *kit) mute(a *attachment) error {
	to, err := full()
	if err != nil {
		return err
	}
	defer to.Close()
	r, err := k.do(call{command: "ADD", at: a, stdout: to})
	if err == nil && r.code == 0 {
		err = errors.New("ADD succeeded though its result could not be printed")
	}
	return err
}

func undoPrint(k *kit) error {
	a, err := k.container()
	if err != nil {
		return err
	}
	before := 0
	if k.subject.Outside.Held != nil {
		if before, err = k.held(); err != nil {
			return err
		}
	}
	if err := errors.Join(k.mute(a), k.del(a)); err != nil {
		return err
	}
	if has, err := a.has(); err != nil || has {
		return errors.Join(err, errors.New("the interface is there after DEL"))
	}
	if k.subject.Outside.Held == nil {
		return nil
	}
	return k.holds(before, 0, "after DEL")
}

func undoItself(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	a, err := k.container()
	if err != nil {
		return err
	}
	if err := k.mute(a); err != nil {
		return err
	}
	if has, err := a.has(); err != nil || has {
		return errors.Join(err, errors.New("the interface is there after the ADD that failed"))
	}
	return k.holds(before, 0, "after the ADD that failed")
}

func undoBroken(k *kit) error {
	before, err := k.held()
	if err != nil {
		return err
	}
	a, err := k.container()
	if err != nil {
		return err
	}
	if _, _, err := k.fails(call{command: "ADD", at: a, config: k.subject.Broken}); err != nil {
		return err
	}
	return k.holds(before, 0, "after the ADD that failed")
}

// requestRows are about addresses that a runtime asks for.
func requestRows() []row {
	return []row{
		{
			id: "request-capability", level: convention, where: "CONVENTIONS.md, ips", needs: []need{requestable(byCapability)},
			says: "the address of runtimeConfig.ips is the one given", check: request(byCapability),
		},
		{
			id: "request-args", level: convention, where: "CONVENTIONS.md, args.cni.ips", needs: []need{requestable(byArgs)},
			says: "the address of args.cni.ips is the one given", check: request(byArgs),
		},
		{
			id: "request-cni-args", level: convention, where: "CONVENTIONS.md, CNI_ARGS IP", needs: []need{requestable(byCNIArgs)},
			says: "the address of IP= in CNI_ARGS is the one given", check: request(byCNIArgs),
		},
		{
			id: "request-taken", level: extra, where: "what else a request means", needs: []need{requestable(byCapability), choosing},
			says: "a requested address that another attachment holds is refused", check: requestTaken,
		},
	}
}

// asking is a call that asks for the address as the subject wants it written.
func (k *kit) asking(w way, a *attachment, address string) call {
	c := call{command: "ADD", at: a}
	switch w {
	case byCapability:
		c.config = object{"capabilities": object{"ips": true}, "runtimeConfig": object{"ips": []any{address}}}
	case byArgs:
		c.config = object{"args": object{"cni": object{"ips": []any{address}}}}
	case byCNIArgs:
		c.env = map[string]string{"CNI_ARGS": a.args() + ";IP=" + address}
	}
	a.config = c.config
	return c
}

func request(w way) func(*kit) error {
	return func(k *kit) error {
		a, err := k.container()
		if err != nil {
			return err
		}
		want := k.subject.Requests[w]
		r, err := k.do(k.asking(w, a, want))
		if err != nil {
			return err
		}
		got, err := r.result(k.version)
		if err != nil {
			return err
		}
		bare, _, _ := strings.Cut(want, "/")
		if !slices.Contains(got.addresses(), netip.MustParseAddr(bare)) {
			return errors.New("it gave another address")
		}
		return nil
	}
}

func requestTaken(k *kit) error {
	want := k.subject.Requests[byCapability]
	for i := range 2 {
		a, err := k.container()
		if err != nil {
			return err
		}
		c := k.asking(byCapability, a, want)
		if i == 0 {
			err = k.must(c)
		} else {
			_, _, err = k.fails(c)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
