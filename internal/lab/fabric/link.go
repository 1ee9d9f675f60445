// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// routerIPv6 is the VPC's router on every link.
// https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Route_Tables.html
var routerIPv6 = eni.Gateway(netip.MustParsePrefix("::/0"))

// addLinks makes the ENIs whose fabric ends are named.
func (f *Fabric) addLinks(ctx context.Context, ends []string, want state) error {
	if len(ends) == 0 {
		return nil
	}
	if err := each(ctx, ends, func(end string) error { return f.makePair(ctx, end, want.enis[end]) }); err != nil {
		return err
	}
	// proxy_delay holds an answer back by up to 0.8 s, at random. New namespaces have no neigh/default.
	delays := map[string]string{}
	for _, end := range ends {
		delays["ipv4/neigh/"+end+"/proxy_delay"] = "0"
		delays["ipv6/neigh/"+end+"/proxy_delay"] = "0"
	}
	if err := netns.Do(f.Netns(vpcName), func() error { return writeSysctls(delays) }); err != nil {
		return err
	}
	return each(ctx, ends, func(end string) error {
		e := want.enis[end]
		if err := f.openEnd(end, want.subnets[e.Subnet]); err != nil {
			return err
		}
		if err := f.configureHost(e, want.subnets[e.Subnet]); err != nil {
			return err
		}
		// Last, since it says that the link is complete: what was interrupted before is made anew.
		if err := f.vpc.LinkSetAlias(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: end}}, want.links[end]); err != nil {
			return fmt.Errorf("label %s: %w", end, err)
		}
		return nil
	})
}

// makePair makes both ends of an ENI in their namespaces in one step, down.
func (f *Fabric) makePair(ctx context.Context, end string, e ENI) error {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return fmt.Errorf("ENI %s: %w", e.ID, err)
	}
	worker, err := vnetns.GetFromPath(f.Netns(e.Worker))
	if err != nil {
		return fmt.Errorf("open netns of %s: %w", e.Worker, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = end, mtu
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: e.linkName(), PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(worker)}
	err = f.addPair(ctx, pair)
	if err = errors.Join(err, worker.Close()); err != nil {
		return fmt.Errorf("attach ENI %s to %s as %s: %w", e.ID, e.Worker, e.linkName(), err)
	}
	return nil
}

// moduleTimeout is how long another lab may take to load the veth module.
const moduleTimeout = 5 * time.Second

// addPair waits for the veth module while somebody else loads it: the kernel loads it on demand, and answers "not
// supported" to whoever asks in the middle, as the second of two labs does that come up at once on a fresh machine.
func (f *Fabric) addPair(ctx context.Context, pair *netlink.Veth) error {
	const pause = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, moduleTimeout)
	defer cancel()
	for {
		err := f.vpc.LinkAdd(pair)
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// openEnd gives the fabric end its router addresses and sets it up. The IPv4 gateway is on lo as well; here it makes the
// router's ARP requests come from an address of the ENI's own subnet.
func (f *Fabric) openEnd(end string, s Subnet) error {
	link, err := f.vpc.LinkByName(end)
	if err != nil {
		return fmt.Errorf("find %s: %w", end, err)
	}
	routers := []netip.Addr{routerIPv6}
	if s.IPv4.IsValid() {
		routers = append(routers, eni.Gateway(s.IPv4))
	}
	for _, a := range routers {
		addr := &netlink.Addr{IPNet: ipNet(single(a))}
		if a.Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := f.vpc.AddrReplace(link, addr); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("add router address %s to %s: %w", a, end, err)
		}
	}
	if err := f.vpc.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", end, err)
	}
	return nil
}

// removeLink detaches an ENI: the worker's end goes with the fabric's, and so do its ipvlan children.
func (f *Fabric) removeLink(end string) error {
	link, err := f.vpc.LinkByName(end)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil // its other end went with a pod's namespace
	}
	if err == nil {
		err = f.vpc.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("detach %s: %w", end, err)
	}
	return nil
}

// removeAllLinks detaches every ENI.
func (f *Fabric) removeAllLinks() error {
	s, err := f.read()
	if err != nil {
		return err
	}
	var errs []error
	for end := range s.links {
		errs = append(errs, f.removeLink(end))
	}
	return errors.Join(errs...)
}
