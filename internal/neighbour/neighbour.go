// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package neighbour tells the pods on the same ENI that an address is no longer here, or is here again. They share one MAC, so
// that a pod which went on using the address would send to the ENI itself, where nobody carries it, until its kernel gives up:
// 20 to 40 s. The sidecar uses it where no node agent is there to delete such entries from the pods' namespaces. It speaks ARP and
// neighbour discovery to those pods alone, nothing of it leaves the worker, and it needs CAP_NET_RAW. Whether an address has moved
// is not decided here.
package neighbour

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// ErrNotPermitted is a process without CAP_NET_RAW.
var ErrNotPermitted = errors.New("neighbours are not told: CAP_NET_RAW is needed for that")

// LockTime is how long a kernel believes a new entry rather than what comes after it: who is told at once may have to be told
// again. net.ipv4.neigh.*.locktime is 1 s.
const LockTime = 1100 * time.Millisecond

// Tell has the neighbours of an interface of this process's network namespace, as far as they are on the same ENI and this pod has
// heard of them, send what is for addr to here, or to the subnet's gateway, which knows. It returns how many were told.
func Tell(ctx context.Context, i attachment.Interface, addr netip.Addr, here bool) (told int, err error) {
	siblings, err := siblings(i, addr)
	if err != nil || len(siblings) == 0 {
		return 0, err
	}
	own, err := net.ParseMAC(string(i.MAC))
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", i.Name, err)
	}
	mac := own
	if !here {
		if mac, err = gateway(ctx, i, addr); err != nil {
			return 0, err
		}
	}
	if addr.Is4() {
		err = sendARP(i.Index, own, mac, addr, siblings)
	} else {
		err = sendNA(i.Name, i.Index, mac, addr, siblings)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return 0, ErrNotPermitted
	}
	if err != nil {
		return 0, fmt.Errorf("tell neighbours of %s on %s: %w", addr, i.Name, err)
	}
	return len(siblings), nil
}

// siblings are the neighbours that have the interface's own MAC: every pod on the ENI does. Who has sent something here is known.
func siblings(i attachment.Interface, addr netip.Addr) (found []netip.Addr, err error) {
	all, err := neighbours(i.Index, addr)
	for _, n := range all {
		a, ok := netip.AddrFromSlice(n.IP)
		a = a.Unmap()
		if ok && a != addr && eni.ParseMAC(n.HardwareAddr.String()) == i.MAC && !a.IsMulticast() && !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	return found, err
}

// neighbours lists the entries of an interface in the family of addr.
func neighbours(index int, addr netip.Addr) (all []netlink.Neigh, err error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	const tries = 5
	for range tries {
		all, err = netlink.NeighList(index, family)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // an incomplete list is better than none
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return all, nil
}

// Timings of asking for the gateway.
const (
	gatewayPatience = time.Second
	gatewayInterval = 10 * time.Millisecond
)

// gateway is the MAC of the subnet's router, which the kernel is made to ask for if it does not know.
func gateway(ctx context.Context, i attachment.Interface, addr netip.Addr) (net.HardwareAddr, error) {
	at, err := router(i, addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayPatience)
	defer cancel()
	tick := time.NewTicker(gatewayInterval)
	defer tick.Stop()
	for asked := false; ; {
		all, err := neighbours(i.Index, addr)
		if err != nil {
			return nil, err
		}
		for _, n := range all {
			a, ok := netip.AddrFromSlice(n.IP)
			if ok && a.Unmap() == at && len(n.HardwareAddr) > 0 && n.State&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) == 0 {
				return n.HardwareAddr, nil
			}
		}
		if !asked {
			if err := ask(ctx, i, at); err != nil {
				return nil, err
			}
			asked = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("the gateway %s of %s does not answer: %w", at, i.Name, context.Cause(ctx))
		}
	}
}

// router is the address of the gateway of the interface's subnet, by the shortest prefix that the interface has: a floating address
// often is a /32.
func router(i attachment.Interface, addr netip.Addr) (netip.Addr, error) {
	var subnet netip.Prefix
	for _, p := range i.Addresses {
		if p.Addr().Is4() == addr.Is4() && !p.IsSingleIP() && (!subnet.IsValid() || p.Bits() < subnet.Bits()) {
			subnet = p
		}
	}
	if !subnet.IsValid() {
		return netip.Addr{}, fmt.Errorf("interface %s has no address that tells the subnet of %s", i.Name, addr)
	}
	return eni.Gateway(subnet), nil
}

// ask sends a packet to the gateway, to the discard service (RFC 863): the kernel has to find its MAC for that.
func ask(ctx context.Context, i attachment.Interface, gateway netip.Addr) error {
	if gateway.IsLinkLocalUnicast() {
		gateway = gateway.WithZone(fmt.Sprint(i.Index))
	}
	const discard = 9
	conn, err := new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(gateway, discard).String())
	if err != nil {
		return fmt.Errorf("ask for the gateway's MAC: %w", err)
	}
	_, err = conn.Write([]byte{0})
	return errors.Join(err, conn.Close())
}
