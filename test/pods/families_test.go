// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// dualStack has two workers with ENIs in two subnets of both families, which give addresses and prefixes of each.
const dualStack = `
vpc: {cidr: 10.77.0.0/16, ipv6: "2001:db8:77::/56"}
subnets:
- {name: primary,  cidr: 10.77.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.77.1.0/24, ipv6: "2001:db8:77:1::/64", az: us-west-2a,
   reservations: [{cidr: 10.77.1.64/26}, {cidr: 10.77.1.128/26, type: prefix},
     {cidr: "2001:db8:77:1:a::/80"}, {cidr: "2001:db8:77:1:b000::/68", type: prefix}]}
- {name: multus-2, cidr: 10.77.2.0/24, ipv6: "2001:db8:77:2::/64", az: us-west-2a,
   reservations: [{cidr: 10.77.2.128/26, type: prefix}, {cidr: "2001:db8:77:2:b000::/68", type: prefix}]}
instances:
- name: worker-1
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.77.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
  - {subnet: multus-2, addresses: [10.77.2.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
- name: worker-2
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.77.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-2, addresses: [10.77.2.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
ec2:
  latency: 20ms
  propagation: {route: 2s, imds: 2500ms, describe: 2s}
`

// kindOfPod is what a pod asks for, and where.
type kindOfPod struct {
	name        string
	worker      string
	deviceIndex int
	source      string
	families    []string
}

var (
	six  = []string{"ipv6"}
	four = []string{"ipv4"}
	dual = []string{"ipv4", "ipv6"}
)

func (g *ground) attachKind(t *testing.T, k kindOfPod) nic {
	t.Helper()
	i := g.add(t, k.worker, g.newPod(t), "net1", g.vpcipvlan(k.worker,
		object{"deviceIndex": k.deviceIndex}, object{"source": k.source, "families": k.families}))
	if len(i.addrs) != len(k.families) {
		t.Fatalf("%s: addresses %v, want one of each of %v", k.name, i.addrs, k.families)
	}
	return i
}

// TestPodsOfEveryFamilyAndSourceReachOneAnother attaches pods of one family and of both, with single addresses and out
// of delegated prefixes, on two workers and in two subnets. Each talks with all before it, by each of its addresses, in
// less time than a new address takes to be routed. Nothing waits for duplicate address detection.
func TestPodsOfEveryFamilyAndSourceReachOneAnother(t *testing.T) {
	g := raise(t, dualStack)
	var all []endpoint
	for _, k := range []kindOfPod{
		{"dual stack, cold", "worker-1", 1, "reservation", dual},
		{"IPv6 alone, cold", "worker-2", 1, "reservation", six},
		{"dual stack out of prefixes, cold", "worker-2", 2, "prefix", dual},
		{"IPv6 out of a prefix, cold", "worker-1", 2, "prefix", six},
		{"IPv4 out of a prefix, cold", "worker-1", 1, "prefix", four},
		{"dual stack of EC2's choice", "worker-2", 1, "subnet", dual},
		{"IPv6 alone, warm", "worker-1", 1, "reservation", six},
		{"dual stack out of prefixes, warm", "worker-2", 2, "prefix", dual},
	} {
		i := g.attachKind(t, k)
		undoubted(t, i.pod)
		t.Logf("%s: %v, ADD took %v", k.name, i.addrs, i.took)
		for _, e := range i.endpoints() {
			if err := g.routed(k.worker, k.deviceIndex, e.addr); err != nil {
				t.Errorf("%s: when ADD returns, %v", k.name, err)
			}
			e.serveEcho(t)
			for _, o := range all {
				if o.addr.Is4() == e.addr.Is4() {
					e.talk(t, o)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("%s: not reachable both ways when ADD returns", k.name)
		}
		if err := i.check(t); err != nil {
			t.Errorf("%s: CHECK: %v", k.name, err)
		}
		all = append(all, i.endpoints()...)
	}
	for _, e := range all {
		undoubted(t, e.pod)
	}
}

// undoubted demands that duplicate address detection neither keeps an address of the pod's net1 from being used nor has
// found it to be somebody else's. The kernel marks the link-local address for a moment even without it.
func undoubted(t *testing.T, p *pod.Pod) {
	t.Helper()
	h, err := pod.Handle(p.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	doubts := func(flags int, which func(net.IP) bool) error {
		addrs, listErr := h.AddrList(nil, netlink.FAMILY_V6)
		for _, a := range addrs {
			if a.Flags&flags != 0 && which(a.IP) {
				return fmt.Errorf("%s: %s has flags %#x: tentative, or found to be somebody else's", p.Name, a.IPNet, a.Flags)
			}
		}
		return listErr
	}
	if err := doubts(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED, net.IP.IsGlobalUnicast); err != nil {
		t.Error(err)
	}
	await(t, "the link-local address is usable", func() error { return doubts(unix.IFA_F_TENTATIVE, net.IP.IsLinkLocalUnicast) })
	if err := doubts(unix.IFA_F_DADFAILED, net.IP.IsLinkLocalUnicast); err != nil {
		t.Error(err)
	}
	if err := netns.Do(p.Netns, func() error {
		value, readErr := os.ReadFile("/proc/sys/net/ipv6/conf/net1/accept_dad")
		if readErr == nil && strings.TrimSpace(string(value)) != "0" {
			readErr = fmt.Errorf("accept_dad is %s", value)
		}
		return readErr
	}); err != nil {
		t.Errorf("%s: %v", p.Name, err)
	}
}
