// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
)

// plugin is one program of the comparison.
type plugin struct {
	name    string
	program string
	// ipam is the configuration for the i-th container of a round.
	ipam func(i int) object
	// gives is whether ADD answers with an address.
	gives bool
	// ready waits until the next round may start; nil where nothing has to be waited for.
	ready func(context.Context) error
}

// object is JSON.
type object = map[string]any

// reference is what the others are compared with: it allocates nothing, so it is what IPAM costs at least. test/peers is
// built without cgo, as the releases are; with it, each start takes a millisecond more.
// https://github.com/containernetworking/plugins/blob/v1.9.1/scripts/release.sh
const reference = "static"

// plugins to compare; the ground is theirs.
func (g *ground) plugins(o options) []plugin {
	data := filepath.Join(g.worker.Dir, "host-local")
	return []plugin{
		{
			name: "a Go process that does nothing", program: o.idle,
			ipam: func(int) object { return nil },
		},
		{
			name: reference, program: filepath.Join(o.peers, "static"), gives: true,
			ipam: func(i int) object {
				a := netip.AddrFrom4([4]byte{10, 79, byte(i >> 8), byte(i)})
				return object{"type": "static", "addresses": []any{object{"address": a.String() + "/16", "gateway": "10.79.255.254"}}}
			},
		},
		{
			name: "host-local", program: filepath.Join(o.peers, "host-local"), gives: true,
			ipam: func(int) object {
				return object{"type": "host-local", "dataDir": data, "ranges": []any{[]any{object{"subnet": "10.79.0.0/16"}}}}
			},
		},
		{
			name: "vpcipam", program: filepath.Join(o.bin, "vpcipam"), gives: true, ready: g.warm,
			ipam: func(int) object { return object{"type": "vpcipam", "agentSocket": g.worker.Socket()} },
		},
	}
}

// config is what upstream's ipvlan hands to its IPAM plugin, with the ENIs by turns.
func (p plugin) config(i int) ([]byte, error) {
	return json.Marshal(object{
		"cniVersion": "1.0.0", "name": "bench", "type": "ipvlan", "master": fmt.Sprintf("eth%d", 1+i%podENIs), "ipam": p.ipam(i),
	})
}

// addressIn reads the one address of an IPAM result.
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
