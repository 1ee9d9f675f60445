//go:build ipvlan

// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package fabric_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// newIPVlanPods makes a fabric with early ENIs and ipvlan pods a, a2 on worker 1's eth1, b on worker 2's eth1 and c on
// its eth2, all unregistered.
func newIPVlanPods(t *testing.T) (b *bench, pods map[string]*pod.Pod) {
	t.Helper()
	b = &bench{Fabric: newFabric(t), topology: twoWorkers()}
	for i := range b.topology.ENIs {
		b.topology.ENIs[i].Early = true
	}
	b.apply(t)
	pods = map[string]*pod.Pod{}
	for _, p := range []struct{ name, worker, master, address, gateway string }{
		{"a", "w1", "eth1", "10.10.1.70/24", "10.10.1.1"},
		{"a2", "w1", "eth1", "10.10.1.71/24", "10.10.1.1"},
		{"b", "w2", "eth1", "10.10.1.80/24", "10.10.1.1"},
		{"c", "w2", "eth2", "10.10.2.90/24", "10.10.2.1"},
	} {
		made, err := pod.New(fmt.Sprintf("fabipvlan%d-%s", os.Getpid(), p.name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := made.Delete(); err != nil {
				t.Error(err)
			}
		})
		if err := made.AddIPVlan(b.Netns(p.worker), p.master, "net1", prefix(p.address), addr(p.gateway)); err != nil {
			t.Fatal(err)
		}
		pods[p.name] = made
	}
	return b, pods
}

func TestIPVlanSiblingsNeedNoRegistrationAndOtherWorkersDo(t *testing.T) {
	b, pods := newIPVlanPods(t)
	reaches(t, pods["a"], addr("10.10.1.71"))
	reachesNot(t, pods["a"], addr("10.10.1.80"))
	reachesNot(t, pods["a"], addr("10.10.2.90"))
	b.route(t, addr("10.10.1.80"), "eni-00000000000000021")
	reachesNot(t, pods["a"], addr("10.10.1.80"))
	b.route(t, addr("10.10.1.70"), "eni-00000000000000011")
	b.route(t, addr("10.10.2.90"), "eni-00000000000000022")
	reaches(t, pods["a"], addr("10.10.1.80"))
	reaches(t, pods["a"], addr("10.10.2.90"))
	reaches(t, pods["c"], addr("10.10.1.80")) // two ENIs of one worker
	reaches(t, pods["a"], addr("10.10.1.71")) // siblings still talk directly
	reaches(t, pods["b"], addr("10.10.1.11")) // the other worker's own address
}

func TestDetachTakesIPVlanPodsAlong(t *testing.T) {
	b, pods := newIPVlanPods(t)
	b.topology.ENIs = b.topology.ENIs[2:]
	b.apply(t)
	for name, links := range map[string]int{"a": 1, "a2": 1, "b": 2} {
		l, err := pod.LookAt(pods[name].Netns)
		if err != nil || len(l.Links) != links {
			t.Errorf("pod %s has %q, %v, want %d links", name, l.Links, err, links)
		}
	}
}

// A late link is down until somebody sets it up, and then forwards like any other.
func TestIPVlanOnALateLink(t *testing.T) {
	b := &bench{Fabric: newFabric(t), topology: twoWorkers()}
	b.apply(t)
	h, err := pod.Handle(b.Netns("w1"))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	if err = h.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	p, err := pod.New(fmt.Sprintf("fabipvlan%d-late", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Delete()
	if err := p.AddIPVlan(b.Netns("w1"), "eth1", "eth0", prefix("10.10.1.70/24"), addr("10.10.1.1")); err != nil {
		t.Fatal(err)
	}
	b.route(t, addr("10.10.1.70"), "eni-00000000000000011")
	reaches(t, p, addr("10.10.12.20"))
}
