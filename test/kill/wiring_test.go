// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// ifName is the pods' interface.
const ifName = "net1"

// master is the link of the worker's ENI for pods.
const master = "eth1"

// wiring is how pods get their interface.
type wiring struct {
	// plugin is the program that the runtime executes, config its configuration for an agent's socket.
	plugin string
	config func(socket string) map[string]any
	// attach makes the interface after ADD, detach removes it; nil where the plugin does both.
	attach func(workerNetns, podNetns string, r result) error
	detach func(podNetns string) error
}

// withVPCIPAM executes the IPAM plugin as an interface plugin does. The interface is a macvlan child of the ENI's
// link: unlike ipvlan it is there on every kernel, and the lab's VPC judges by addresses, not by MACs.
func withVPCIPAM() wiring {
	return wiring{
		plugin: "vpcipam",
		config: func(socket string) map[string]any {
			return map[string]any{
				"cniVersion": "1.0.0", "name": "kill", "type": "ipvlan", "master": master,
				"ipam": map[string]any{"type": "vpcipam", "agentSocket": socket},
			}
		},
		attach: attachMacvlan,
		detach: detachLink,
	}
}

// result is what the tests need of a CNI result.
type result struct {
	Addr    netip.Prefix
	Gateway netip.Addr
}

func parseResult(out []byte) (result, error) {
	var r struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
			Gateway netip.Addr   `json:"gateway"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return result{}, fmt.Errorf("read the result of ADD: %w: %s", err, out)
	}
	if len(r.IPs) != 1 || !r.IPs[0].Address.IsValid() {
		return result{}, fmt.Errorf("the result of ADD has not exactly one address: %s", out)
	}
	return result{Addr: r.IPs[0].Address, Gateway: r.IPs[0].Gateway}, nil
}

// attachMacvlan gives the pod an interface on the ENI with the address that it got.
func attachMacvlan(workerNetns, podNetns string, r result) (err error) {
	worker, err := pod.Handle(workerNetns)
	if err != nil {
		return err
	}
	defer worker.Close()
	parent, err := worker.LinkByName(master)
	if err != nil {
		return fmt.Errorf("find %s: %w", master, err)
	}
	fd, err := vnetns.GetFromPath(podNetns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fd.Close()) }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = ifName, parent.Attrs().Index, netlink.NsFd(fd)
	if err = worker.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
		return fmt.Errorf("add macvlan to %s: %w", podNetns, err)
	}
	inside, err := pod.Handle(podNetns)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(ifName)
	if err != nil {
		return err
	}
	if err = inside.AddrAdd(link, &netlink.Addr{IPNet: ipNet(r.Addr)}); err != nil {
		return fmt.Errorf("add %s in %s: %w", r.Addr, podNetns, err)
	}
	if err = inside.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up in %s: %w", ifName, podNetns, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: r.Gateway.AsSlice(), Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))}
	if err = inside.RouteAdd(route); err != nil {
		return fmt.Errorf("add a default route by %s in %s: %w", r.Gateway, podNetns, err)
	}
	return nil
}

func detachLink(podNetns string) error {
	h, err := pod.Handle(podNetns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(ifName)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return h.LinkDel(link)
}

// addressesIn lists what the interfaces of a namespace carry, loopback left out.
func addressesIn(netnsPath string) ([]netip.Addr, error) {
	h, err := pod.Handle(netnsPath)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	list, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP.To4()); ok && !addr.IsLoopback() {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
