// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package socket

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// TestPodsWithoutCredentials: the sidecar has the agent register what its pod carries, across restarts of the agent, and gives it
// back; a floating address goes where it appears.
func TestPodsWithoutCredentials(t *testing.T) {
	g := up(t)
	a := g.pod("worker-1", "eth1", "10.10.1.80/24", "2001:db8:10:1::80/128")
	b := g.pod("worker-2", "eth1", "10.10.1.81/24")
	endA := g.sidecar(a, "worker-1")
	g.sidecar(b, "worker-2")
	g.becomes("10.10.1.80", "worker-1/1")
	g.becomes("2001:db8:10:1::80", "worker-1/1")
	g.becomes("10.10.1.81", "worker-2/1")
	g.reaches(a, "10.10.1.81")

	g.add(a, "net1", "10.10.1.90/32")
	g.becomes("10.10.1.90", "worker-1/1")
	g.reaches(b, "10.10.1.90")
	g.remove(a, "net1", "10.10.1.90/32")
	g.add(b, "net1", "10.10.1.90/32")
	g.becomes("10.10.1.90", "worker-2/1")
	g.reaches(a, "10.10.1.90")

	g.must(g.workers["worker-1"].Stop())
	g.add(a, "net1", "10.10.1.82/32")
	g.must(g.workers["worker-1"].Start(agentConfig))
	g.becomes("10.10.1.82", "worker-1/1")
	for _, stays := range []string{"10.10.1.80", "2001:db8:10:1::80"} {
		if owner := g.owner(stays); owner != "worker-1/1" {
			t.Errorf("after the agent's restart %s is on %q", stays, owner)
		}
	}
	g.remove(a, "net1", "10.10.1.82/32")
	g.becomes("10.10.1.82", "")

	endA()
	g.must(a.Delete())
	g.becomes("10.10.1.80", "")
	g.becomes("2001:db8:10:1::80", "")
	if owner := g.owner("10.10.1.90"); owner != "worker-2/1" {
		t.Errorf("10.10.1.90 is on %q", owner)
	}
}

// TestPodWithNetAdminGetsNothingOfOthers: what somebody who is root in a pod's network namespace may try.
func TestPodWithNetAdminGetsNothingOfOthers(t *testing.T) {
	g := up(t)
	neighbour := g.pod("worker-1", "eth2", "10.10.1.81/24")
	distant := g.pod("worker-2", "eth1", "10.10.1.82/24")
	for _, honest := range []struct {
		p               *pod.Pod
		worker, address string
	}{{neighbour, "worker-1", "10.10.1.81"}, {distant, "worker-2", "10.10.1.82"}} {
		if e := g.claim(honest.p, honest.worker, "net1", honest.address); e != nil {
			t.Fatalf("%s: %v", honest.address, e)
		}
	}
	silent := g.pod("worker-1", "eth2", "10.10.1.83/24") // has not claimed yet
	m := g.pod("worker-1", "eth1", "10.10.1.80/24", "10.10.1.81/32", "10.10.1.82/32", "10.10.1.83/32", "10.10.1.1/32", "10.10.1.20/32", "10.10.1.130/32")
	g.in(m, "net1", func(h *netlink.Handle, _ netlink.Link) error {
		la := netlink.NewLinkAttrs()
		la.Name, la.HardwareAddr = "fake0", g.mac("worker-1", "eth1")
		return h.LinkAdd(&netlink.Dummy{LinkAttrs: la})
	})
	g.add(m, "fake0", "10.10.1.84/24")
	abroad := g.pod("worker-2", "eth1", "10.10.1.85/24") // its link has the same name and perhaps the same index
	nested := g.pod("worker-1", "eth1", "10.10.1.86/24")
	g.in(nested, "net1", func(h *netlink.Handle, l netlink.Link) error {
		la := netlink.NewLinkAttrs()
		la.Name, la.ParentIndex = "net2", l.Attrs().Index
		return h.LinkAdd(&netlink.IPVlan{LinkAttrs: la, Mode: netlink.IPVLAN_MODE_L2})
	})
	g.add(nested, "net2", "10.10.1.131/24")

	tests := []struct {
		name            string
		p               *pod.Pod
		ifName, address string
		code            uint
		says            string
	}{
		{"the address of a pod on another ENI of this worker", m, "net1", "10.10.1.81", agentapi.CodeTryAgainLater, "another pod of this worker carries 10.10.1.81"},
		{"the same before that pod claimed it", m, "net1", "10.10.1.83", agentapi.CodeTryAgainLater, "another pod of this worker carries 10.10.1.83"},
		{"the address of a pod of another worker", m, "net1", "10.10.1.82", agentapi.CodeContested, "held by another ENI"},
		{"the gateway", m, "net1", "10.10.1.1", agentapi.CodeInvalidConfig, "the VPC keeps for itself"},
		{"the ENI's primary address", m, "net1", "10.10.1.20", agentapi.CodeInvalidConfig, "the primary address"},
		{"an address outside the ranges", m, "net1", "10.10.1.130", agentapi.CodeInvalidConfig, "not in the agent's sync.ranges"},
		{"the same on a child that the pod made", nested, "net2", "10.10.1.131", agentapi.CodeInvalidConfig, "not in the agent's sync.ranges"},
		{"an address on a link with the ENI's MAC", m, "fake0", "10.10.1.84", agentapi.CodeInvalidConfig, "fake0 is dummy, and only an ipvlan child"},
		{"an address that it does not carry", m, "net1", "10.10.1.87", agentapi.CodeTryAgainLater, "does not carry"},
		{"an address on another worker's ENI", abroad, "net1", "10.10.1.85", agentapi.CodeInvalidConfig, "only an ipvlan child of an ENI of this worker"},
	}
	before := g.owners(tests[0].address, "10.10.1.82")
	for _, tt := range tests {
		was := g.owner(tt.address)
		e := g.claim(tt.p, "worker-1", tt.ifName, tt.address)
		if e == nil || e.Code != tt.code || !strings.Contains(e.Message, tt.says) {
			t.Errorf("%s: %+v, want code %d and %q", tt.name, e, tt.code, tt.says)
		}
		if is := g.owner(tt.address); is != was {
			t.Errorf("%s: it was on %q, and is on %q", tt.name, was, is)
		}
	}
	if after := g.owners(tests[0].address, "10.10.1.82"); after != before {
		t.Errorf("the others' addresses were on %s, and are on %s", before, after)
	}
	if e := g.claim(m, "worker-1", "net1", "10.10.1.80"); e != nil {
		t.Errorf("its own: %v", e)
	}
	if e := g.claim(silent, "worker-1", "net1", "10.10.1.83"); e == nil || e.Code != agentapi.CodeTryAgainLater {
		t.Errorf("of two pods of this worker that carry an address neither is believed: %+v", e)
	}
	g.claimFromAnotherPIDNamespace(m)
}

// claimFromAnotherPIDNamespace runs the real init container as process 1 of a PID namespace: it has the agent register what the
// pod may have, and says what it may not.
func (g *ground) claimFromAnotherPIDNamespace(m *pod.Pod) {
	g.t.Helper()
	cmd := exec.Command(filepath.Join(g.bin, "initcontainer"))
	cmd.Env = []string{"MULTUS_VPC_SYNC_SOCKET=" + g.socket("worker-1"), "MULTUS_VPC_TIMEOUT=1m", "MULTUS_VPC_TERMINATION_LOG=/dev/null"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID}
	var log bytes.Buffer
	cmd.Stderr = &log
	g.must(netns.Do(m.Netns, cmd.Start))
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(log.String(), "the VPC keeps for itself") {
		g.t.Errorf("initcontainer: %v\n%s", err, &log)
	}
}

func (g *ground) owners(addresses ...string) string {
	var all []string
	for _, a := range addresses {
		all = append(all, a+"="+g.owner(a))
	}
	return strings.Join(all, " ")
}
