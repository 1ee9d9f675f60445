// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"context"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
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

// attachTo gives a pod an interface by ADD. keys are added to the ipam object. The attachment is DELeted when the test
// ends.
func (g *ground) attachTo(t *testing.T, worker string, p *pod.Pod, ifName string, deviceIndex int, keys object) endpoint {
	t.Helper()
	n := g.nodes[worker]
	ipam := object{"type": "vpcipam", "agentSocket": n.Socket()}
	for k, v := range keys {
		ipam[k] = v
	}
	text, err := json.Marshal(object{"cniVersion": "1.1.0", "name": "pods", "plugins": []object{
		{"type": "vpcipvlan", "eni": object{"deviceIndex": deviceIndex}, "ipam": ipam},
	}})
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.ConfListFromBytes(text)
	if err != nil {
		t.Fatal(err)
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{n.bin}, filepath.Join(n.Dir, "cni"), nil)
	about := &libcni.RuntimeConf{ContainerID: p.Name, NetNS: p.Netns, IfName: ifName, Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_UID", p.Name},
	}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if delErr := n.Do(func() error { return cni.DelNetworkList(ctx, list, about) }); delErr != nil {
			t.Errorf("DEL of %s in %s on %s: %v", ifName, p.Name, worker, delErr)
		}
	})
	e := endpoint{pod: p}
	var raw types.Result
	start := time.Now()
	err = n.Do(func() (addErr error) {
		raw, addErr = cni.AddNetworkList(t.Context(), list, about)
		return addErr
	})
	e.took = time.Since(start)
	if err != nil {
		t.Fatalf("ADD of %s in %s on %s: %v", ifName, p.Name, worker, err)
	}
	r, err := types100.NewResultFromResult(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.IPs) != 1 {
		t.Fatalf("ADD of %s in %s on %s: addresses %v, want one", ifName, p.Name, worker, r.IPs)
	}
	addr, _ := netip.AddrFromSlice(r.IPs[0].Address.IP)
	e.addr = addr.Unmap()
	return e
}
