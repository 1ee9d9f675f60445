// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// object is JSON.
type object = map[string]any

// chain is a network configuration that cnitool runs on worker-1.
type chain struct {
	name     string
	versions []string // cniVersion
	plugins  []object
	ifName   string
	subnet   int  // which of the two subnets for pods
	tell     bool // EC2 does not know the address, so the test tells it
	tuned    bool // the chain ends with [tuning]
}

// tunedMTU is what the reference plugin tuning sets, to be seen in a look at the pod.
const tunedMTU = 1400

// tuning follows an interface plugin and changes what that one made.
func tuning() object {
	return object{
		"type": "tuning", "mtu": tunedMTU,
		"sysctl": object{"net.ipv4.conf.IFNAME.arp_filter": "1"},
	}
}

// chains are what must work. scratch is a folder for the plugins of others.
func chains(scratch string) []chain {
	all := []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	ours := object{"type": "vpcipvlan", "eni": object{"deviceIndex": 1}, "ipam": object{"type": "vpcipam"}}
	theirs := object{"type": "ipvlan", "master": "eth2", "ipam": object{"type": "vpcipam"}}
	hostLocal := object{
		"type": "host-local", "dataDir": filepath.Join(scratch, "host-local"),
		"ranges": []any{[]any{object{"subnet": "10.77.1.0/24", "rangeStart": "10.77.1.200", "rangeEnd": "10.77.1.219"}}},
	}
	return []chain{
		{name: "vpcipvlan and tuning", versions: all, plugins: []object{ours, tuning()}, ifName: "net1", subnet: 1, tuned: true},
		{name: "upstream ipvlan with vpcipam", versions: all, plugins: []object{theirs}, ifName: "net1", subnet: 2},
		{
			name: "vpcipvlan with host-local", versions: all, ifName: "net1", subnet: 1, tell: true,
			plugins: []object{{"type": "vpcipvlan", "eni": object{"deviceIndex": 1}, "register": false, "ipam": hostLocal}},
		},
		{name: "vpcipvlan as eth0", versions: all, plugins: []object{ours}, ifName: "eth0", subnet: 1},
		{name: "upstream ipvlan with vpcipam as eth0", versions: all, plugins: []object{theirs}, ifName: "eth0", subnet: 2},
	}
}

// TestCNITool has an unmodified runtime run every chain: ADD, a ping in each direction to a pod on the other worker,
// CHECK where the specification has it, DEL.
func TestCNITool(t *testing.T) {
	g := up(t)
	first := g.nodes["worker-1"]
	peers := map[int]endpoint{}
	for _, subnet := range []int{1, 2} {
		peers[subnet] = g.attach(t, "worker-2", subnet)
		// The first pod on an ENI makes the agent bring its link up; what follows must leave the worker as it is.
		g.attach(t, "worker-1", subnet)
	}
	before := look(t, first.Netns)
	t.Run("chains", func(t *testing.T) {
		for _, c := range chains(t.TempDir()) {
			for _, version := range c.versions {
				t.Run(c.name+" "+version, func(t *testing.T) {
					t.Parallel()
					g.runChain(t, first, c, version, peers[c.subnet])
				})
			}
		}
	})
	if diff := cmp.Diff(before, look(t, first.Netns)); diff != "" {
		t.Errorf("the worker has changed (-before +after):\n%s", diff)
	}
}

func (g *ground) runChain(t *testing.T, n *node, c chain, version string, peer endpoint) {
	tool := n.cnitool(t, c, version, g.newPod(t))
	bare := look(t, tool.pod.Netns)

	result := parseResult(t, tool.run(t, "add"))
	if result.CNIVersion != version {
		t.Errorf("ADD answered in cniVersion %s, want %s", result.CNIVersion, version)
	}
	addr := result.address(t)
	if c.tell {
		g.assign(t, n.Name, c.subnet, addr)
	}
	reach(t, patience, tool.pod, peer.addr)
	reach(t, patience, peer.pod, addr)
	if got := strings.Join(look(t, tool.pod.Netns).Links, "\n"); c.tuned && !strings.Contains(got, fmt.Sprint("mtu ", tunedMTU)) {
		t.Errorf("tuning did not run: links are\n%s", got)
	}
	if version != "0.3.1" { // CHECK came with 0.4.0
		tool.run(t, "check")
	}
	tool.run(t, "del")
	if diff := cmp.Diff(bare, look(t, tool.pod.Netns)); diff != "" {
		t.Errorf("DEL left something in the pod (-before ADD +after DEL):\n%s", diff)
	}
	tool.run(t, "del") // a runtime may repeat it (CNI specification, section 2)
	n.awaitForgotten(t, addr, tool.pod)
}

// awaitForgotten waits until the cooldown of a deleted attachment is over and the agent keeps nothing of it.
func (n *node) awaitForgotten(t *testing.T, addr netip.Addr, p *pod.Pod) {
	t.Helper()
	await(t, "the agent forgets "+p.Name, func() error {
		s := n.status(t)
		for _, a := range s.Attachments {
			if a.Netns.Path == p.Netns || slices.Contains(a.Addresses, addr) && a.State != "held" {
				return fmt.Errorf("attachment %s is %s with %v", a.Key, a.State, a.Addresses)
			}
		}
		return nil
	})
}

// cnitool is the reference runtime for one pod, which it identifies by its namespace.
type cnitool struct {
	node    *node
	pod     *pod.Pod
	network string
	ifName  string
	dir     string // of the configuration
}

func (n *node) cnitool(t *testing.T, c chain, version string, p *pod.Pod) cnitool {
	t.Helper()
	tool := cnitool{node: n, pod: p, network: "matrix", ifName: c.ifName, dir: t.TempDir()}
	config, err := json.Marshal(object{"cniVersion": version, "name": tool.network, "plugins": c.plugins})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tool.dir, "10-matrix.conflist"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	return tool
}

// run runs a verb, which must succeed, in the worker's network namespace.
func (c cnitool) run(t *testing.T, verb string) (stdout []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.node.peers, "cnitool"), verb, c.network, c.pod.Netns)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"CNI_PATH=" + c.node.bin + ":" + c.node.peers,
		"NETCONFPATH=" + c.dir,
		"CNI_IFNAME=" + c.ifName,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + c.pod.Name + ";K8S_POD_UID=" + c.pod.Name,
		"MULTUS_VPC_AGENT_SOCKET=" + c.node.Socket(),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := c.node.Do(cmd.Run); err != nil {
		t.Fatalf("cnitool %s: %v\n%s%s", verb, err, &out, &errs)
	}
	return out.Bytes()
}

// result is what all versions of a CNI result have in common.
type result struct {
	CNIVersion string `json:"cniVersion"`
	IPs        []struct {
		Address netip.Prefix `json:"address"`
	} `json:"ips"`
}

func parseResult(t *testing.T, out []byte) result {
	t.Helper()
	var r result
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("read the result of ADD: %v\n%s", err, out)
	}
	return r
}

// address is the one address of a result.
func (r result) address(t *testing.T) netip.Addr {
	t.Helper()
	if len(r.IPs) != 1 {
		t.Fatalf("the result of ADD has addresses %v, want one", r.IPs)
	}
	return r.IPs[0].Address.Addr()
}
