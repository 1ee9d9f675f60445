// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/link"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/plugins/internal/ipam"
)

// TestResultKeepsWhatWasBefore: what an earlier plugin of the chain has made stays in the result, its DNS settings as long as nobody
// after it has any.
func TestResultKeepsWhatWasBefore(t *testing.T) {
	dns := func(domain string) types.DNS { return types.DNS{Domain: domain} }
	for _, tt := range []struct{ prev, ipam, network, want string }{
		{"", "", "", ""},
		{"prev", "", "", "prev"},
		{"prev", "ipam", "", "ipam"},
		{"prev", "", "network", "network"},
		{"prev", "ipam", "network", "network"},
	} {
		first := 0
		prev := ipam.Result{
			Interfaces: []ipam.Interface{{Name: "eth0", Sandbox: "/run/netns/x"}},
			IPs:        []ipam.IP{{Address: ipam.Address{Prefix: netip.MustParsePrefix("10.0.0.5/24")}, Interface: &first}},
			Routes:     []netconf.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0")}},
			DNS:        dns(tt.prev),
		}
		c := call{conf: netconf.VPCIpvlan{CNIVersion: "1.1.0", DNS: dns(tt.network)}}
		g := grant{addresses: []ipam.Address{{Prefix: netip.MustParsePrefix("10.10.1.70/24")}}, dns: dns(tt.ipam)}
		r := c.result(g, link.Made{}, prev)
		if diff := cmp.Diff(dns(tt.want), r.DNS); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt, diff)
		}
		if len(r.Interfaces) != 2 || len(r.IPs) != 2 || *r.IPs[0].Interface != 0 || *r.IPs[1].Interface != 1 || len(r.Routes) != 1 {
			t.Errorf("%+v: result is %+v", tt, r)
		}
	}
}
