// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package pod stands in for pods in tests and in the demo: an empty network namespace as a container runtime makes it,
// the few things that an application does in one (ping, TCP, UDP), and a look at what CNI plugins left there. It makes no
// interface but [Pod.AddIPVlan]'s, which is what a pod has whose address the VPC was never told of.
package pod

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// Pod is a named network namespace. The zero value is not usable; make one by [New].
type Pod struct {
	Name  string
	Netns string // path
}

// New makes a pod without any interface but a loopback that is up. The caller deletes it.
func New(name string) (p *Pod, err error) {
	path, err := netns.Create(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, netns.Delete(name))
		}
	}()
	h, err := Handle(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if err := h.LinkSetUp(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}); err != nil {
		return nil, fmt.Errorf("set lo up in %s: %w", name, err)
	}
	return &Pod{Name: name, Netns: path}, nil
}

// Delete removes the pod's namespace, and with it its interfaces. Deleting twice succeeds.
func (p *Pod) Delete() error { return netns.Delete(p.Name) }

// AddIPVlan makes an ipvlan interface in l2 mode on a worker's link, with an address and, when gateway is valid, a
// default route: what the upstream ipvlan plugin does with the static IPAM plugin.
func (p *Pod) AddIPVlan(workerNetns, master, ifName string, address netip.Prefix, gateway netip.Addr) error {
	worker, err := Handle(workerNetns)
	if err != nil {
		return err
	}
	defer worker.Close()
	parent, err := worker.LinkByName(master)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", master, workerNetns, err)
	}
	fd, err := vnetns.GetFromPath(p.Netns)
	if err != nil {
		return fmt.Errorf("open netns %s: %w", p.Netns, err)
	}
	attrs := netlink.NewLinkAttrs()
	// The kernel looks a name up in the caller's namespace as well, so a worker's eth0 is in the way of the pod's.
	attrs.Name, attrs.ParentIndex, attrs.Namespace = "tmp-"+ifName, parent.Attrs().Index, netlink.NsFd(fd)
	err = worker.LinkAdd(&netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2})
	if err = errors.Join(err, fd.Close()); err != nil {
		return fmt.Errorf("add ipvlan on %s to %s: %w", master, p.Name, err)
	}
	h, err := Handle(p.Netns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(attrs.Name)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", attrs.Name, p.Name, err)
	}
	if err := h.LinkSetName(link, ifName); err != nil {
		return fmt.Errorf("rename %s in %s: %w", attrs.Name, p.Name, err)
	}
	return configure(h, link, address, gateway)
}

// AddAddress configures an address on an interface that the pod has, and sets it up.
func (p *Pod) AddAddress(ifName string, address netip.Prefix, gateway netip.Addr) error {
	h, err := Handle(p.Netns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(ifName)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", ifName, p.Name, err)
	}
	return configure(h, link, address, gateway)
}

// RemoveAddress takes an address off an interface that the pod has.
func (p *Pod) RemoveAddress(ifName string, address netip.Prefix) error {
	h, err := Handle(p.Netns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(ifName)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", ifName, p.Name, err)
	}
	if err := h.AddrDel(link, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
		return fmt.Errorf("remove %s from %s: %w", address, ifName, err)
	}
	return nil
}

// configure sets link up with an address and a default route.
func configure(h netlinksafe.Handle, link netlink.Link, address netip.Prefix, gateway netip.Addr) error {
	name := link.Attrs().Name
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	addr := &netlink.Addr{IPNet: ipNet(address)}
	if address.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("add %s to %s: %w", address, name, err)
	}
	if !gateway.IsValid() {
		return nil
	}
	anywhere := ipNet(netip.PrefixFrom(address.Addr(), 0).Masked())
	r := &netlink.Route{Dst: anywhere, Gw: gateway.AsSlice(), LinkIndex: link.Attrs().Index}
	if err := h.RouteAdd(r); err != nil {
		return fmt.Errorf("add default route via %s: %w", gateway, err)
	}
	return nil
}

// TakeLink moves a link from a worker into the pod under the same name: the pod then has the ENI for itself, as with the
// host-device plugin. It is how a test gets a pod on an ENI where the kernel has no ipvlan.
func (p *Pod) TakeLink(workerNetns, name string) error {
	worker, err := Handle(workerNetns)
	if err != nil {
		return err
	}
	defer worker.Close()
	link, err := worker.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", name, workerNetns, err)
	}
	fd, err := vnetns.GetFromPath(p.Netns)
	if err != nil {
		return fmt.Errorf("open netns %s: %w", p.Netns, err)
	}
	err = worker.LinkSetNsFd(link, int(fd))
	if err = errors.Join(err, fd.Close()); err != nil {
		return fmt.Errorf("move %s to %s: %w", name, p.Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Handle is an rtnetlink handle in the namespace at path, for what this package has no verb for. The caller closes it;
// an open one keeps a deleted namespace alive.
func Handle(path string) (netlinksafe.Handle, error) {
	fd, err := vnetns.GetFromPath(path)
	if err != nil {
		return netlinksafe.Handle{}, fmt.Errorf("open netns %s: %w", path, err)
	}
	h, err := netlinksafe.NewHandleAt(fd, unix.NETLINK_ROUTE)
	if err = errors.Join(err, fd.Close()); err != nil {
		return netlinksafe.Handle{}, fmt.Errorf("open rtnetlink in %s: %w", path, err)
	}
	return h, nil
}
