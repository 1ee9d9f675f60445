// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// way is how floating addresses come to EC2.
type way struct {
	name string
	// rounds of moves, each of four addresses; more with MULTUS_VPC_ROUNDS.
	rounds int
	// attach makes a pod whose own addresses EC2 knows.
	attach func(t *testing.T, n *node, name string, addrs []netip.Prefix) *aPod
	// keep starts what keeps a pod's addresses registered, if that is not there already.
	keep func(t *testing.T, p *aPod, env ...string)
	// contested is nil when something says that one of the pods carries an address that another ENI has.
	contested func(t *testing.T, pods []*aPod) error
}

func ways() []way {
	return []way{
		{
			name: "sidecar without agent", rounds: 25,
			attach: func(t *testing.T, n *node, name string, addrs []netip.Prefix) *aPod {
				return n.attachKnown(t, name, addrs...)
			},
			keep: func(t *testing.T, p *aPod, env ...string) {
				p.keep(t, append(env, "MULTUS_VPC_VIA=ec2")...)
			},
			contested: sidecarsContest,
		},
		{
			name: "sidecar with agent", rounds: 5,
			attach: func(t *testing.T, n *node, name string, addrs []netip.Prefix) *aPod {
				p := n.attachStatic(t, name, addrs...)
				p.static(t, "initcontainer", "MULTUS_VPC_VIA=agent", "MULTUS_VPC_SYNC_SOCKET="+n.syncSocket()).end(t)
				return p
			},
			keep: func(t *testing.T, p *aPod, env ...string) {
				p.keep(t, append(env, "MULTUS_VPC_VIA=agent", "MULTUS_VPC_SYNC_SOCKET="+p.node.syncSocket())...)
			},
			contested: sidecarsContest,
		},
		{
			name: "agent alone", rounds: 5,
			attach: func(t *testing.T, n *node, name string, addrs []netip.Prefix) *aPod {
				return n.attachByPlugin(t, name, addrs)
			},
			keep:      func(*testing.T, *aPod, ...string) {},
			contested: agentsContest,
		},
	}
}

// moves is how many times all addresses go from one pod to the other: those of the way, unless MULTUS_VPC_ROUNDS asks for more.
func (w way) moves(t *testing.T) int {
	t.Helper()
	asked := os.Getenv("MULTUS_VPC_ROUNDS")
	if asked == "" {
		return w.rounds
	}
	n, err := strconv.Atoi(asked)
	if err != nil {
		t.Fatalf("MULTUS_VPC_ROUNDS: %v", err)
	}
	return n
}

// allFloating are the ranges of every bout.
const allFloating = "10.10.1.220-10.10.1.239,2001:db8:10:1::220-2001:db8:10:1::239"

// syncConfig is what the agents' configuration says of them.
func syncConfig() string {
	return `sync: {floating: ["` + strings.ReplaceAll(allFloating, ",", `", "`) + "\"]}\n"
}

// keep runs a sidecar in a pod, and waits until it is ready.
func (p *aPod) keep(t *testing.T, env ...string) {
	t.Helper()
	p.sidecar = p.static(t, "sidecar", append(env, "MULTUS_VPC_FLOATING="+allFloating)...)
	p.sidecar.ready(t)
}

// sidecarsContest asks the pods' sidecars.
func sidecarsContest(t *testing.T, pods []*aPod) error {
	for _, p := range pods {
		text, err := p.get(t.Context(), "/metrics")
		if err != nil {
			return err
		}
		if strings.Contains(text, `multusvpc_sync_addresses{state="contested"} `) &&
			!strings.Contains(text, `multusvpc_sync_addresses{state="contested"} 0`) && strings.Contains(p.sidecar.log.String(), "address contested") {
			return nil
		}
	}
	return errors.New("no sidecar says so by metric and log")
}

// agentsContest reads what the agents of the pods' workers said.
func agentsContest(_ *testing.T, pods []*aPod) error {
	for _, p := range pods {
		text, err := os.ReadFile(filepath.Join(p.node.dir, "agent", "agent.log"))
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "address contested") {
			return nil
		}
	}
	return errors.New("no agent says so")
}

// attachByPlugin makes a pod by vpcipvlan, static and a network with floating ranges, without any container of ours.
func (n *node) attachByPlugin(t *testing.T, name string, addrs []netip.Prefix) *aPod {
	t.Helper()
	p := n.newPod(t, name)
	dir := t.TempDir()
	var static []any
	for _, a := range addrs {
		static = append(static, object{"address": a.String()})
	}
	writeJSON(t, filepath.Join(dir, "floats.conf"), object{
		"cniVersion": "1.0.0", "name": "floats", "type": "vpcipvlan", "eni": object{"deviceIndex": deviceIndex},
		"floating": strings.Split(allFloating, ","), "ipam": object{"type": "static", "addresses": static},
	})
	run := func(verb string) error {
		_, err := n.run(t.Context(), filepath.Join(n.peers, "cnitool"), []string{
			"NETCONFPATH=" + dir, "CNI_IFNAME=net1",
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name + ";K8S_POD_UID=" + name,
		}, verb, "floats", n.place.Inside(name))
		return err
	}
	if err := run("add"); err != nil {
		t.Fatal(err)
	}
	return p
}

// bout is what happens to the floating addresses of one way. Each has addresses of its own, and the way's number in them.
type bout struct {
	*ground
	way
	number int
}

// own are the addresses of a pod, which stay.
func (b bout) own(pod int) []netip.Prefix {
	last := 100 + 20*b.number + pod
	return prefixes(fmt.Sprintf("10.10.1.%d/24", last), fmt.Sprintf("2001:db8:10:1::%d/64", last))
}

// floating are addresses that move, one of each family: with the prefix of their subnet, or alone.
func (b bout) floating(which int, alone bool) []netip.Prefix {
	last := 220 + 6*b.number + which
	if alone {
		return prefixes(fmt.Sprintf("10.10.1.%d/32", last), fmt.Sprintf("2001:db8:10:1::%d/128", last))
	}
	return prefixes(fmt.Sprintf("10.10.1.%d/24", last), fmt.Sprintf("2001:db8:10:1::%d/64", last))
}

// pod attaches a pod of the bout.
func (b bout) pod(t *testing.T, worker string, number int, role string) *aPod {
	t.Helper()
	return b.attach(t, b.nodes[worker], fmt.Sprintf("%s-%d", role, b.number), b.own(number))
}

// kept attaches a pod of the bout whose addresses are kept registered.
func (b bout) kept(t *testing.T, worker string, number int, role string, env ...string) *aPod {
	t.Helper()
	p := b.pod(t, worker, number, role)
	b.keep(t, p, env...)
	return p
}

// after returns when so much time has passed.
func after(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}
