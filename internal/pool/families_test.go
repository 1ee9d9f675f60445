// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// dual is two workers in a subnet of both families, with reservations of each type.
const dual = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: primary, cidr: 10.10.12.0/24, az: us-west-2a}
- name: multus-1
  cidr: 10.10.1.0/24
  ipv6: "2001:db8:10:1::/64"
  az: us-west-2a
  reservations:
  - {cidr: 10.10.1.64/26}
  - {cidr: 10.10.1.128/26, type: prefix}
  - {cidr: 10.10.1.192/28, tags: {multus-vpc.io/role: static}}
  - {cidr: 10.10.1.208/28, tags: {tier: gold}}
  - {cidr: "2001:db8:10:1:1::/80"}
  - {cidr: "2001:db8:10:1:8000::/66", type: prefix}
instances:
- name: worker-1
  enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: worker-2
  enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
ec2: {latency: 80ms, propagation: {route: 1s, imds: 2s, describe: 1s}}
`

// inLab runs a test in a bubble with one worker of a scenario.
func inLab(t *testing.T, yaml string, test func(*testing.T, *world, *node)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, yaml)
		n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 2, 4 })
		defer func() { n.stop() }()
		<-n.Ready()
		test(t, w, n)
	})
}

// addAll is add for any number of addresses.
func (n *node) addAll(a attachment.Attachment, q attachment.Query) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := n.Add(ctx, a, q)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, p := range got.Addresses {
		addrs = append(addrs, p.Addr())
		n.netns.carry(a.Netns.Path, p.Addr())
	}
	return addrs, nil
}

// routed reports whether the VPC routes the address to the worker's pool ENI, by itself or in a prefix.
func (w *world) routed(worker string, a netip.Addr) bool {
	v := w.lab.Cloud.View(time.Now().Add(-w.lab.Cloud.Lags().Route))
	if v.Routes()[a] == w.lab.ENIs[worker][1] {
		return true
	}
	for p, id := range v.RoutePrefixes() {
		if p.Contains(a) && id == w.lab.ENIs[worker][1] {
			return true
		}
	}
	return false
}

func TestFamiliesAndSources(t *testing.T) {
	v4, v6 := []string{attachment.IPv4}, []string{attachment.IPv6}
	both := []string{attachment.IPv4, attachment.IPv6}
	tests := map[string]struct {
		query  attachment.Query
		within []string // one CIDR per address
	}{
		"ipv6 of a reservation": {attachment.Query{Families: v6}, []string{"2001:db8:10:1:1::/80"}},
		"dual stack":            {attachment.Query{Families: both}, []string{"10.10.1.0/24", "2001:db8:10:1:1::/80"}},
		"ipv4 prefix":           {attachment.Query{Families: v4, Source: attachment.SourcePrefix}, []string{"10.10.1.128/26"}},
		"ipv6 prefix":           {attachment.Query{Families: v6, Source: attachment.SourcePrefix}, []string{"2001:db8:10:1:8000::/66"}},
		"dual prefixes":         {attachment.Query{Families: both, Source: attachment.SourcePrefix}, []string{"10.10.1.128/26", "2001:db8:10:1:8000::/66"}},
		"ipv4 of the subnet":    {attachment.Query{Source: attachment.SourceSubnet}, []string{"10.10.1.0/24"}},
		"dual of the subnet":    {attachment.Query{Families: both, Source: attachment.SourceSubnet}, []string{"10.10.1.0/24", "2001:db8:10:1::/64"}},
		"by reservation tag":    {attachment.Query{ReservationTags: map[string]string{"tier": "gold"}}, []string{"10.10.1.208/28"}},
		"range":                 {attachment.Query{Ranges: ranges("10.10.1.70-10.10.1.79")}, []string{"10.10.1.64/28"}},
		"exclude":               {attachment.Query{Exclude: ranges("10.10.1.64-10.10.1.125", "10.10.1.208/28")}, []string{"10.10.1.126/31"}},
		"ipv6 range":            {attachment.Query{Families: v6, Ranges: ranges("2001:db8:10:1:1::100-2001:db8:10:1:1::10f")}, []string{"2001:db8:10:1:1::100/124"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				seen := map[netip.Addr]bool{}
				for _, id := range []string{"a", "b"} {
					addrs, err := n.addAll(n.pod(id), tt.query)
					if err != nil {
						t.Fatalf("ADD %s: %v", id, err)
					}
					if len(addrs) != len(tt.within) {
						t.Fatalf("got %v", addrs)
					}
					for i, a := range addrs {
						if !netip.MustParsePrefix(tt.within[i]).Contains(a) || seen[a] || !w.routed("worker-1", a) {
							t.Errorf("%s is not a new one within %s, or not routed", a, tt.within[i])
						}
						seen[a] = true
					}
				}
				// What is in stock survives a restart, and the pods' addresses do.
				n.crash()
				<-n.Ready()
				for a := range seen {
					if got := n.states()[a]; got != "held" {
						t.Errorf("after a restart %s is %s", a, got)
					}
				}
				for _, id := range []string{"a", "b"} {
					n.netns.remove("/run/netns/" + id)
					if err := n.Del(attachment.Key{ContainerID: id, IfName: "net1"}); err != nil {
						t.Error(err)
					}
				}
				eventually(t, 10*time.Minute, "nothing is held, cooling or in doubt", func() bool {
					for _, s := range n.states() {
						if s != "free" {
							return false
						}
					}
					return true
				})
				w.agreeAll(n)
			})
		})
	}
}

func ranges(s ...string) []attachment.Range {
	var rs []attachment.Range
	for _, x := range s {
		r, err := attachment.ParseRange(x)
		if err != nil {
			panic(err)
		}
		rs = append(rs, r)
	}
	return rs
}

// agreeAll fails the test unless addresses and prefixes are what EC2 has.
func (w *world) agreeAll(n *node) {
	w.t.Helper()
	e, _ := w.lab.Cloud.View(time.Now()).ENI(w.lab.ENIs[n.name][1])
	var have, believed []string
	for _, a := range append(slices.Clone(e.Secondary), e.IPv6...) {
		have = append(have, a.String())
	}
	for _, p := range append(slices.Clone(e.Prefixes), e.IPv6Prefixes...) {
		have = append(have, p.String())
	}
	for _, s := range n.Status().ENIs {
		if string(s.ENI.ID) != w.lab.ENIs[n.name][1] {
			continue
		}
		for _, a := range s.Addresses {
			if !slices.ContainsFunc(s.Prefixes, func(p pool.PrefixStatus) bool { return p.Prefix.Contains(a.Addr) }) {
				believed = append(believed, a.Addr.String())
			}
		}
		for _, p := range s.Prefixes {
			believed = append(believed, p.Prefix.String())
		}
	}
	slices.Sort(have)
	slices.Sort(believed)
	if !slices.Equal(have, believed) {
		w.t.Errorf("%s: EC2 has %v, the agent believes %v", n.name, have, believed)
	}
}

// TestPrefixesArePackedAndComeFree: twenty pods need two prefixes; when the pods of one are gone it goes back.
func TestPrefixesArePackedAndComeFree(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		q := attachment.Query{Source: attachment.SourcePrefix}
		var pods []attachment.Attachment
		by := map[netip.Prefix]int{}
		for i := range 20 {
			pods = append(pods, n.pod(string(rune('a'+i))))
			addrs, err := n.addAll(pods[i], q)
			if err != nil {
				t.Fatal(err)
			}
			by[netip.PrefixFrom(addrs[0], 28).Masked()]++
		}
		full := 0
		for _, c := range by {
			if c == 16 {
				full++
			}
		}
		if len(by) != 2 || full != 1 {
			t.Errorf("20 pods are spread as %v", by)
		}
		for _, p := range pods {
			n.del(p)
		}
		eventually(t, 10*time.Minute, "one prefix is left as stock", func() bool {
			return len(n.Status().ENIs[1].Prefixes) == 1 && n.count("cooling") == 0
		})
		w.agreeAll(n)
	})
}

// TestLostReplyByCount: what EC2 chose and nobody told us of is found on the ENI and used.
func TestLostReplyByCount(t *testing.T) {
	for name, q := range map[string]attachment.Query{
		"subnet": {Source: attachment.SourceSubnet}, "prefix": {Source: attachment.SourcePrefix},
		"ipv6 subnet": {Source: attachment.SourceSubnet, Families: []string{attachment.IPv6}},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				if err := w.lab.Front.SetFaults([]front.Fault{
					{Action: "AssignPrivateIpAddresses", Nth: 1, Kind: front.LostReply},
					{Action: "AssignIpv6Addresses", Nth: 1, Kind: front.LostReply},
				}); err != nil {
					t.Fatal(err)
				}
				if _, err := n.addAll(n.pod("a"), q); err != nil {
					t.Fatal(err)
				}
				eventually(t, 10*time.Minute, "nothing is foreign or in doubt", func() bool {
					return n.count("foreign")+n.count("unknown")+n.count("assigning") == 0
				})
				time.Sleep(10 * time.Minute)
				w.agreeAll(n)
			})
		})
	}
}

func TestRequestedAddress(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		want := netip.MustParseAddr("10.10.1.195") // in the static reservation
		q := attachment.Query{Requested: []netip.Addr{want}}
		a := n.pod("a")
		addrs, err := n.addAll(a, q)
		if err != nil || addrs[0] != want || !w.routed("worker-1", want) {
			t.Fatalf("got %v, %v", addrs, err)
		}
		_, err = n.addAll(n.pod("b"), q)
		if r := refusal(t, err); r.Reason != pool.Exhausted || !strings.Contains(r.Text, "held by attachment a/net1") {
			t.Errorf("a second pod: %q", r.Text)
		}
		n.del(a)
		eventually(t, 2*time.Minute, "it went back with its pod", func() bool { return w.owner(want) == "" })

		w.assign("worker-2", want)
		time.Sleep(5 * time.Second)
		_, err = n.addAll(n.pod("c"), q)
		if r := refusal(t, err); r.Reason != pool.Exhausted || !strings.Contains(r.Text, w.lab.ENIs["worker-2"][1]) {
			t.Errorf("another worker's: %q", r.Text)
		}
		if w.owner(want) != w.lab.ENIs["worker-2"][1] {
			t.Error("it was taken from another worker")
		}
		_, err = n.addAll(n.pod("d"), attachment.Query{Requested: []netip.Addr{netip.MustParseAddr("10.99.0.1")}})
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, "10.99.0.1") {
			t.Errorf("outside of the subnet: %q", r.Text)
		}
		_, err = n.addAll(n.pod("e"), attachment.Query{Requested: []netip.Addr{netip.MustParseAddr("10.10.1.1")}})
		if r := refusal(t, err); r.Reason != pool.Invalid {
			t.Errorf("the router's: %q", r.Text)
		}
	})
}

func TestRegister(t *testing.T) {
	const addr = "10.10.1.195"
	want := netip.MustParseAddr(addr)
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		a := n.pod("a")
		for range 2 { // it may be repeated
			if _, err := n.Register(context.Background(), a, attachment.Query{}, []netip.Addr{want}, attachment.WaitThenReassign); err != nil {
				t.Fatal(err)
			}
		}
		if !w.routed("worker-1", want) || n.states()[want] != "guest" {
			t.Fatalf("%s is %s", want, n.states()[want])
		}
		n.del(a)
		eventually(t, time.Minute, "given back", func() bool { return w.owner(want) == "" })
	})
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		w.assign("worker-2", want)
		time.Sleep(5 * time.Second)
		_, err := n.Register(context.Background(), n.pod("a"), attachment.Query{}, []netip.Addr{want}, attachment.Never)
		if r := refusal(t, err); r.Reason != pool.Exhausted || w.owner(want) != w.lab.ENIs["worker-2"][1] {
			t.Errorf("never: %q, owner %s", r.Text, w.owner(want))
		}
		began := time.Now()
		if _, err := n.Register(context.Background(), n.pod("b"), attachment.Query{}, []netip.Addr{want}, attachment.WaitThenReassign); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 5*time.Second || !w.routed("worker-1", want) {
			t.Errorf("moved after %s, routed %t", took, w.routed("worker-1", want))
		}
	})
}

func TestGC(t *testing.T) {
	inLab(t, dual, func(t *testing.T, _ *world, n *node) {
		kept, dead, carrying, other := n.pod("kept"), n.pod("dead"), n.pod("carrying"), n.pod("other")
		other.Network = "another"
		addrs := map[string]netip.Addr{}
		for _, a := range []attachment.Attachment{kept, dead, carrying, other} {
			addrs[a.ContainerID] = n.mustAdd(a, any1())
		}
		for _, a := range []attachment.Attachment{dead, other} {
			n.netns.drop(a.Netns.Path)
		}
		if err := n.GC("n6", []attachment.Key{kept.Key}); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]string{"kept": "held", "dead": "cooling", "carrying": "held", "other": "held"} {
			if got := n.states()[addrs[id]]; got != want {
				t.Errorf("%s is %s, want %s", id, got, want)
			}
		}
	})
}

func TestReadiness(t *testing.T) {
	inLab(t, strings.Replace(dual, "10.10.1.64/26}", "10.10.1.64/31}", 1), func(t *testing.T, w *world, n *node) {
		if limited, err := n.Readiness(any1()); limited || err != nil {
			t.Errorf("at first: %t, %v", limited, err)
		}
		q := attachment.Query{Ranges: ranges("10.10.1.64/31")}
		a := n.pod("a")
		n.mustAdd(a, q)
		n.mustAdd(n.pod("b"), q)
		eventually(t, time.Minute, "the range is known to be full", func() bool {
			_, err := n.Readiness(q)
			return err != nil && refusal(t, err).Reason == pool.Exhausted
		})
		addr := netip.MustParseAddr("10.10.1.64")
		w.assign("worker-2", addr)
		eventually(t, 5*time.Minute, "a pod lost its address", func() bool {
			limited, err := n.Readiness(q)
			return limited && err != nil
		})
	})
}
