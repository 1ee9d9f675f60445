// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/fabric"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// Time limits of a ping: one that must succeed gets long, since it ends with the reply; one that must fail gets some
// requests' worth.
const (
	patience = 10 * time.Second
	doubt    = 350 * time.Millisecond
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// twoWorkers is a VPC of two workers with an ENI each in the subnet "a" beside their primary one, and a third ENI in
// subnet "b".
func twoWorkers() fabric.Topology {
	return fabric.Topology{
		VPCCIDRs: []netip.Prefix{prefix("10.10.0.0/16"), prefix("2001:db8::/56")},
		Subnets: []fabric.Subnet{
			{Name: "primary", IPv4: prefix("10.10.12.0/24")},
			{Name: "a", IPv4: prefix("10.10.1.0/24"), IPv6: prefix("2001:db8:0:1::/64")},
			{Name: "b", IPv4: prefix("10.10.2.0/24"), IPv6: prefix("2001:db8:0:2::/64")},
		},
		Workers: []fabric.Worker{{Name: "w1"}, {Name: "w2"}},
		ENIs: []fabric.ENI{
			{ID: "eni-00000000000000010", Worker: "w1", Subnet: "primary", MAC: "02:00:00:00:01:00", Primary: addr("10.10.12.10")},
			{ID: "eni-00000000000000011", Worker: "w1", Subnet: "a", MAC: "02:00:00:00:01:01", DeviceIndex: 1, Primary: addr("10.10.1.11")},
			{ID: "eni-00000000000000020", Worker: "w2", Subnet: "primary", MAC: "02:00:00:00:02:00", Primary: addr("10.10.12.20")},
			{ID: "eni-00000000000000021", Worker: "w2", Subnet: "a", MAC: "02:00:00:00:02:01", DeviceIndex: 1, Primary: addr("10.10.1.21")},
			{ID: "eni-00000000000000022", Worker: "w2", Subnet: "b", MAC: "02:00:00:00:02:02", DeviceIndex: 2, Primary: addr("10.10.2.22")},
		},
		Routes: map[netip.Addr]string{
			addr("10.10.12.10"): "eni-00000000000000010",
			addr("10.10.12.20"): "eni-00000000000000020",
			addr("10.10.1.11"):  "eni-00000000000000011",
			addr("10.10.1.21"):  "eni-00000000000000021",
			addr("10.10.2.22"):  "eni-00000000000000022",
		},
	}
}

// bench is a fabric with pods that own an ENI each: p1 on w1's eth1, p2 on w2's eth1, p3 on w2's eth2.
type bench struct {
	*fabric.Fabric
	topology   fabric.Topology
	p1, p2, p3 *pod.Pod
}

func newFabric(t *testing.T) *fabric.Fabric {
	t.Helper()
	f, err := fabric.New(fabric.Config{Prefix: fmt.Sprintf("fab%d", os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Fabric: newFabric(t), topology: twoWorkers()}
	b.apply(t)
	pods := make([]*pod.Pod, 3)
	for i, at := range []struct{ worker, link string }{{"w1", "eth1"}, {"w2", "eth1"}, {"w2", "eth2"}} {
		p, err := pod.New(fmt.Sprintf("fabpod%d-%d", os.Getpid(), i))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Delete(); err != nil {
				t.Error(err)
			}
		})
		if err := p.TakeLink(b.Netns(at.worker), at.link); err != nil {
			t.Fatal(err)
		}
		pods[i] = p
	}
	b.p1, b.p2, b.p3 = pods[0], pods[1], pods[2]
	return b
}

func (b *bench) apply(t *testing.T) {
	t.Helper()
	if err := b.Apply(t.Context(), b.topology); err != nil {
		t.Fatal(err)
	}
}

// route registers an address on an ENI, or nowhere.
func (b *bench) route(t *testing.T, a netip.Addr, eni string) {
	t.Helper()
	b.topology.Routes = maps.Clone(b.topology.Routes)
	delete(b.topology.Routes, a)
	if eni != "" {
		b.topology.Routes[a] = eni
	}
	b.apply(t)
}

func configure(t *testing.T, p *pod.Pod, ifName, address, gateway string) {
	t.Helper()
	var gw netip.Addr
	if gateway != "" {
		gw = addr(gateway)
	}
	if err := p.AddAddress(ifName, prefix(address), gw); err != nil {
		t.Fatal(err)
	}
}

func reaches(t *testing.T, p *pod.Pod, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := pod.Ping(ctx, p.Netns, to); err != nil {
		t.Errorf("%s does not reach %s: %v", p.Name, to, err)
	}
}

func reachesNot(t *testing.T, p *pod.Pod, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), doubt)
	defer cancel()
	rtt, err := pod.Ping(ctx, p.Netns, to)
	if err == nil {
		t.Errorf("%s reaches %s (%v)", p.Name, to, rtt)
	} else if !errors.Is(err, pod.ErrNoReply) {
		t.Errorf("ping %s from %s: %v, want ErrNoReply", to, p.Name, err)
	}
}

func TestForwardsOnlyToTheHolder(t *testing.T) {
	b := newBench(t)
	configure(t, b.p1, "eth1", "10.10.1.70/24", "10.10.1.1")
	configure(t, b.p2, "eth1", "10.10.1.80/24", "10.10.1.1")
	configure(t, b.p3, "eth2", "10.10.2.90/24", "10.10.2.1")

	t.Log("neither address is registered")
	reachesNot(t, b.p1, addr("10.10.1.80"))
	reachesNot(t, b.p1, addr("10.10.1.1"))
	t.Log("the target alone is registered")
	b.route(t, addr("10.10.1.80"), "eni-00000000000000021")
	reachesNot(t, b.p1, addr("10.10.1.80"))
	t.Log("both are registered")
	b.route(t, addr("10.10.1.70"), "eni-00000000000000011")
	reaches(t, b.p1, addr("10.10.1.80"))
	reaches(t, b.p2, addr("10.10.1.70"))
	reaches(t, b.p1, addr("10.10.1.1"))
	t.Log("another subnet")
	reachesNot(t, b.p1, addr("10.10.2.90"))
	b.route(t, addr("10.10.2.90"), "eni-00000000000000022")
	reaches(t, b.p1, addr("10.10.2.90"))
	reaches(t, b.p3, addr("10.10.1.80"))
	reaches(t, b.p3, addr("10.10.1.1"))
	t.Log("unregistered again")
	b.route(t, addr("10.10.1.80"), "")
	reachesNot(t, b.p1, addr("10.10.1.80"))
}

func TestIPv6ForwardsOnlyToTheHolder(t *testing.T) {
	b := newBench(t)
	configure(t, b.p1, "eth1", "2001:db8:0:1::70/64", "fe80:ec2::1")
	configure(t, b.p2, "eth1", "2001:db8:0:1::80/64", "fe80:ec2::1")
	configure(t, b.p3, "eth2", "2001:db8:0:2::90/64", "fe80:ec2::1")

	reachesNot(t, b.p1, addr("2001:db8:0:1::80"))
	b.route(t, addr("2001:db8:0:1::70"), "eni-00000000000000011")
	b.route(t, addr("2001:db8:0:1::80"), "eni-00000000000000021")
	b.route(t, addr("2001:db8:0:2::90"), "eni-00000000000000022")
	reaches(t, b.p1, addr("fe80:ec2::1").WithZone("eth1"))
	reaches(t, b.p1, addr("2001:db8:0:1::80"))
	reaches(t, b.p2, addr("2001:db8:0:2::90"))
	reaches(t, b.p3, addr("2001:db8:0:1::70"))
	b.route(t, addr("2001:db8:0:1::80"), "")
	reachesNot(t, b.p1, addr("2001:db8:0:1::80"))
}

func TestDropsSpoofedSources(t *testing.T) {
	b := newBench(t)
	configure(t, b.p1, "eth1", "10.10.1.70/24", "10.10.1.1")
	configure(t, b.p2, "eth1", "10.10.1.80/24", "10.10.1.1")
	configure(t, b.p1, "eth1", "2001:db8:0:1::70/64", "fe80:ec2::1")
	configure(t, b.p2, "eth1", "2001:db8:0:1::80/64", "fe80:ec2::1")
	for a, id := range map[string]string{
		"10.10.1.70": "eni-00000000000000011", "10.10.1.80": "eni-00000000000000021", "10.10.1.99": "eni-00000000000000022",
		"2001:db8:0:1::70": "eni-00000000000000011", "2001:db8:0:1::80": "eni-00000000000000021", "2001:db8:0:1::99": "eni-00000000000000022",
	} {
		b.route(t, addr(a), id)
	}
	// Known neighbours first, so that the spoofed packets themselves leave.
	reaches(t, b.p1, addr("10.10.1.80"))
	reaches(t, b.p1, addr("2001:db8:0:1::80"))
	before := drops(t, b.Fabric)

	configure(t, b.p1, "eth1", "10.10.1.99/32", "")
	configure(t, b.p1, "eth1", "2001:db8:0:1::99/128", "")
	for _, spoof := range []struct{ from, to netip.Addr }{
		{addr("10.10.1.99"), addr("10.10.1.80")},
		{addr("2001:db8:0:1::99"), addr("2001:db8:0:1::80")},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), doubt)
		if rtt, err := pod.PingFrom(ctx, b.p1.Netns, spoof.from, spoof.to); err == nil {
			t.Errorf("ping from spoofed %s was answered (%v)", spoof.from, rtt)
		}
		cancel()
	}
	after := drops(t, b.Fabric)
	if after.IPv4 <= before.IPv4 || after.IPv6 <= before.IPv6 {
		t.Errorf("source check counted %+v before and %+v after spoofing", before, after)
	}
}

func drops(t *testing.T, f *fabric.Fabric) fabric.Drops {
	t.Helper()
	d, err := f.Drops()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAMoveTakesEffectAtOnce(t *testing.T) {
	b := newBench(t)
	configure(t, b.p1, "eth1", "10.10.1.99/24", "10.10.1.1")
	configure(t, b.p2, "eth1", "10.10.1.99/24", "10.10.1.1")
	configure(t, b.p3, "eth2", "10.10.2.90/24", "10.10.2.1")
	b.route(t, addr("10.10.2.90"), "eni-00000000000000022")
	for _, place := range []struct {
		eni  string
		here *pod.Pod
		gone *pod.Pod
	}{
		{"eni-00000000000000011", b.p1, b.p2},
		{"eni-00000000000000021", b.p2, b.p1},
		{"eni-00000000000000011", b.p1, b.p2},
	} {
		start := time.Now()
		b.route(t, addr("10.10.1.99"), place.eni)
		t.Logf("route change applied in %v", time.Since(start))
		reaches(t, b.p3, addr("10.10.1.99"))
		reaches(t, place.here, addr("10.10.2.90"))
		reachesNot(t, place.gone, addr("10.10.2.90"))
	}
}

func TestIPv6MoveTakesEffectAtOnce(t *testing.T) {
	b := newBench(t)
	const moving = "2001:db8:0:1::99"
	configure(t, b.p1, "eth1", moving+"/64", "fe80:ec2::1")
	configure(t, b.p2, "eth1", moving+"/64", "fe80:ec2::1")
	configure(t, b.p3, "eth2", "2001:db8:0:2::90/64", "fe80:ec2::1")
	b.route(t, addr("2001:db8:0:2::90"), "eni-00000000000000022")
	for _, place := range []struct {
		eni        string
		here, gone *pod.Pod
	}{
		{"eni-00000000000000011", b.p1, b.p2},
		{"eni-00000000000000021", b.p2, b.p1},
	} {
		b.route(t, addr(moving), place.eni)
		reaches(t, b.p3, addr(moving))
		reaches(t, place.here, addr("2001:db8:0:2::90"))
		reachesNot(t, place.gone, addr("2001:db8:0:2::90"))
	}
}

func TestDelegatedPrefixesAreRouted(t *testing.T) {
	b := newBench(t)
	configure(t, b.p1, "eth1", "10.10.1.200/24", "10.10.1.1")
	configure(t, b.p2, "eth1", "10.10.1.80/24", "10.10.1.1")
	b.route(t, addr("10.10.1.80"), "eni-00000000000000021")
	reachesNot(t, b.p2, addr("10.10.1.200"))
	b.topology.RoutePrefixes = map[netip.Prefix]string{prefix("10.10.1.192/28"): "eni-00000000000000011"}
	b.apply(t)
	reaches(t, b.p2, addr("10.10.1.200"))
}

// The VPC answers for every address of an IPv6 prefix on the other ENIs of the subnet, and routes it there.
func TestDelegatedIPv6PrefixesAreRouted(t *testing.T) {
	b := newBench(t)
	configure(t, b.p1, "eth1", "2001:db8:0:1:b::5/64", "fe80:ec2::1")
	configure(t, b.p2, "eth1", "2001:db8:0:1:c::7/64", "fe80:ec2::1")
	configure(t, b.p3, "eth2", "2001:db8:0:2::90/64", "fe80:ec2::1")
	b.route(t, addr("2001:db8:0:2::90"), "eni-00000000000000022")
	b.topology.RoutePrefixes = map[netip.Prefix]string{prefix("2001:db8:0:1:b::/80"): "eni-00000000000000011"}
	b.apply(t)
	reachesNot(t, b.p1, addr("2001:db8:0:1:c::7"))
	b.topology.RoutePrefixes = maps.Clone(b.topology.RoutePrefixes)
	b.topology.RoutePrefixes[prefix("2001:db8:0:1:c::/80")] = "eni-00000000000000021"
	b.apply(t)
	for _, p := range []struct {
		from *pod.Pod
		to   string
	}{
		{b.p1, "2001:db8:0:1:c::7"},
		{b.p2, "2001:db8:0:1:b::5"},
		{b.p3, "2001:db8:0:1:b::5"},
		{b.p1, "2001:db8:0:2::90"},
	} {
		reaches(t, p.from, addr(p.to))
	}
	// Nobody answers on the holder's own link, where the address may be a sibling's.
	reachesNot(t, b.p1, addr("2001:db8:0:1:b::6"))
	delete(b.topology.RoutePrefixes, prefix("2001:db8:0:1:c::/80"))
	b.apply(t)
	reachesNot(t, b.p1, addr("2001:db8:0:1:c::7"))
}

func TestTCPBetweenPods(t *testing.T) {
	b := newBench(t)
	configure(t, b.p1, "eth1", "10.10.1.70/24", "10.10.1.1")
	configure(t, b.p3, "eth2", "10.10.2.90/24", "10.10.2.1")
	b.route(t, addr("10.10.1.70"), "eni-00000000000000011")
	b.route(t, addr("10.10.2.90"), "eni-00000000000000022")
	at := netip.MustParseAddrPort("10.10.2.90:7")
	server, err := pod.ServeEcho(t.Context(), b.p3.Netns, at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := pod.Exchange(ctx, b.p1.Netns, at); err != nil {
		t.Error(err)
	}
}

func TestWorkersReachOneAnotherByTheirPrimaryENIs(t *testing.T) {
	f := newFabric(t)
	if err := f.Apply(t.Context(), twoWorkers()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := pod.Ping(ctx, f.Netns("w1"), addr("10.10.12.20")); err != nil {
		t.Error(err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	f := newFabric(t)
	if err := f.Apply(t.Context(), twoWorkers()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"vpc", "w1", "w2"} {
		if _, err := os.Stat(f.Netns(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it gone", f.Netns(name), err)
		}
	}
	if err := f.Apply(t.Context(), twoWorkers()); err == nil {
		t.Error("Apply on a closed fabric succeeded")
	}
}

func TestNewRemovesWhatACrashLeft(t *testing.T) {
	p := fmt.Sprintf("fabcrash%d", os.Getpid())
	for _, name := range []string{p + "-vpc", p + "-old-worker"} {
		if _, err := netns.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	f, err := fabric.New(fabric.Config{Prefix: p})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names, err := netns.List(p)
	if err != nil || !slices.Equal(names, []string{p + "-vpc"}) {
		t.Errorf("namespaces after New: %v, %v", names, err)
	}
}
