// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawTopology draws a small VPC: few names, so that ENIs come, go, move and trade addresses often.
func drawTopology(t *rapid.T) Topology {
	top := Topology{
		VPCCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
		Workers:  []Worker{{Name: "w0"}, {Name: "w1"}},
		Routes:   map[netip.Addr]string{},
	}
	for s := range rapid.IntRange(1, 2).Draw(t, "subnets") {
		top.Subnets = append(top.Subnets, Subnet{
			Name: fmt.Sprint("s", s), IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(s), 0}), 24),
		})
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "ENIs") {
		if rapid.Bool().Draw(t, "absent") {
			continue
		}
		top.ENIs = append(top.ENIs, ENI{
			ID: fmt.Sprintf("eni-%017d", i), DeviceIndex: i, MAC: fmt.Sprintf("02:00:00:00:00:%02x", i),
			Worker: rapid.SampledFrom(top.Workers).Draw(t, "worker").Name,
			Subnet: rapid.SampledFrom(top.Subnets).Draw(t, "subnet").Name,
			Early:  rapid.Bool().Draw(t, "early"),
		})
	}
	for h := range 6 {
		holder := fmt.Sprintf("eni-%017d", rapid.IntRange(0, 6).Draw(t, "holder"))
		top.Routes[netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + h)})] = holder
		top.Routes[netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", h+1))] = holder
	}
	return top
}

// perform does to a state what the changes do to the kernel, in their order.
func perform(t *rapid.T, s state, c changes, labels map[string]string) state {
	out := newState()
	maps.Copy(out.links, s.links)
	maps.Copy(out.gateways, s.gateways)
	maps.Copy(out.unreachable, s.unreachable)
	maps.Copy(out.routes, s.routes)
	maps.Copy(out.proxies, s.proxies)
	for _, l := range c.removeLinks {
		delete(out.links, l)
		maps.DeleteFunc(out.routes, func(_ netip.Prefix, to string) bool { return to == l })
		maps.DeleteFunc(out.proxies, func(p proxy, _ bool) bool { return p.link == l })
	}
	for _, l := range c.addLinks {
		if _, ok := out.links[l]; ok {
			t.Fatalf("%s is made, but is there", l)
		}
		out.links[l] = labels[l]
	}
	for _, a := range c.addGateways {
		out.gateways[a] = true
	}
	for _, p := range c.addUnreachable {
		out.unreachable[p] = true
	}
	for _, p := range c.addProxies {
		out.proxies[p] = true
	}
	for _, r := range c.setRoutes {
		if _, ok := out.links[r.link]; !ok {
			t.Fatalf("%s is routed to %s, which is not there", r.dst, r.link)
		}
		out.routes[r.dst] = r.link
	}
	for _, p := range c.removeRoutes {
		delete(out.routes, p)
	}
	for _, p := range c.removeProxies {
		delete(out.proxies, p)
	}
	for _, p := range c.removeUnreachable {
		delete(out.unreachable, p)
	}
	for _, a := range c.removeGateways {
		delete(out.gateways, a)
	}
	return out
}

func TestChangesLeadFromAnyStateToAnyOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		have, want := wanted(drawTopology(rt)), wanted(drawTopology(rt))
		got := perform(rt, have, diff(have, want), want.links)
		for _, part := range []string{
			cmp.Diff(want.links, got.links), cmp.Diff(want.gateways, got.gateways, byAddr()),
			cmp.Diff(want.unreachable, got.unreachable, byAddr()), cmp.Diff(want.routes, got.routes, byAddr()),
			cmp.Diff(fmt.Sprint(want.proxies), fmt.Sprint(got.proxies)),
		} {
			if part != "" {
				rt.Fatalf("-want +got:\n%s", part)
			}
		}
		if again := diff(got, want); !cmp.Equal(fmt.Sprint(again), fmt.Sprint(changes{})) {
			rt.Fatalf("a second time: %+v", again)
		}
	})
}

func byAddr() cmp.Option {
	return cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}

func TestAMoveIsOneRouteChange(t *testing.T) {
	top := Topology{
		Subnets: []Subnet{{Name: "s", IPv4: netip.MustParsePrefix("10.0.0.0/24")}},
		Workers: []Worker{{Name: "w"}},
		ENIs: []ENI{
			{ID: "eni-1", Worker: "w", Subnet: "s", DeviceIndex: 1}, {ID: "eni-2", Worker: "w", Subnet: "s", DeviceIndex: 2},
		},
		Routes: map[netip.Addr]string{netip.MustParseAddr("10.0.0.10"): "eni-1"},
	}
	have := wanted(top)
	top.Routes = map[netip.Addr]string{netip.MustParseAddr("10.0.0.10"): "eni-2"}
	c := diff(have, wanted(top))
	if want := []route{{dst: netip.MustParsePrefix("10.0.0.10/32"), link: "eni-2"}}; !slices.Equal(c.setRoutes, want) || len(c.removeRoutes) > 0 {
		t.Errorf("changes %+v, want the route set to eni-2 and nothing removed", c)
	}
}

func TestFabricEndsFitAndKeepTheTailOfTheID(t *testing.T) {
	for id, want := range map[string]string{
		"eni-0123456789abcdef0": "eni-6789abcdef0",
		"eni-12345678":          "eni-12345678", // the short form of old accounts
	} {
		if got := fabricEnd(id); got != want || len(got) > maxLinkName {
			t.Errorf("fabricEnd(%s) = %s, want %s", id, got, want)
		}
	}
}
