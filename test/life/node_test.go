// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

func TestMain(m *testing.M) {
	bin, remove, err := worker.Programs()
	if err == nil {
		err = os.Setenv("MULTUS_VPC_BIN", bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// The scenario's workers. TYPE and LINK are replaced. The subnet is no other test's: agents look into every network
// namespace of a machine.
const workers = `
vpc: {cidr: 10.68.0.0/16}
subnets:
- {name: primary, cidr: 10.68.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.68.1.0/24, az: us-west-2a, reservations: [{cidr: 10.68.1.64/26}]}
instances:
- name: worker-1
  type: TYPE
  enis: [{subnet: primary}, {subnet: pods, addresses: [10.68.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: LINK}]
- name: worker-2
  enis: [{subnet: primary}, {subnet: pods, addresses: [10.68.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
ec2: {latency: 5ms, propagation: {route: 50ms, imds: 100ms, describe: 100ms}}
`

func twoWorkers(instanceType, link string) string {
	return strings.NewReplacer("TYPE", instanceType, "LINK", link).Replace(workers)
}

// brief has every period of the agent as short as its configuration allows; only the cooldown is the test's to choose.
func brief(cooldown time.Duration) string {
	return fmt.Sprintf("warmIPTarget: 1\nminimumIPTarget: 2\nipCooldownPeriod: %d\nreconcileInterval: 1\nmassReapDelay: 2\n",
		int(cooldown.Seconds()))
}

// longCooldown is longer than any test.
const longCooldown = 10 * time.Minute

// testTimeout is far above the sum of the periods that a test waits for.
const testTimeout = 2 * time.Minute

// node is worker-1 with its pods.
type node struct {
	*worker.Worker
	t      *testing.T
	ctx    context.Context
	lab    *lab.Running
	prefix string // of the names of all namespaces
	plugin string
	master string // name of the link of the ENI for pods
	serial int
}

var labs atomic.Int64

// up raises the lab of a scenario; everything goes when the test ends. No agent runs yet.
func up(t *testing.T, text, plugin string) *node {
	t.Helper()
	t.Parallel()
	s, err := scenario.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	n := &node{t: t, ctx: ctx, prefix: fmt.Sprintf("life%d-%d", os.Getpid(), labs.Add(1)), plugin: plugin, master: "eth1"}
	if n.lab, err = lab.Up(ctx, s, lab.Config{Prefix: n.prefix, Log: t.Output()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.check(n.lab.Close()) })
	n.Worker = n.worker("worker-1")
	return n
}

// worker makes a worker, whose agent's log is shown when the test fails.
func (n *node) worker(name string) *worker.Worker {
	n.t.Helper()
	w, err := worker.New(n.lab, name, os.Getenv("MULTUS_VPC_BIN"))
	n.must(err)
	n.t.Cleanup(func() {
		if n.t.Failed() {
			n.t.Logf("the agent of %s said:\n%s", name, w.Log())
		}
		n.check(w.Close())
	})
	return w
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// check is must for clean-ups: the others must run too.
func (n *node) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Error(err)
	}
}

// start starts an agent and waits until it knows its ENIs.
func (n *node) start(config string) {
	n.t.Helper()
	n.must(n.Start(config))
	n.must(n.Await(n.ctx, func(s *agentapi.Status) string {
		unready := slices.ContainsFunc(s.Problems, func(p string) bool { return strings.HasPrefix(p, "not ready: ") })
		if len(s.ENIs) == 0 || unready {
			return fmt.Sprintf("the ENIs; problems: %q", s.Problems)
		}
		return ""
	}))
}

// sandbox is one life of a Kubernetes pod: a container ID and a network namespace.
type sandbox struct {
	*pod.Pod
	id   string
	name string // of the Kubernetes pod
}

// sandbox makes a namespace for the pod. A second one of the same pod is its next life.
func (n *node) sandbox(name string) *sandbox {
	n.t.Helper()
	n.serial++
	id := fmt.Sprintf("%s-%s-%d", n.prefix, name, n.serial)
	return n.sandboxAt(id, id, name)
}

// sandboxAt makes a namespace of a given name, and so at a given path.
func (n *node) sandboxAt(netnsName, id, name string) *sandbox {
	n.t.Helper()
	p, err := pod.New(netnsName)
	n.must(err)
	n.t.Cleanup(func() { n.check(p.Delete()) })
	return &sandbox{Pod: p, id: id, name: name}
}

const ifName = "net1"

// byIndex is a configuration for vpcipam that chooses the ENI by its device index.
const byIndex = `{"cniVersion": "1.1.0", "name": "n6", "type": "vpcipvlan", "eni": {"deviceIndex": 1}, "ipam": {"type": "vpcipam"}}`

// call runs the plugin with a configuration in the words of a NetworkAttachmentDefinition.
func (n *node) call(w *worker.Worker, command string, s *sandbox, extra string) worker.Answer {
	n.t.Helper()
	a, err := w.CNI(n.ctx, worker.Call{
		Plugin: n.plugin, Command: command, ContainerID: s.id, Netns: s.Netns, IfName: ifName, Pod: s.name,
		Config: []byte(strings.TrimSuffix(byIndex, "}") + extra + "}"),
	})
	n.must(err)
	return a
}

// upstream calls vpcipam as upstream's ipvlan does, with the name of a link.
func (n *node) upstream(command string, s *sandbox) worker.Answer {
	n.t.Helper()
	a, err := n.CNI(n.ctx, worker.Call{
		Plugin: vpcipam, Command: command, ContainerID: s.id, Netns: s.Netns, IfName: ifName, Pod: s.name,
		Config: []byte(`{"cniVersion": "1.1.0", "name": "n6", "type": "ipvlan", "mode": "l2", "master": "` + n.master + `", "ipam": {"type": "vpcipam"}}`),
	})
	n.must(err)
	return a
}

// add is an ADD that succeeds.
func (n *node) add(s *sandbox) netip.Addr {
	n.t.Helper()
	p, err := n.call(n.Worker, "ADD", s, "").Address()
	if err != nil {
		n.t.Fatalf("ADD of %s: %v", s.name, err)
	}
	return p.Addr()
}

// del is a DEL; it always succeeds.
func (n *node) del(s *sandbox) {
	n.t.Helper()
	if err := n.call(n.Worker, "DEL", s, "").Err(); err != nil {
		n.t.Fatalf("DEL of %s: %v", s.name, err)
	}
}

// carry puts the address on an interface of the sandbox, as a plugin does that makes one.
func (n *node) carry(s *sandbox, addr netip.Addr) {
	n.t.Helper()
	n.must(inNetns(s.Netns, func(h *netlink.Handle) error {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: ifName}, PeerName: "peer"}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(24, 32)}}
		return errors.Join(h.LinkAdd(l), h.AddrAdd(l, a), h.LinkSetUp(l))
	}))
}

// state is what the agent says of an address: "held id/net1", "free", …, or "none".
func state(s *agentapi.Status, addr netip.Addr) string {
	for _, e := range s.ENIs {
		for _, a := range e.Addresses {
			if a.Addr == addr {
				return strings.TrimSpace(a.State + " " + a.Holder)
			}
		}
	}
	return "none"
}

func held(s *sandbox) string    { return "held " + s.id + "/" + ifName }
func cooling(s *sandbox) string { return "cooling " + s.id + "/" + ifName }

// is demands that the agent says so of the address now.
func (n *node) is(addr netip.Addr, want string) {
	n.t.Helper()
	s, err := n.Status(n.ctx)
	n.must(err)
	if got := state(s, addr); got != want {
		n.t.Fatalf("%s is %q, want %q", addr, got, want)
	}
}

// becomes waits until the agent says so of the address.
func (n *node) becomes(addr netip.Addr, want string) {
	n.t.Helper()
	n.must(n.Await(n.ctx, func(s *agentapi.Status) string {
		if got := state(s, addr); got != want {
			return fmt.Sprintf("%s to be %q; it is %q", addr, want, got)
		}
		return ""
	}))
}

// onENI are the secondary addresses that EC2 has on the ENI for pods of a worker.
func (n *node) onENI(workerName string) []netip.Addr {
	n.t.Helper()
	e, ok := n.lab.Cloud.View(time.Now()).ENI(n.lab.ENIs[workerName][1])
	if !ok {
		n.t.Fatal(errors.New("EC2 has no such ENI"))
	}
	return e.Addresses()[1:]
}

// until waits for something that no agent tells: ok says when.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			n.t.Fatalf("still waiting until %s: %v", what, context.Cause(n.ctx))
		}
	}
}
