// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package link is what the suite does to network links, by netlink: the agent finds the links of ENIs and brings them up
// ([Hosts], [Up], [Watch]), the interface plugin makes ipvlan children of them in pods ([Add], [Del], [Check]). What it
// makes it can find and remove again after a crash at any point, and it touches nothing else. Which ENI, which address
// and which routes are decided by its callers.
package link

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// Child is a pod's interface: an ipvlan child in mode l2 of an ENI's link.
type Child struct {
	attachment.Key
	// Netns is the path of the pod's network namespace.
	Netns string
	// Master is the ENI's link in the caller's namespace: it must still have this MAC, and be up. Its index and name may
	// have changed since.
	Master attachment.Link
	// MTU of the interface; 0 means the master's.
	MTU int
	// Addresses of the interface, with the prefix length of their subnet.
	Addresses []Address
	// Routes to install; a route without gateway goes by that of the first address of its family.
	Routes []netconf.Route
	// SourceRouting makes whatever is sent from one of Addresses leave by this interface.
	SourceRouting bool
}

// Address is an address of an interface, and its subnet's router.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // may be invalid
}

// Made is an interface as [Add] left it.
type Made struct {
	Index int
	MAC   eni.MAC
	MTU   int
	// Routes that go by the interface: those of the main table first; Table is set on the others.
	Routes []netconf.Route
}

var (
	// ErrExists: the pod has an interface of that name.
	ErrExists = errors.New("interface exists")
	// ErrMaster: the master is not as it was asked for: gone, another one, or down.
	ErrMaster = errors.New("master link unusable")
)

// addressTimeout is how long an address may be held by a child that is about to go: the kernel removes the links of a
// deleted namespace after its deletion has returned.
const addressTimeout = 2 * time.Second

// Add makes the interface with its addresses, routes and rules. Whatever it made is undone when it fails, in reverse. An
// interface of that name is [ErrExists]; children of the same master in another mode are a [*ModeError].
//
// The child is made in the pod's namespace itself, under a name of its own, because the kernel also looks the name up in
// the caller's namespace: a pod could get no eth0 on a worker that has one.
func Add(ctx context.Context, c Child) (made Made, err error) {
	p, err := enter(c.Netns)
	if err != nil {
		return Made{}, err
	}
	defer p.leave()
	links, err := p.vacant(c)
	if err != nil {
		return Made{}, err
	}
	master, err := findMaster(c.Master)
	if err != nil {
		return Made{}, err
	}
	if err = checkSiblings(links, master); err != nil {
		return Made{}, err
	}
	if c.MTU > master.Attrs().MTU {
		return Made{}, fmt.Errorf("MTU %d exceeds that of link %s, %d", c.MTU, c.Master.Name, master.Attrs().MTU)
	}
	child, err := p.create(ctx, c, master)
	if err != nil {
		return Made{}, err
	}
	defer func() {
		if err != nil {
			made, err = Made{}, errors.Join(err, p.remove(child))
		}
	}()
	if err = p.h.LinkSetName(child, c.IfName); err != nil {
		return Made{}, fmt.Errorf("rename %s to %s: %w", child.Attrs().Name, c.IfName, err)
	}
	routes, err := p.configure(ctx, c, child.Attrs().Index)
	if err != nil {
		return Made{}, err
	}
	made.Index, made.MTU = child.Attrs().Index, child.Attrs().MTU
	made.MAC = eni.ParseMAC(child.Attrs().HardwareAddr.String())
	made.Routes = shown(routes, made.Index)
	return made, nil
}

// shown are the planned routes of the interface itself as [Made] has them.
func shown(routes []route, index int) []netconf.Route {
	var main, others []netconf.Route
	for _, r := range routes {
		switch {
		case r.index != index:
		case r.table == unix.RT_TABLE_MAIN:
			main = append(main, r.Route)
		default:
			r.Table = &r.table
			others = append(others, r.Route)
		}
	}
	return append(main, others...)
}

// Vacant is [ErrExists] when the pod at path has an interface of the attachment's name.
func Vacant(path string, k attachment.Key) error {
	p, err := enter(path)
	if err != nil {
		return err
	}
	defer p.leave()
	_, err = p.h.LinkByName(k.IfName)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", k.IfName, path, err)
	}
	return fmt.Errorf("%s in %s: %w", k.IfName, path, ErrExists)
}

// interimName is what the child is called until it is where nobody else looks names up. It is known again after a crash.
func interimName(k attachment.Key) string {
	sum := sha256.Sum256([]byte(k.ContainerID + "\x00" + k.IfName))
	return "mv" + hex.EncodeToString(sum[:])[:unix.IFNAMSIZ-1-len("mv")]
}

// vacant refuses a taken name, removes what a killed Add left behind, and returns the namespace's links.
func (p *pod) vacant(c Child) ([]netlink.Link, error) {
	links, err := p.h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links of %s: %w", c.Netns, err)
	}
	for _, l := range links {
		a := l.Attrs()
		_, ours := l.(*netlink.IPVlan)
		switch {
		case a.Name == c.IfName:
			return nil, fmt.Errorf("%s in %s: %w", c.IfName, c.Netns, ErrExists)
		case ours && a.Name == interimName(c.Key):
			if err := p.h.LinkDel(l); err != nil {
				return nil, fmt.Errorf("remove left-over %s: %w", a.Name, err)
			}
		}
	}
	return links, nil
}

// create makes the child in the pod's namespace under its interim name.
func (p *pod) create(ctx context.Context, c Child, master netlink.Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = interimName(c.Key)
	attrs.ParentIndex = master.Attrs().Index
	attrs.Namespace = netlink.NsFd(p.ns.Fd())
	attrs.MTU = c.MTU
	if attrs.MTU == 0 {
		attrs.MTU = master.Attrs().MTU
	}
	err := addIPVlan(ctx, &netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2, Flag: netlink.IPVLAN_FLAG_BRIDGE})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("make an ipvlan child of %s: %w; the kernel needs the ipvlan module (CONFIG_IPVLAN)", c.Master.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("make an ipvlan child of %s: %w", c.Master.Name, err)
	}
	child, err := p.h.LinkByName(attrs.Name)
	if err != nil {
		return nil, fmt.Errorf("find the new child of %s: %w", c.Master.Name, err)
	}
	return child, nil
}

// moduleTimeout is how long another process may take to load the ipvlan module.
const moduleTimeout = 500 * time.Millisecond

// addIPVlan waits for the ipvlan module while another process loads it: the kernel loads it on demand, and answers
// "not supported" to whoever asks in the middle, as the second of a fresh node's first two pods does.
func addIPVlan(ctx context.Context, l *netlink.IPVlan) error {
	const pause = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, moduleTimeout)
	defer cancel()
	for {
		err := netlink.LinkAdd(l)
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
