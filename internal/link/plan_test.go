// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

func to(dst string, gw ...string) netconf.Route {
	r := netconf.Route{Dst: netip.MustParsePrefix(dst)}
	if len(gw) > 0 {
		r.Gateway = netip.MustParseAddr(gw[0])
	}
	return r
}

func via(index, table int, r netconf.Route) route { return route{Route: r, index: index, table: table} }

func addr(prefix, gw string) Address {
	return Address{Prefix: netip.MustParsePrefix(prefix), Gateway: netip.MustParseAddr(gw)}
}

// The VPC CNI's eth0 as link 3: a /32 address, and a default route by a link-local gateway.
var (
	eth0Addr    = located{3, netip.MustParsePrefix("10.10.12.40/32")}
	eth0Host    = via(3, 254, to("169.254.1.1/32"))
	eth0Default = via(3, 254, to("0.0.0.0/0", "169.254.1.1"))
)

func TestDecide(t *testing.T) {
	net1 := []Address{addr("10.10.1.70/24", "10.10.1.1")}
	own := []string{"10.10.1.0/24 by link 5 in table 5005", "0.0.0.0/0 via 10.10.1.1 by link 5 in table 5005", "5005: from 10.10.1.70 lookup 5005"}
	eth0 := []string{
		"169.254.1.1/32 by link 3 in table 5003", "0.0.0.0/0 via 169.254.1.1 by link 3 in table 5003",
		"5003: from 10.10.12.40 lookup 5003",
	}
	tests := []struct {
		name  string
		child Child
		in    surroundings
		want  []string
	}{
		{
			"second interface beside the VPC CNI's, which keeps its replies",
			Child{Addresses: net1, SourceRouting: true},
			surroundings{addresses: []located{eth0Addr}, main: []route{eth0Host, eth0Default}},
			append(eth0, own...),
		},
		{
			"without source routing there are the configured routes alone",
			Child{Addresses: net1, Routes: []netconf.Route{to("10.20.0.0/16")}},
			surroundings{addresses: []located{eth0Addr}, main: []route{eth0Host, eth0Default}},
			[]string{"10.20.0.0/16 via 10.10.1.1 by link 5 in table 254"},
		},
		{
			"configured routes go to the main table and the interface's own",
			Child{Addresses: net1, SourceRouting: true, Routes: []netconf.Route{to("10.20.0.0/16"), to("10.30.0.0/16", "10.10.1.9")}},
			surroundings{main: []route{eth0Default}},
			append([]string{
				"10.20.0.0/16 via 10.10.1.1 by link 5 in table 254", "10.20.0.0/16 via 10.10.1.1 by link 5 in table 5005",
				"10.30.0.0/16 via 10.10.1.9 by link 5 in table 254", "10.30.0.0/16 via 10.10.1.9 by link 5 in table 5005",
			}, own...),
		},
		{
			"a route with a table of its own goes there alone",
			Child{Addresses: net1, SourceRouting: true, Routes: []netconf.Route{{Dst: netip.MustParsePrefix("10.20.0.0/16"), Table: new(99)}}},
			surroundings{main: []route{eth0Default}},
			append([]string{"10.20.0.0/16 via 10.10.1.1 by link 5 in table 99"}, own...),
		},
		{
			"first interface holds the default route",
			Child{Addresses: net1, SourceRouting: true, Routes: []netconf.Route{to("0.0.0.0/0")}},
			surroundings{},
			[]string{
				"0.0.0.0/0 via 10.10.1.1 by link 5 in table 254", "0.0.0.0/0 via 10.10.1.1 by link 5 in table 5005",
				"10.10.1.0/24 by link 5 in table 5005", "5005: from 10.10.1.70 lookup 5005",
			},
		},
		{
			"a second default route stays out of the main table",
			Child{Addresses: net1, SourceRouting: true, Routes: []netconf.Route{to("0.0.0.0/0", "10.10.1.2")}},
			surroundings{addresses: []located{eth0Addr}, main: []route{eth0Host, eth0Default}},
			append([]string{
				"0.0.0.0/0 via 10.10.1.2 by link 5 in table 5005", "10.10.1.0/24 by link 5 in table 5005",
				"5005: from 10.10.1.70 lookup 5005",
			}, eth0...),
		},
		{
			"eth0 that lost its default route keeps its replies",
			Child{Addresses: net1, SourceRouting: true},
			surroundings{addresses: []located{eth0Addr}, main: []route{eth0Host}},
			append(eth0, own...),
		},
		{
			"eth0 whose way out shows in another route",
			Child{Addresses: net1, SourceRouting: true},
			surroundings{
				addresses: []located{{2, netip.MustParsePrefix("10.244.0.5/24")}},
				main:      []route{via(2, 254, to("10.244.0.0/24")), via(2, 254, to("10.244.0.0/16", "10.244.0.1"))},
			},
			append([]string{
				"10.244.0.0/24 by link 2 in table 5002", "10.244.0.0/16 via 10.244.0.1 by link 2 in table 5002",
				"0.0.0.0/0 via 10.244.0.1 by link 2 in table 5002", "5002: from 10.244.0.5 lookup 5002",
			}, own...),
		},
		{
			"an interface of ours before this one protects itself",
			Child{Addresses: net1, SourceRouting: true},
			surroundings{addresses: []located{{4, netip.MustParsePrefix("10.10.2.70/24")}}, ruled: []int{4}},
			own,
		},
		{
			"two interfaces in one subnet answer for their own addresses only",
			Child{Addresses: net1, SourceRouting: true},
			surroundings{addresses: []located{{4, netip.MustParsePrefix("10.10.1.80/24")}}, ruled: []int{4}},
			append(own[:len(own):len(own)], "arp_ignore"),
		},
		{
			"a single address has no subnet",
			Child{Addresses: []Address{addr("10.10.1.70/32", "169.254.1.1")}, SourceRouting: true},
			surroundings{},
			[]string{"0.0.0.0/0 via 169.254.1.1 by link 5 in table 5005", "5005: from 10.10.1.70 lookup 5005"},
		},
		{
			"families are apart",
			Child{
				Addresses: []Address{net1[0], addr("2001:db8::70/64", "fe80:ec2::1")}, SourceRouting: true,
				Routes: []netconf.Route{to("::/0"), to("0.0.0.0/0")},
			},
			surroundings{addresses: []located{eth0Addr}, main: []route{eth0Host, eth0Default}},
			[]string{
				"::/0 via fe80:ec2::1 by link 5 in table 254", "::/0 via fe80:ec2::1 by link 5 in table 5005",
				"0.0.0.0/0 via 10.10.1.1 by link 5 in table 5005", "10.10.1.0/24 by link 5 in table 5005",
				"2001:db8::/64 by link 5 in table 5005",
				"5005: from 10.10.1.70 lookup 5005", "5005: from 2001:db8::70 lookup 5005",
				eth0[0], eth0[1], eth0[2],
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := decide(tt.child, 5, tt.in)
			var got []string
			for _, r := range p.routes {
				got = append(got, r.String())
			}
			for _, r := range p.rules {
				got = append(got, r.String())
			}
			if p.arpIgnore {
				got = append(got, "arp_ignore")
			}
			if diff := cmp.Diff(sorted(tt.want), sorted(got)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// sorted keeps the order of routes and rules among themselves, but puts rules last.
func sorted(lines []string) []string {
	var routes, rules []string
	for _, l := range lines {
		if strings.Contains(l, "lookup") || l == "arp_ignore" {
			rules = append(rules, l)
		} else {
			routes = append(routes, l)
		}
	}
	byText := cmpSorted(routes)
	return append(byText, cmpSorted(rules)...)
}

func TestInterimName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := keyOf(rapid.StringMatching(`[a-z0-9]{1,64}`).Draw(t, "a"), rapid.StringMatching(`[a-z0-9]{1,15}`).Draw(t, "i"))
		b := keyOf(rapid.StringMatching(`[a-z0-9]{1,64}`).Draw(t, "b"), a.IfName)
		name := interimName(a)
		if len(name) != 15 || strings.HasPrefix(name, "eni") || (a != b) != (name != interimName(b)) {
			t.Fatalf("%v: %q, %v: %q", a, name, b, interimName(b))
		}
	})
}
