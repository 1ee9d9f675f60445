// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// twoWorkers have ENIs in two subnets for pods, and the first one a second ENI in one of these. The reservation with
// the role static is for addresses that the agents know nothing of.
const twoWorkers = `
vpc: {cidr: 10.77.0.0/16}
subnets:
- {name: primary,  cidr: 10.77.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.77.1.0/24, az: us-west-2a,
   reservations: [{cidr: 10.77.1.64/26}, {cidr: 10.77.1.192/27, tags: {multus-vpc.io/role: static}}]}
- {name: multus-2, cidr: 10.77.2.0/24, az: us-west-2a, reservations: [{cidr: 10.77.2.64/26}]}
instances:
- name: worker-1
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.77.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-2, addresses: [10.77.2.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-1, addresses: [10.77.1.22], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
- name: worker-2
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.77.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
  - {subnet: multus-2, addresses: [10.77.2.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2:
  latency: 20ms
  propagation: {route: 2s, imds: 2500ms, describe: 2s}
`

// Times of the scenario and of the agents' configuration.
const (
	// routeLag is propagation.route. Whoever uses an address before it is routed is mute for most of it.
	routeLag = 2 * time.Second
	// atOnce is what a reply may take where nothing has to be waited for: far above a round trip in an emulated
	// machine, and below what is left of routeLag when an address is used as soon as EC2 has accepted it.
	atOnce = routeLag / 2
	// patience is for what takes time by design, in an emulated machine.
	patience = 30 * time.Second
	// agentConfig keeps free slots on the ENIs, which have 14 for secondary addresses, for addresses that tests assign.
	agentConfig = "warmIPTarget: 2\nminimumIPTarget: 8\nipCooldownPeriod: 1\n"
)

// ground is the lab with two workers and their agents.
type ground struct {
	lab    *lab.Running
	nodes  map[string]*node
	prefix string // of the pods' namespaces
	serial atomic.Int64
}

// node is a worker with its agent.
type node struct {
	*worker.Worker
	bin   string // folder of the agent and the plugins
	peers string // folder of the programs of others
}

// up raises the ground of most tests.
func up(t *testing.T) *ground {
	t.Helper()
	return raise(t, twoWorkers)
}

// raise starts the lab with a scenario, and the agents. Everything goes when the test ends; what the agents logged is
// shown if it failed.
func raise(t *testing.T, text string) *ground {
	t.Helper()
	s, err := scenario.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("pods%d", os.Getpid())
	running, err := lab.Up(t.Context(), s, lab.Config{Prefix: id + "lab", Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, running.Close)
	g := &ground{lab: running, nodes: map[string]*node{}, prefix: id + "pod"}
	for name := range running.Instances {
		g.nodes[name] = g.startNode(t, name)
	}
	for _, n := range g.nodes {
		n.status(t) // waits until the agent answers
	}
	return g
}

func (g *ground) startNode(t *testing.T, name string) *node {
	t.Helper()
	n := &node{bin: folder(t, "MULTUS_VPC_BIN"), peers: folder(t, "MULTUS_VPC_PEERS")}
	var err error
	if n.Worker, err = worker.New(g.lab, name, n.bin); err != nil {
		t.Fatal(err)
	}
	cleanUp(t, n.Close)
	if err := n.Start(agentConfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("agent of %s:\n%s", name, n.Log())
		}
	})
	return n
}

func cleanUp(t *testing.T, f func() error) {
	t.Cleanup(func() {
		if err := f(); err != nil {
			t.Error(err)
		}
	})
}

func folder(t *testing.T, variable string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if !filepath.IsAbs(dir) {
		t.Fatalf("%s must name a folder absolutely (make test-vm sets it)", variable)
	}
	return dir
}

func (n *node) status(t *testing.T) *agentapi.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := n.Status(ctx)
	if err != nil {
		t.Fatalf("status of %s: %v", n.Name, err)
	}
	return s
}

// newPod makes a pod without interfaces.
func (g *ground) newPod(t *testing.T) *pod.Pod {
	t.Helper()
	p, err := pod.New(fmt.Sprintf("%s-%d", g.prefix, g.serial.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, p.Delete)
	return p
}

// assign tells EC2 that a worker's ENI holds an address, whoever had it before, until the test ends.
func (g *ground) assign(t *testing.T, worker string, deviceIndex int, addr netip.Addr) {
	t.Helper()
	id := g.lab.ENIs[worker][deviceIndex]
	_, err := g.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{
		NetworkInterfaceID: id, Addresses: []netip.Addr{addr}, AllowReassignment: true,
	})
	if err != nil {
		t.Fatalf("assign %s to device index %d of %s: %v", addr, deviceIndex, worker, err)
	}
	t.Cleanup(func() {
		if e, ok := g.lab.Cloud.View(time.Now()).ENI(id); !ok || !slices.Contains(e.IPv4(), addr) {
			return // moved on
		}
		if err := g.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: id, Addresses: []netip.Addr{addr}}); err != nil {
			t.Errorf("unassign %s: %v", addr, err)
		}
	})
}

// look is what CNI plugins configured in a namespace.
func look(t *testing.T, netnsPath string) pod.Look {
	t.Helper()
	l, err := pod.LookAt(netnsPath)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// await waits until check has nothing to complain about.
func await(t *testing.T, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	over := time.NewTimer(patience)
	defer over.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-over.C:
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// reach demands that a ping from the namespace is answered within a time.
func reach(t *testing.T, within time.Duration, from *pod.Pod, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if _, err := pod.Ping(ctx, from.Netns, to); err != nil {
		t.Errorf("from %s: %v", from.Name, err)
	}
}

// routed reports what keeps the data path from bringing an address to a worker's ENI.
func (g *ground) routed(worker string, deviceIndex int, addr netip.Addr) error {
	id := g.lab.ENIs[worker][deviceIndex]
	view := g.lab.Cloud.View(time.Now().Add(-routeLag))
	to := view.Routes()[addr]
	for p, holder := range view.RoutePrefixes() {
		if p.Contains(addr) {
			to = holder
		}
	}
	if to != id {
		return fmt.Errorf("%s is routed to %q, want %s", addr, to, id)
	}
	return nil
}
