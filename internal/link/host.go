// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Hosts lists the links of the caller's network namespace that can be an ENI's, by index: Ethernet devices of their own.
// Links that stand on another one (ipvlan, macvlan, vlan, bond, bridge) are left out, since they show that one's MAC. An ENI
// is known among the rest by its MAC, so a veth is harmless here; the lab's ENIs are veths.
func Hosts() ([]attachment.Link, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var hosts []attachment.Link
	for _, l := range links {
		if a := l.Attrs(); canBeENI(l) {
			hosts = append(hosts, attachment.Link{
				Name: a.Name, Index: a.Index, MTU: a.MTU, MAC: eni.ParseMAC(a.HardwareAddr.String()), Up: a.Flags&net.FlagUp != 0,
			})
		}
	}
	return hosts, nil
}

// canBeENI goes by IFLA_INFO_KIND, which drivers of hardware do not set; netlink calls such a link a "device".
func canBeENI(l netlink.Link) bool {
	kind, a := l.Type(), l.Attrs()
	return (kind == "device" || kind == "veth") && a.EncapType == "ether" && len(a.HardwareAddr) == 6
}

// HostAddresses are all addresses of the caller's network namespace, each with the name of a link that has it.
func HostAddresses() (map[netip.Addr]string, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	list, err := netlinksafe.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs := make(map[netip.Addr]string, len(list))
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			addrs[addr.Unmap()] = names[a.LinkIndex]
		}
	}
	return addrs, nil
}

// ErrAdvertisements: the link is up, but believes router advertisements.
var ErrAdvertisements = errors.New("router advertisements are believed")

// Up sets the link's MTU, unless mtu is 0, and then the link up. It changes nothing that is so already: setting the MTU of an
// ipvlan parent sets its children's as well.
//
// A link that was down has nobody who configures it, and Linux would take addresses and a default route from the VPC's
// router advertisements, by which the host then sends. So it is told not to believe them before it comes up; where that is
// not possible the error is [ErrAdvertisements], and the link is up all the same.
func Up(index, mtu int) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("find link %d: %w", index, err)
	}
	a := l.Attrs()
	if mtu != 0 && mtu != a.MTU {
		if err := netlink.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", a.Name, mtu, err)
		}
	}
	if a.Flags&net.FlagUp != 0 {
		return nil
	}
	deaf := writeSysctls(silence(a.Name))
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", a.Name, err)
	}
	if deaf != nil {
		return fmt.Errorf("%w by %s: %w", ErrAdvertisements, a.Name, deaf)
	}
	return nil
}

// One attach or one pod makes a handful of events within milliseconds. Waiting for quiet turns them into one call; during a
// storm there is still a call each maxWait.
const (
	quietInterval = 50 * time.Millisecond
	maxWait       = 500 * time.Millisecond
)

// Watch calls changed once it watches, so that what happened before is not missed, and again whenever links of the caller's
// network namespace appeared, changed or vanished, several changes at once together. It returns nil when ctx ends, and an
// error when the kernel cannot be watched.
func Watch(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		dirty, stop, err := subscribe()
		if err != nil {
			return fmt.Errorf("watch links: %w", err)
		}
		changed()
		relay(ctx, dirty, changed)
		stop()
		// Unless ctx ended, the kernel had to drop events (ENOBUFS): start over when the storm had a moment to pass.
		settle(ctx, nil)
	}
	return nil
}

// subscribe turns link events into a level: dirty has a value when something happened since the last receive, and is closed
// when the subscription broke. stop ends it and waits for its goroutines.
func subscribe() (dirty <-chan struct{}, stop func(), err error) {
	events, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribe(events, done); err != nil {
		return nil, nil, err
	}
	level, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer close(level)
		for range events { // until the socket is closed or fails
			select {
			case level <- struct{}{}:
			default:
			}
		}
	}()
	return level, func() { close(done); <-ended }, nil
}

// relay calls changed after each burst of events, until ctx ends or the subscription breaks.
func relay(ctx context.Context, dirty <-chan struct{}, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-dirty:
			if !ok {
				return
			}
		}
		if !settle(ctx, dirty) {
			return
		}
		changed()
	}
}

// settle waits until no event came for quietInterval, or for maxWait. It reports whether the subscription still stands.
func settle(ctx context.Context, dirty <-chan struct{}) bool {
	quiet, limit := time.NewTimer(quietInterval), time.NewTimer(maxWait)
	defer quiet.Stop()
	defer limit.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-quiet.C:
			return true
		case <-limit.C:
			return true
		case _, ok := <-dirty:
			if !ok {
				return false
			}
			quiet.Reset(quietInterval)
		}
	}
}
