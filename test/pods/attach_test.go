// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// endpoint is a pod's interface with its address.
type endpoint struct {
	pod  *pod.Pod
	addr netip.Addr
	took time.Duration // of ADD
}

// vpcCIDR is where the pods' interfaces lead.
const vpcCIDR = "10.77.0.0/16"

// attach makes a pod with the interface net1 on the worker's ENI in one of the subnets for pods.
func (g *ground) attach(t *testing.T, worker string, deviceIndex int) endpoint {
	t.Helper()
	return g.attachTo(t, worker, g.newPod(t), "net1", deviceIndex, object{"routes": []any{object{"dst": vpcCIDR}}})
}

// attachTo gives a pod an interface with one address by ADD. keys are added to the ipam object.
func (g *ground) attachTo(t *testing.T, worker string, p *pod.Pod, ifName string, deviceIndex int, keys object) endpoint {
	t.Helper()
	i := g.add(t, worker, p, ifName, g.vpcipvlan(worker, object{"deviceIndex": deviceIndex}, keys))
	if len(i.addrs) != 1 {
		t.Fatalf("ADD of %s in %s on %s: addresses %v, want one", ifName, p.Name, worker, i.addrs)
	}
	return i.endpoints()[0]
}

// vpcipvlan is the plugin's configuration with vpcipam on a worker. keys are added to the ipam object.
func (g *ground) vpcipvlan(worker string, eni, keys object) object {
	ipam := object{"type": "vpcipam", "agentSocket": g.nodes[worker].Socket()}
	maps.Copy(ipam, keys)
	return object{"type": "vpcipvlan", "eni": eni, "ipam": ipam}
}

// nic is a pod's interface, as its container runtime knows it.
type nic struct {
	pod    *pod.Pod
	name   string
	addrs  []netip.Addr
	result *types100.Result
	took   time.Duration // of ADD

	node  *node
	cni   *libcni.CNIConfig
	list  *libcni.NetworkConfigList
	about *libcni.RuntimeConf
}

// add runs a chain's ADD. The attachment is DELeted when the test ends.
func (g *ground) add(t *testing.T, worker string, p *pod.Pod, ifName string, chain ...object) nic {
	t.Helper()
	text, err := json.Marshal(object{"cniVersion": "1.1.0", "name": "pods", "plugins": chain})
	if err != nil {
		t.Fatal(err)
	}
	i := nic{pod: p, name: ifName, node: g.nodes[worker]}
	if i.list, err = libcni.ConfListFromBytes(text); err != nil {
		t.Fatal(err)
	}
	i.cni = libcni.NewCNIConfigWithCacheDir([]string{i.node.bin, i.node.peers}, filepath.Join(i.node.Dir, "cni"),
		&invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: t.Output()}})
	i.about = &libcni.RuntimeConf{ContainerID: p.Name, NetNS: p.Netns, IfName: ifName, Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_UID", p.Name},
	}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if delErr := i.del(ctx); delErr != nil {
			t.Errorf("DEL of %s in %s on %s: %v", ifName, p.Name, worker, delErr)
		}
	})
	var raw types.Result
	start := time.Now()
	err = i.node.Do(func() (addErr error) {
		raw, addErr = i.cni.AddNetworkList(t.Context(), i.list, i.about)
		return addErr
	})
	i.took = time.Since(start)
	if err != nil {
		t.Fatalf("ADD of %s in %s on %s: %v", ifName, p.Name, worker, err)
	}
	if i.result, err = types100.NewResultFromResult(raw); err != nil {
		t.Fatal(err)
	}
	for _, ip := range i.result.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		i.addrs = append(i.addrs, addr.Unmap())
	}
	return i
}

// del runs the chain's DEL, which may be repeated.
func (i nic) del(ctx context.Context) error {
	return i.node.Do(func() error { return i.cni.DelNetworkList(ctx, i.list, i.about) })
}

// check runs the chain's CHECK.
func (i nic) check(t *testing.T) error {
	t.Helper()
	return i.node.Do(func() error { return i.cni.CheckNetworkList(t.Context(), i.list, i.about) })
}

// endpoints are the interface's addresses.
func (i nic) endpoints() []endpoint {
	var all []endpoint
	for _, addr := range i.addrs {
		all = append(all, endpoint{pod: i.pod, addr: addr, took: i.took})
	}
	return all
}
