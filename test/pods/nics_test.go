// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// threeENIs has a worker with ENIs for pods on two network cards, two of them in one subnet, and another one with an ENI
// in that subnet and one in a subnet that the first has none in. The first one's operating system does not configure the
// ENIs for pods: with routes of its own by them, it would send what comes from eth0 to their subnets by the wrong ENI.
const threeENIs = `
vpc: {cidr: 10.77.0.0/16, ipv6: "2001:db8:77::/56"}
subnets:
- {name: primary,  cidr: 10.77.12.0/24, az: us-west-2a, reservations: [{cidr: 10.77.12.192/26, tags: {multus-vpc.io/role: static}}]}
- {name: multus-1, cidr: 10.77.1.0/24, ipv6: "2001:db8:77:1::/64", az: us-west-2a,
   reservations: [{cidr: 10.77.1.64/26}, {cidr: "2001:db8:77:1:a::/80"}]}
- {name: multus-2, cidr: 10.77.2.0/24, ipv6: "2001:db8:77:2::/64", az: us-west-2a,
   reservations: [{cidr: 10.77.2.64/26}, {cidr: "2001:db8:77:2:a::/80"}]}
- {name: multus-3, cidr: 10.77.3.0/24, ipv6: "2001:db8:77:3::/64", az: us-west-2a,
   reservations: [{cidr: 10.77.3.64/26}, {cidr: "2001:db8:77:3:a::/80"}]}
instances:
- name: worker-1
  type: m6in.32xlarge
  enis:
  - {subnet: primary, addresses: [10.77.12.20]}
  - {subnet: multus-1, addresses: [10.77.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
  - {subnet: multus-2, addresses: [10.77.2.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
  - {subnet: multus-1, addresses: [10.77.1.22], networkCard: 1, tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
- name: worker-2
  type: m6in.32xlarge
  enis:
  - {subnet: primary, addresses: [10.77.12.21]}
  - {subnet: multus-1, addresses: [10.77.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-3, addresses: [10.77.3.21], networkCard: 1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2:
  latency: 20ms
  propagation: {route: 2s, imds: 2500ms, describe: 2s}
`

// TestPodWithThreeENIsAnswersOnEachAddress has a pod with the cluster network's interface, two attachments of one network,
// and one on each of two other ENIs. It answers on every address to pods on and off its subnets and beside it, to the
// kubelet, and to the routers. The VPC drops what leaves by an ENI that does not hold the source.
func TestPodWithThreeENIsAnswersOnEachAddress(t *testing.T) {
	g := raise(t, threeENIs)
	callers := map[string][]endpoint{}
	for name, at := range map[string]struct {
		worker string
		eni    object
	}{
		"the other worker, in a subnet of the pod": {"worker-2", object{"networkCard": 0, "deviceIndex": 1}},
		"the other worker, in a foreign subnet":    {"worker-2", object{"networkCard": 1, "deviceIndex": 1}},
		"a sibling on the ENI of net1":             {"worker-1", object{"networkCard": 0, "deviceIndex": 1}},
		"a sibling on the ENI of net2":             {"worker-1", object{"networkCard": 1, "deviceIndex": 1}},
	} {
		i := g.add(t, at.worker, g.newPod(t), "net1", g.vpcipvlan(at.worker, at.eni, object{"families": dual}))
		callers[name] = serving(t, i)
	}
	for _, tt := range []struct {
		name   string
		moves  bool // Multus takes the default route from eth0
		holder string
	}{
		{name: "Multus moves the default route to net1", moves: true, holder: "net1"},
		// https://github.com/k8snetworkplumbingwg/multus-cni/pull/1552
		{name: "Multus leaves the default route at eth0", holder: "eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := g.newPod(t)
			addr := g.clusterNetwork(t, "worker-1", p)
			if tt.moves {
				moveDefault(t, p.Netns, "eth0", "")
			}
			bare := look(t, p.Netns)
			var nics []nic
			for _, n := range []struct {
				name string
				eni  object
			}{
				{"net1", object{"networkCard": 0, "deviceIndex": 1}},
				{"net2", object{"networkCard": 1, "deviceIndex": 1}}, // in the subnet of net1
				{"net3", object{"networkCard": 0, "deviceIndex": 2}},
				{"net4", object{"networkCard": 0, "deviceIndex": 1}}, // the network of net1 again
			} {
				nics = append(nics, g.add(t, "worker-1", p, n.name, g.vpcipvlan("worker-1", n.eni, object{"families": dual})))
				if n.name == "net1" {
					moveDefault(t, p.Netns, "", n.name)
				}
			}
			if got := defaults(t, p.Netns); !slices.Equal(got, []string{tt.holder}) {
				t.Errorf("IPv4 default routes in the main table by %v, want %s alone", got, tt.holder)
			}
			targets := map[string][]endpoint{"eth0": {{pod: p, addr: addr}}}
			targets["eth0"][0].serveEcho(t)
			for _, i := range nics {
				targets[i.name] = serving(t, i)
			}
			g.answersEverywhere(t, callers, targets)
			for _, i := range nics {
				if err := i.check(t); err != nil {
					t.Errorf("CHECK of %s: %v", i.name, err)
				}
			}
			for _, i := range nics {
				if err := i.del(t.Context()); err != nil {
					t.Errorf("DEL of %s: %v", i.name, err)
				}
			}
			if diff := cmp.Diff(bare, look(t, p.Netns)); diff != "" {
				t.Errorf("DEL left something in the pod (-before ADD +after DEL):\n%s", diff)
			}
		})
	}
}

// serving makes all addresses of an interface answer.
func serving(t *testing.T, i nic) []endpoint {
	t.Helper()
	all := i.endpoints()
	for _, e := range all {
		e.serveEcho(t)
	}
	return all
}

// answersEverywhere demands that every caller reaches every target, that packets from the target's address reach the
// caller, and that none of it left by an ENI that does not hold its source.
func (g *ground) answersEverywhere(t *testing.T, callers, targets map[string][]endpoint) {
	t.Helper()
	before, err := g.lab.Fabric.Drops()
	if err != nil {
		t.Fatal(err)
	}
	vpc := &pod.Pod{Name: "the router", Netns: g.lab.Fabric.Netns("vpc")}
	hosts := []*pod.Pod{{Name: "the kubelet", Netns: g.nodes["worker-1"].Netns}, {Name: "the other node", Netns: g.nodes["worker-2"].Netns}}
	for ifName, addrs := range targets {
		for _, e := range addrs {
			t.Run(fmt.Sprintf("%s %s", ifName, e.addr), func(t *testing.T) {
				for name, from := range callers {
					if t.Failed() {
						t.FailNow() // each failure takes its time
					}
					t.Log("from", name)
					for _, c := range from {
						if c.addr.Is4() == e.addr.Is4() {
							reach(t, patience, c.pod, e.addr)
							c.tcp(t, patience, e.addr)
							c.udp(t, patience, e.addr)
							reachFrom(t, e, c.addr)
						}
					}
				}
				if e.addr.Is4() {
					for _, gateway := range []string{"10.77.1.1", "10.77.2.1", "10.77.3.1"} {
						reachFrom(t, endpoint{pod: vpc, addr: netip.MustParseAddr(gateway)}, e.addr)
					}
				}
				if ifName == "eth0" {
					for _, h := range hosts {
						reach(t, patience, h, e.addr)
						endpoint{pod: h}.tcp(t, patience, e.addr)
					}
				}
			})
		}
	}
	after, err := g.lab.Fabric.Drops()
	if err != nil {
		t.Fatal(err)
	}
	if after != before {
		t.Errorf("the VPC dropped packets with the source of another ENI: %+v before, %+v after", before, after)
	}
	// Whoever is on net1's ENI finds net2's address behind the VPC and not at net1, which would answer if it could.
	for _, sibling := range callers["a sibling on the ENI of net1"] {
		for _, e := range targets["net2"] {
			if e.addr.Is4() == sibling.addr.Is4() {
				notAt(t, sibling, e.addr)
			}
		}
	}
}

// notAt demands that the endpoint's pod does not know an address at the MAC of its own ENI.
func notAt(t *testing.T, e endpoint, addr netip.Addr) {
	t.Helper()
	h, err := pod.Handle(e.pod.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	l, err := h.LinkByName("net1")
	if err != nil {
		t.Fatal(err)
	}
	neighbours, err := h.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(neighbours, func(n netlink.Neigh) bool { return n.IP.Equal(addr.AsSlice()) })
	if i < 0 || neighbours[i].HardwareAddr.String() == l.Attrs().HardwareAddr.String() {
		t.Errorf("%s finds %s at its own ENI, or not at all: %v", e.addr, addr, neighbours)
	}
}

// defaults are the links by which the main table has an IPv4 default route.
func defaults(t *testing.T, path string) []string {
	t.Helper()
	var by []string
	for _, r := range look(t, path).Routes {
		if words := strings.Fields(r); words[0] == "main" && words[1] == "default" && !strings.Contains(r, ":") {
			by = append(by, words[slices.Index(words, "dev")+1])
		}
	}
	return by
}

// moveDefault does what Multus does for a network with default-route: it deletes the default routes of one link, and
// adds one by another unless there is one.
// https://github.com/k8snetworkplumbingwg/multus-cni/blob/master/pkg/netutils/netutils.go
func moveDefault(t *testing.T, path, from, to string) {
	t.Helper()
	h, err := pod.Handle(path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	anywhere, _ := netlink.ParseIPNet("0.0.0.0/0")
	if from != "" {
		l, linkErr := h.LinkByName(from)
		if linkErr != nil {
			t.Fatal(linkErr)
		}
		if err := h.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: anywhere}); err != nil {
			t.Fatal(err)
		}
	}
	if to != "" {
		l, linkErr := h.LinkByName(to)
		if linkErr != nil {
			t.Fatal(linkErr)
		}
		err := h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: anywhere, Gw: netip.MustParseAddr("10.77.1.1").AsSlice()})
		if err != nil && !errors.Is(err, unix.EEXIST) {
			t.Fatal(err)
		}
	}
}

// clusterNetwork gives a pod the interface eth0 as the Amazon VPC CNI does: a veth with a secondary address of the
// worker's primary ENI, a gateway that only the veth knows, and a route on the worker.
// https://github.com/aws/amazon-vpc-cni-k8s/blob/master/docs/cni-proposal.md
func (g *ground) clusterNetwork(t *testing.T, worker string, p *pod.Pod) netip.Addr {
	t.Helper()
	addr := netip.AddrFrom4([4]byte{10, 77, 12, 200 + byte(g.serial.Add(1))%50})
	g.assign(t, worker, 0, addr)
	await(t, "the VPC routes the pod's first address", func() error { return g.routed(worker, 0, addr) })
	// The lab's router asks for addresses by ARP, where the VPC delivers to the ENI's MAC.
	if err := netns.Do(g.nodes[worker].Netns, func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/conf/eth0/proxy_arp", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv4/neigh/eth0/proxy_delay", []byte("0"), 0))
	}); err != nil {
		t.Fatal(err)
	}
	fd, err := vnetns.GetFromPath(p.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	host, err := pod.Handle(g.nodes[worker].Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	inside, err := pod.Handle(p.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eni" + p.Name[max(0, len(p.Name)-8):]
	attempt := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	attempt("add veth", host.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd)}))
	outer, err := host.LinkByName(attrs.Name)
	attempt("find the worker's end", err)
	eth0, err := inside.LinkByName("eth0")
	attempt("find the pod's end", err)
	attempt("set the worker's end up", host.LinkSetUp(outer))
	attempt("set the pod's end up", inside.LinkSetUp(eth0))
	single, _ := netlink.ParseIPNet(addr.String() + "/32")
	attempt("route to the pod", host.RouteAdd(&netlink.Route{LinkIndex: outer.Attrs().Index, Dst: single, Scope: netlink.SCOPE_LINK}))
	attempt("add the address", inside.AddrAdd(eth0, &netlink.Addr{IPNet: single}))
	gateway, _ := netlink.ParseIPNet("169.254.1.1/32")
	index := eth0.Attrs().Index
	attempt("route to the gateway", inside.RouteAdd(&netlink.Route{LinkIndex: index, Dst: gateway, Scope: netlink.SCOPE_LINK}))
	anywhere, _ := netlink.ParseIPNet("0.0.0.0/0")
	attempt("default route", inside.RouteAdd(&netlink.Route{LinkIndex: index, Dst: anywhere, Gw: gateway.IP}))
	attempt("gateway's MAC", inside.NeighSet(&netlink.Neigh{
		LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: gateway.IP, HardwareAddr: outer.Attrs().HardwareAddr,
	}))
	return addr
}
