// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package podlink reads a pod's network namespace by netlink: which interfaces are there, which addresses they carry, and when that
// changes. Init container and sidecar read their own, the agent those of pods. It changes nothing there, and what an address
// means is not decided here.
package podlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Namespace is a network namespace by a path that leads there; the empty one is the process's own. Its methods are safe for
// concurrent use. They hold the namespace open while they run, [Namespace.Watch] until its end: an open namespace lives on
// without its pod.
type Namespace string

// loopbackIndex is lo's in every namespace, LOOPBACK_IFINDEX.
// https://github.com/torvalds/linux/blob/v6.1/include/net/flow.h#L25
const loopbackIndex = 1

// open gives a handle of the namespace, nil for the own one.
func (n Namespace) open() (*netns.NsHandle, func(), error) {
	if n == "" {
		return nil, func() {}, nil
	}
	h, err := netns.GetFromPath(string(n))
	if err != nil {
		return nil, nil, fmt.Errorf("open network namespace %s: %w", n, err)
	}
	return &h, func() { _ = h.Close() }, nil // a file that was only read
}

// Interfaces lists the interfaces but lo, with their addresses of global scope.
func (n Namespace) Interfaces() ([]attachment.Interface, error) {
	ns, done, err := n.open()
	if err != nil {
		return nil, err
	}
	defer done()
	at := netns.None()
	if ns != nil {
		at = *ns
	}
	h, err := netlinksafe.NewHandleAt(at, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	return list(h)
}

// list reads links and addresses; a dump that changed while it was read is read again.
func list(h netlinksafe.Handle) ([]attachment.Interface, error) {
	var links []netlink.Link
	var addrs []netlink.Addr
	for tries := 0; ; tries++ {
		var errLinks, errAddrs error
		links, errLinks = h.LinkList()
		addrs, errAddrs = h.AddrList(nil, netlink.FAMILY_ALL)
		err := errors.Join(errLinks, errAddrs)
		if err == nil {
			break
		}
		if tries == 5 || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
	}
	var all []attachment.Interface
	for _, l := range links {
		if l.Attrs().Index == loopbackIndex {
			continue
		}
		i := attachment.Interface{Name: l.Attrs().Name, Index: l.Attrs().Index, Kind: kind(l), MAC: eni.ParseMAC(l.Attrs().HardwareAddr.String())}
		for _, a := range addrs {
			if p, ok := prefix(a.IPNet); ok && a.LinkIndex == i.Index && a.Scope == unix.RT_SCOPE_UNIVERSE {
				i.Addresses = append(i.Addresses, p)
			}
		}
		all = append(all, i)
	}
	return all, nil
}

// kind is IFLA_INFO_KIND, empty for what has none.
func kind(l netlink.Link) string {
	if k := l.Type(); k != "device" {
		return k
	}
	return ""
}

func prefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

// restartPause lets a storm pass that made the kernel drop events.
const restartPause = 100 * time.Millisecond

// Watch tells of every address that appears or goes, in order. It tells the zero Change once it watches, whenever a link
// changed, and when the kernel had to drop events: then only [Namespace.Interfaces] knows. It returns nil when ctx ends, and an
// error when the namespace cannot be watched. An address that is there already may be told of again: the kernel does so when its
// flags change.
func (n Namespace) Watch(ctx context.Context, tell func(attachment.Change)) error {
	for ctx.Err() == nil {
		if err := n.watch(ctx, tell); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(restartPause):
		}
	}
	return nil
}

// watch is one subscription, until ctx ends or the kernel drops events.
func (n Namespace) watch(ctx context.Context, tell func(attachment.Change)) (err error) {
	ns, done, err := n.open()
	if err != nil {
		return err
	}
	defer done()
	over := make(chan struct{})
	addrs, links := make(chan netlink.AddrUpdate), make(chan netlink.LinkUpdate)
	if err := netlink.AddrSubscribeWithOptions(addrs, over, netlink.AddrSubscribeOptions{Namespace: ns}); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	if err := netlink.LinkSubscribeWithOptions(links, over, netlink.LinkSubscribeOptions{Namespace: ns}); err != nil {
		close(over)
		drain(addrs)
		return fmt.Errorf("watch links: %w", err)
	}
	defer func() {
		close(over)
		drain(addrs)
		drain(links)
	}()
	tell(attachment.Change{})
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-addrs:
			if !ok {
				return nil
			}
			if c, ok := change(u); ok {
				tell(c)
			}
		case _, ok := <-links:
			if !ok {
				return nil
			}
			tell(attachment.Change{})
		}
	}
}

// change reads what the kernel said of an address.
func change(u netlink.AddrUpdate) (attachment.Change, bool) {
	p, ok := prefix(&u.LinkAddress)
	ok = ok && u.LinkIndex != loopbackIndex && u.Scope == unix.RT_SCOPE_UNIVERSE
	return attachment.Change{Index: u.LinkIndex, Addr: p, Gone: !u.NewAddr}, ok
}

// drain lets the library's goroutine end, which may have an event in hand.
func drain[T any](c <-chan T) {
	for range c {
	}
}
