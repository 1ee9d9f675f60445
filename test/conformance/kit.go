// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// kit is what a row works with: one subject in one version. What a row attaches is removed when it ends.
type kit struct {
	ctx     context.Context
	subject *subject
	ground  *ground
	version string
	network string
	serial  *int // of attachments, over all rows and versions
	smalls  *int // how often it ran out of addresses
	crowded *crowded
	made    []*attachment
}

// attachment is a container with its network namespace, and its interface on the network.
type attachment struct {
	id, ifName, netns string
	n                 int
	pod               *pod.Pod
	podName           string
	config            object // of its ADD
	result            result
}

func (a *attachment) args() string {
	return fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_UID=%s;K8S_POD_INFRA_CONTAINER_ID=%s", a.podName, a.podName, a.id)
}

const ifName = "net1"

// container makes a container that has no interface yet.
func (k *kit) container() (*attachment, error) {
	*k.serial++
	a := &attachment{n: *k.serial, ifName: ifName, id: fmt.Sprintf("%s-c%d", k.ground.prefix, *k.serial)}
	a.podName = a.id
	var err error
	if a.pod, err = pod.New(a.id); err != nil {
		return nil, err
	}
	a.netns = a.pod.Netns
	k.made = append(k.made, a)
	return a, nil
}

// add is an ADD that must succeed, with what the caller changes of the configuration.
func (k *kit) add(a *attachment, config object) error {
	a.config = config
	r, err := k.do(call{command: "ADD", at: a, config: config})
	if err != nil {
		return err
	}
	a.result, err = r.result(k.version)
	return err
}

// attach makes a container and ADDs it.
func (k *kit) attach() (*attachment, error) {
	a, err := k.container()
	if err != nil {
		return nil, err
	}
	return a, k.add(a, nil)
}

// must is a call that succeeds.
func (k *kit) must(c call) error {
	r, err := k.do(c)
	if err != nil {
		return err
	}
	return r.done()
}

// fails is a call that does not, with an error object.
func (k *kit) fails(c call) (uint, string, error) {
	r, err := k.do(c)
	if err != nil {
		return 0, "", err
	}
	e, err := r.refusal()
	return e.Code, e.Msg + "; " + e.Details, err
}

func (k *kit) del(a *attachment) error { return k.must(call{command: "DEL", at: a, config: a.config}) }

// check is a CHECK with the result of the ADD.
func (k *kit) check(a *attachment) call {
	return call{command: "CHECK", at: a, config: merge(a.config, object{"prevResult": a.result.raw})}
}

// clean DELs what the row made, whatever came of it, and removes the namespaces.
func (k *kit) clean() error {
	var errs []error
	for _, a := range k.made {
		_, err := k.do(call{command: "DEL", at: a, config: a.config})
		errs = append(errs, err, a.pod.Delete())
	}
	k.made = nil
	return errors.Join(errs...)
}

// held counts what the attachments hold, for rows that need it.
func (k *kit) held() (int, error) {
	ctx, cancel := context.WithTimeout(k.ctx, callTimeout)
	defer cancel()
	return k.subject.Outside.Held(ctx)
}

// holds is nil when the attachments hold so many more than before.
func (k *kit) holds(before, more int, when string) error {
	now, err := k.held()
	if err == nil && now != before+more {
		err = fmt.Errorf("%s %d addresses are held, want %d", when, now-before, more)
	}
	return err
}

// eventually waits until f has nothing to complain about.
func (k *kit) eventually(within time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(k.ctx, within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %v: %w", within, err)
		}
	}
}

// inside gives f the attachment's interface.
func (a *attachment) inside(f func(h handle, l netlink.Link) error) error {
	h, err := pod.Handle(a.netns)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(a.ifName)
	if err != nil {
		return fmt.Errorf("interface %s in the container: %w", a.ifName, err)
	}
	return f(h, l)
}

// has reports whether the container has its interface.
func (a *attachment) has() (bool, error) {
	err := a.inside(func(handle, netlink.Link) error { return nil })
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return false, nil
	}
	return err == nil, err
}

// full is where nothing can be printed to.
func full() (*os.File, error) { return os.OpenFile("/dev/full", os.O_WRONLY, 0) }

// tidy replaces what differs from run to run in the note of a failure.
func (k *kit) tidy(err error) string {
	s := err.Error()
	for _, a := range k.made {
		s = strings.NewReplacer(a.netns, "NETNS", a.id, "CONTAINER").Replace(s)
	}
	return oneLine(strings.NewReplacer(k.ground.dir, "DIR", k.ground.prefix, "CONTAINER").Replace(s))
}
