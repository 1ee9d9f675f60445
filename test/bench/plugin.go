// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// plugin is one program of a comparison, or a chain of two.
type plugin struct {
	name    string
	program string
	path    string // CNI_PATH: where it finds its IPAM plugin
	// network is the configuration for the i-th container of a round.
	network func(i int) object
	// gives is whether ADD answers with an address.
	gives bool
	// outside is whether its calls come from the network namespace of this process instead of the worker's.
	outside bool
	// rounds that it takes part in, and ADDs in its turn at least: 0 means as many as the others. For slow ones.
	rounds, batch int
	// ready waits until the next round may start; nil where nothing has to be waited for.
	ready func(context.Context) error
	// left counts the addresses that are still taken after a round's DELs, and frees them; nil where nobody looks.
	left func(context.Context) (int, error)
}

// object is JSON.
type object = map[string]any

// reference is what the other IPAM plugins are compared with: it allocates nothing, so it is what IPAM costs at least.
// test/peers is built without cgo, as the releases are; with it, each start takes a millisecond more.
// https://github.com/containernetworking/plugins/blob/v1.9.1/scripts/release.sh
const reference = "static"

// interfaceReference is what the other chains of interface and IPAM plugins are compared with.
const interfaceReference = "ipvlan + host-local"

// range16 is where the other IPAM plugins take addresses from.
const range16 = "10.79.0.0/16"

// ipamPlugins are to be compared alone; the ground is theirs.
func (g *ground) ipamPlugins(o options) []plugin {
	return []plugin{
		{name: "a Go process that does nothing", program: o.idle, network: g.underIPVlan(func(int) object { return nil })},
		{
			name: reference, program: filepath.Join(o.peers, "static"), gives: true,
			network: g.underIPVlan(func(i int) object {
				a := netip.AddrFrom4([4]byte{10, 79, byte(i >> 8), byte(i)})
				return object{"type": "static", "addresses": []any{object{"address": a.String() + "/16", "gateway": "10.79.255.254"}}}
			}),
		},
		{name: "host-local", program: filepath.Join(o.peers, "host-local"), gives: true, left: g.hostLocalLeft, network: g.underIPVlan(g.hostLocal)},
		{name: "vpcipam", program: filepath.Join(o.bin, "vpcipam"), gives: true, ready: g.warm, left: g.held, network: g.underIPVlan(g.vpcipam)},
	}
}

// interfacePlugins make ipvlan interfaces.
func (g *ground) interfacePlugins(o options) []plugin {
	return []plugin{
		{name: interfaceReference, program: filepath.Join(o.peers, "ipvlan"), path: o.peers, gives: true, left: g.hostLocalLeft, network: g.underIPVlan(g.hostLocal)},
		{
			name: "vpcipvlan + vpcipam", program: filepath.Join(o.bin, "vpcipvlan"), path: o.bin, gives: true, ready: g.warm, left: g.held,
			network: func(i int) object {
				return object{"cniVersion": "1.0.0", "name": "bench", "type": "vpcipvlan", "eni": object{"deviceIndex": g.eni(i)}, "ipam": g.vpcipam(i)}
			},
		},
	}
}

// eni is the device index of the i-th container's ENI: they have their turns.
func (g *ground) eni(i int) int { return 1 + i%g.enis }

func (g *ground) hostLocalDir() string { return filepath.Join(g.worker.Dir, "host-local") }

// hostLocalLeft counts the files that host-local names by addresses.
func (g *ground) hostLocalLeft(context.Context) (int, error) {
	files, err := filepath.Glob(filepath.Join(g.hostLocalDir(), "bench", "10.*"))
	return len(files), err
}

// held counts the addresses that the agent still gives to somebody.
func (g *ground) held(ctx context.Context) (held int, err error) {
	s, err := g.worker.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, e := range s.ENIs {
		for _, a := range e.Addresses {
			if a.State == "held" {
				held++
			}
		}
	}
	return held, nil
}

func (g *ground) hostLocal(int) object {
	return object{"type": "host-local", "dataDir": g.hostLocalDir(), "ranges": []any{[]any{object{"subnet": range16}}}}
}

func (g *ground) vpcipam(int) object {
	return object{"type": "vpcipam", "agentSocket": g.worker.Socket()}
}

// underIPVlan is a configuration of upstream's ipvlan, as it hands it to its IPAM plugin.
func (g *ground) underIPVlan(ipam func(i int) object) func(int) object {
	return func(i int) object {
		return object{"cniVersion": "1.0.0", "name": "bench", "type": "ipvlan", "master": fmt.Sprintf("eth%d", g.eni(i)), "ipam": ipam(i)}
	}
}

// version is the module and version that the program was built from; empty for this project's own, and for what is not
// Go's.
func (p plugin) version() string {
	info, err := buildinfo.ReadFile(p.program)
	if err != nil || info.Main.Version == "(devel)" || strings.HasPrefix(info.Main.Path, "github.com/multus-vpc/") {
		return ""
	}
	return info.Main.Path + " " + info.Main.Version
}

// config is the i-th container's standard input.
func (p plugin) config(i int) ([]byte, error) { return json.Marshal(p.network(i)) }

// addressIn reads the one address of a result.
func addressIn(result []byte) (netip.Addr, error) {
	var r struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return netip.Addr{}, fmt.Errorf("read the result: %w: %q", err, result)
	}
	if len(r.IPs) != 1 {
		return netip.Addr{}, fmt.Errorf("the result has %d addresses, want 1: %q", len(r.IPs), result)
	}
	return r.IPs[0].Address.Addr(), nil
}
