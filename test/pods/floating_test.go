// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// floating are the ranges of the networks of these tests, outside of every reservation.
var floating = []string{"10.77.1.200/30", "2001:db8:77:1:f::200-2001:db8:77:1:f::203"}

// floaters are pods whose network lets addresses float: the first and the third on one ENI, the second on another worker.
func (g *ground) floaters(t *testing.T) (a, b, c nic) {
	t.Helper()
	var all []nic
	for _, worker := range []string{"worker-1", "worker-2", "worker-1"} {
		conf := g.vpcipvlan(worker, object{"deviceIndex": 1}, object{"families": dual})
		conf["floating"] = floating
		all = append(all, g.add(t, worker, g.newPod(t), "net1", conf))
	}
	return all[0], all[1], all[2]
}

// put puts an address on a pod's interface, as an application does that becomes active.
func (i nic) put(t *testing.T, p netip.Prefix) {
	t.Helper()
	if err := i.address(p, true); err != nil {
		t.Fatal(err)
	}
}

// take takes it off again.
func (i nic) take(t *testing.T, p netip.Prefix) {
	t.Helper()
	if err := i.address(p, false); err != nil {
		t.Fatal(err)
	}
}

// address adds an address, or removes it.
func (i nic) address(p netip.Prefix, add bool) error {
	h, err := pod.Handle(i.pod.Netns)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(i.name)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = nodad
	}
	do := h.AddrAdd
	if !add {
		do = h.AddrDel
	}
	if err := do(l, a); err != nil {
		return fmt.Errorf("%s on %s in %s: %w", p, i.name, i.pod.Name, err)
	}
	return nil
}

// nodad is IFA_F_NODAD: nobody else on the link can tell that an address is in use.
// https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/if_addr.h
const nodad = 0x02

// owner is the worker whose first ENI for pods has the address.
func (g *ground) owner(a netip.Addr) string {
	id := g.lab.Cloud.View(time.Now()).Routes()[a]
	for _, worker := range []string{"worker-1", "worker-2"} {
		if g.lab.ENIs[worker][1] == id {
			return worker
		}
	}
	return id
}

// follows waits until EC2 has moved the address to the interface's worker.
func (g *ground) follows(t *testing.T, a netip.Addr, to nic) {
	t.Helper()
	began := time.Now()
	await(t, fmt.Sprintf("%s follows to %s", a, to.node.Name), func() error {
		if got := g.owner(a); got != to.node.Name {
			return fmt.Errorf("it is on %q", got)
		}
		return nil
	})
	t.Logf("%s is on %s after %v", a, to.node.Name, time.Since(began).Round(time.Millisecond))
}

// TestFloatingAddressesNeedNoContainer moves addresses of both families and of any prefix length between pods of two workers
// and of one. Nothing but the agent and the plugin is there.
func TestFloatingAddressesNeedNoContainer(t *testing.T) {
	g := raise(t, dualStack)
	a, b, c := g.floaters(t)
	bystander := g.attachKind(t, kindOfPod{"a sibling of the first", "worker-1", 1, "reservation", dual})
	for _, p := range []netip.Prefix{
		netip.MustParsePrefix("10.77.1.200/32"), netip.MustParsePrefix("2001:db8:77:1:f::201/64"),
	} {
		addr := p.Addr()
		a.put(t, p)
		g.follows(t, addr, a)
		reach(t, patience, b.pod, addr)
		reach(t, patience, bystander.pod, addr)
		a.take(t, p) // a standby that is told
		b.put(t, p)
		g.follows(t, addr, b)
		reach(t, patience, bystander.pod, addr)
		a.put(t, p) // one that takes over from a pod that hangs
		g.follows(t, addr, a)
		b.take(t, p)
		reach(t, patience, b.pod, addr)
		await(t, "the metadata shows it", func() error { return g.routed("worker-1", 1, addr) })
		a.take(t, p) // between pods of one ENI
		c.put(t, p)
		reach(t, patience, b.pod, addr)
		await(t, "the neighbour has it", func() error { return g.claimed(t, "worker-1", c, addr) })
		if got := g.owner(addr); got != "worker-1" {
			t.Errorf("%s is on %q", addr, got)
		}
	}
	outside := netip.MustParsePrefix("10.77.1.210/32")
	a.put(t, outside) // not in the ranges
	g.nodes["worker-1"].Kill()
	b.put(t, netip.MustParsePrefix("10.77.1.200/32")) // while the first worker's agent is away
	g.follows(t, netip.MustParseAddr("10.77.1.200"), b)
	if err := g.nodes["worker-1"].Start(agentConfig); err != nil {
		t.Fatal(err)
	}
	await(t, "the agent knows that another worker has it", func() error { return g.problem(t, "worker-1", "10.77.1.200") })
	if got := g.owner(netip.MustParseAddr("10.77.1.200")); got != "worker-2" {
		t.Errorf("a restart took the address to %q", got)
	}
	a.put(t, netip.MustParsePrefix("10.77.1.203/32")) // it watches again
	g.follows(t, netip.MustParseAddr("10.77.1.203"), a)
	if got := g.owner(outside.Addr()); got != "" {
		t.Errorf("%s is on %q, and is of nobody's range", outside, got)
	}
}

// TestAgentLetsGoOfANamespace: the agent's watch does not keep a dead pod's namespace alive, in which its addresses would stay.
func TestAgentLetsGoOfANamespace(t *testing.T) {
	g := raise(t, dualStack)
	a, b, c := g.floaters(t)
	p := netip.MustParsePrefix("10.77.1.200/32")
	a.put(t, p)
	g.follows(t, p.Addr(), a)
	if err := a.pod.Delete(); err != nil { // and no DEL
		t.Fatal(err)
	}
	await(t, "the address can be put on another child of the link", func() error { return c.address(p, true) })
	g.follows(t, p.Addr(), c)
	await(t, "the neighbour has it", func() error { return g.claimed(t, "worker-1", c, p.Addr()) })
	c.take(t, p)
	b.put(t, p)
	g.follows(t, p.Addr(), b)
	b.take(t, p)
	await(t, "nobody has it when nobody carries it", func() error {
		if got := g.owner(p.Addr()); got != "" {
			return fmt.Errorf("it is on %q", got)
		}
		return nil
	})
}

// claimed reports what keeps an address from being the pod's by the agent's word.
func (g *ground) claimed(t *testing.T, worker string, by nic, a netip.Addr) error {
	t.Helper()
	for _, h := range g.nodes[worker].status(t).Attachments {
		if h.Pod.Name == by.pod.Name && slices.Contains(h.Addresses, a) && h.State == "guest" {
			return nil
		}
	}
	return fmt.Errorf("%s is not %s's", a, by.pod.Name)
}

// problem waits for words of the agent about something.
func (g *ground) problem(t *testing.T, worker, about string) error {
	t.Helper()
	problems := g.nodes[worker].status(t).Problems
	if !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, about) }) {
		return fmt.Errorf("%q is not among the problems %q", about, problems)
	}
	return nil
}
