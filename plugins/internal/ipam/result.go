// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// Result is what an ADD has done, and what one before it in a chain had done.
// https://github.com/containernetworking/cni/blob/main/SPEC.md#add-success
type Result struct {
	Interfaces []Interface // none in the result of an IPAM plugin
	IPs        []IP
	Routes     []netconf.Route
	DNS        types.DNS
}

// Interface is one that a plugin has made, or uses.
type Interface struct {
	Name    string
	MAC     eni.MAC
	MTU     int    // since 1.1.0
	Sandbox string // path of the container's network namespace; empty on the host
	// SocketPath and PCIID are other plugins' (1.1.0).
	SocketPath, PCIID string
}

// IP is an address, and the index in Interfaces of the one that has it; nil in the result of an IPAM plugin.
type IP struct {
	Address
	Interface *int
}

// ReadResult reads a result in any version since 0.3.0.
func ReadResult(raw json.RawMessage, version string) (Result, error) {
	versioned, err := create.Create(version, raw)
	if err != nil {
		return Result{}, err
	}
	return ResultOf(versioned)
}

// ResultOf takes over what the library has read.
func ResultOf(versioned types.Result) (r Result, err error) {
	if err = whole(versioned); err != nil {
		return r, err
	}
	from, err := types100.NewResultFromResult(versioned)
	if err != nil {
		return r, err
	}
	for _, i := range from.Interfaces {
		r.Interfaces = append(r.Interfaces, Interface{i.Name, eni.MAC(i.Mac), i.Mtu, i.Sandbox, i.SocketPath, i.PciID})
	}
	for _, c := range from.IPs {
		ip := IP{Interface: c.Interface}
		if ip.Prefix, err = prefix(c.Address); err != nil {
			return r, err
		}
		ip.Gateway = addr(c.Gateway)
		r.IPs = append(r.IPs, ip)
	}
	for _, c := range from.Routes {
		route := netconf.Route{Gateway: addr(c.GW), MTU: c.MTU, AdvMSS: c.AdvMSS, Priority: c.Priority, Table: c.Table, Scope: c.Scope}
		if route.Dst, err = prefix(c.Dst); err != nil {
			return r, err
		}
		route.Dst = route.Dst.Masked()
		r.Routes = append(r.Routes, route)
	}
	r.DNS = from.DNS
	return r, nil
}

// whole refuses what the library reads, and does not expect afterwards: null in a list.
func whole(versioned types.Result) error {
	broken := false
	switch r := versioned.(type) {
	case *types100.Result:
		broken = slices.Contains(r.Interfaces, nil) || slices.Contains(r.IPs, nil) || slices.Contains(r.Routes, nil)
	case *types040.Result:
		broken = slices.Contains(r.Interfaces, nil) || slices.Contains(r.IPs, nil) || slices.Contains(r.Routes, nil)
	}
	if broken {
		return errors.New("result has null in a list of interfaces, addresses or routes")
	}
	return nil
}

func prefix(n net.IPNet) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	switch {
	case !ok || bits == 0:
		return netip.Prefix{}, fmt.Errorf("result has an invalid address %s", n.String())
	case bits != a.Unmap().BitLen(): // IPv4 in IPv6 form
		return netip.Prefix{}, fmt.Errorf("result has an invalid address %s/%d", a, ones)
	}
	return netip.PrefixFrom(a.Unmap(), ones), nil
}

// addr is invalid when there is none.
func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
