// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// IfName is the pods' interface.
const IfName = "net1"

// Master is the link of the worker's ENI for pods.
const Master = "eth1"

// Wiring is how pods get their interface.
type Wiring struct {
	// Plugin is the program that the runtime executes, Config its configuration for an agent's socket.
	Plugin string
	Config func(socket string) map[string]any
	// Attach makes the interface after ADD, Detach removes it; nil where the plugin does both.
	Attach func(workerNetns, podNetns string, r Result) error
	Detach func(podNetns string) error
}

// VPCIPAM executes the IPAM plugin as an interface plugin does. The interface is a macvlan child of the ENI's
// link: unlike ipvlan it is there on every kernel, and the lab's VPC judges by addresses, not by MACs.
func VPCIPAM() Wiring {
	return Wiring{
		Plugin: "vpcipam",
		Config: func(socket string) map[string]any {
			return map[string]any{
				"cniVersion": "1.0.0", "name": "stage", "type": "ipvlan", "master": Master,
				"ipam": map[string]any{"type": "vpcipam", "agentSocket": socket},
			}
		},
		Attach: attachMacvlan,
		Detach: detachLink,
	}
}

// VPCIPVlan executes the interface plugin, which makes the link itself and asks the agent itself. It needs ipvlan.
func VPCIPVlan() Wiring {
	return Wiring{
		Plugin: "vpcipvlan",
		Config: func(socket string) map[string]any {
			return map[string]any{
				"cniVersion": "1.0.0", "name": "stage", "type": "vpcipvlan", "eni": map[string]any{"deviceIndex": 1},
				"ipam": map[string]any{"type": "vpcipam", "agentSocket": socket},
			}
		},
	}
}

// Result is what the tests need of a CNI result.
type Result struct {
	Addr    netip.Prefix
	Gateway netip.Addr
}

// ParseResult reads what ADD printed.
func ParseResult(out []byte) (Result, error) {
	var r struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
			Gateway netip.Addr   `json:"gateway"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return Result{}, fmt.Errorf("read the result of ADD: %w: %s", err, out)
	}
	if len(r.IPs) != 1 || !r.IPs[0].Address.IsValid() {
		return Result{}, fmt.Errorf("the result of ADD has not exactly one address: %s", out)
	}
	return Result{Addr: r.IPs[0].Address, Gateway: r.IPs[0].Gateway}, nil
}

// attachMacvlan gives the pod an interface on the ENI with the address that it got.
func attachMacvlan(workerNetns, podNetns string, r Result) (err error) {
	worker, err := pod.Handle(workerNetns)
	if err != nil {
		return err
	}
	defer worker.Close()
	parent, err := worker.LinkByName(Master)
	if err != nil {
		return fmt.Errorf("find %s: %w", Master, err)
	}
	fd, err := vnetns.GetFromPath(podNetns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fd.Close()) }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = IfName, parent.Attrs().Index, netlink.NsFd(fd)
	// An address keeps its MAC from one pod to the next, as under ipvlan: otherwise the VPC and the siblings look for the
	// pod before, until their neighbour entries expire.
	addr := r.Addr.Addr().As4()
	attrs.HardwareAddr = append(net.HardwareAddr{0x0a, 0x58}, addr[:]...)
	if err = worker.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}); err != nil {
		return fmt.Errorf("add macvlan to %s: %w", podNetns, err)
	}
	inside, err := pod.Handle(podNetns)
	if err != nil {
		return err
	}
	defer inside.Close()
	link, err := inside.LinkByName(IfName)
	if err != nil {
		return err
	}
	if err = inside.AddrAdd(link, &netlink.Addr{IPNet: ipNet(r.Addr)}); err != nil {
		return fmt.Errorf("add %s in %s: %w", r.Addr, podNetns, err)
	}
	if err = setUp(inside, link); err != nil {
		return fmt.Errorf("set %s up in %s: %w", IfName, podNetns, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: r.Gateway.AsSlice(), Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))}
	if err = inside.RouteAdd(route); err != nil {
		return fmt.Errorf("add a default route by %s in %s: %w", r.Gateway, podNetns, err)
	}
	return nil
}

// setUp waits for the pod that had the address before: the kernel takes a link away some time after its namespace.
func setUp(h netlinksafe.Handle, link netlink.Link) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := h.LinkSetUp(link)
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		select {
		case <-tick.C:
		case <-late.C:
			return err
		}
	}
}

func detachLink(podNetns string) error {
	h, err := pod.Handle(podNetns)
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(IfName)
	if notFound := (netlink.LinkNotFoundError{}); errors.As(err, &notFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return h.LinkDel(link)
}

// AddressesIn lists what the interfaces of a namespace carry, loopback left out.
func AddressesIn(netnsPath string) ([]netip.Addr, error) {
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
