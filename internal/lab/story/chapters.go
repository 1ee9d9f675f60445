// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Time limits. What must happen gets long, since it ends when it has; under emulation a process start takes 30 times as
// long as on the machine itself.
const (
	patience = 40 * time.Second       // for what needs EC2, agents and processes
	answer   = 10 * time.Second       // for a reply that must come
	silence  = 700 * time.Millisecond // for a reply that must not
)

// unknownAddresses is step 1: what every IPAM plugin does that EC2 knows nothing of.
func (s *story) unknownAddresses(ctx context.Context) {
	t := s.teller
	t.Step(1, "Two pods with addresses that EC2 does not know")
	gateway := netip.MustParseAddr("10.10.1.1")
	for _, p := range []struct{ name, worker, address string }{
		{"a", "worker-1", "10.10.1.200/24"}, {"a2", "worker-1", "10.10.1.201/24"}, {"b", "worker-2", "10.10.1.202/24"},
	} {
		address := netip.MustParsePrefix(p.address)
		t.Check(fmt.Sprintf("pod %s: an ipvlan interface on eth1 of %s", p.name, p.worker), func() (string, error) {
			made, err := s.newPod(p.name, p.worker)
			if err != nil {
				return "", err
			}
			made.nets = []attached{{ifName: "net1", addr: address.Addr()}}
			return address.Addr().String(), made.AddIPVlan(s.lab.Netns[p.worker], "eth1", "net1", address, gateway)
		})
	}
	s.reaches(ctx, "same worker: a reaches a2, though EC2 knows neither", "a", "a2")
	s.silent(ctx, "other worker: a does not reach b", "a", "b")
	s.silent(ctx, "other worker: b does not reach a", "b", "a")
	t.Check("a does not even reach the gateway of its subnet", func() (string, error) {
		return s.noReply(ctx, "a", gateway)
	})
}

// The networks of the story.
var (
	multus1 = network{name: "multus-1", deviceIndex: 1}
	multus2 = network{name: "multus-2", deviceIndex: 2}
)

// knownAddresses is step 3: pods through the suite.
func (s *story) knownAddresses(ctx context.Context) {
	t := s.teller
	t.Step(3, "Pods through vpcipvlan and vpcipam")
	started := t.Check("an agent runs on each worker", func() (string, error) {
		begin := time.Now()
		for _, w := range []string{"worker-1", "worker-2"} {
			if _, err := s.startAgent(w, s.lab.Netns[w]); err != nil {
				return "", err
			}
		}
		return teller.Since(begin), s.eachNode(func(n *node) error { return s.answers(ctx, n) })
	})
	if !started {
		t.Skip("pods get their addresses from the agents")
		return
	}
	// The first pod comes before the agent has stock: its address must not be handed out before the VPC routes it.
	s.attach(ctx, "first pod c: ADD waits until EC2 has confirmed the address", "c", "worker-1", multus1)
	s.answersAtOnce(ctx, "c reaches the gateway as soon as ADD has returned", "c", netip.MustParseAddr("10.10.1.1"))
	t.Check("both agents hold confirmed stock", func() (string, error) { return s.stocked(ctx) })

	before := s.calls()
	warm := []struct {
		name, worker string
		net          network
	}{{"d", "worker-1", multus1}, {"e", "worker-2", multus1}, {"f", "worker-2", multus2}}
	for _, p := range warm {
		s.attach(ctx, fmt.Sprintf("pod %s on %s, network %s", p.name, p.worker, p.net.name), p.name, p.worker, p.net)
		if to := s.pods["c"]; to != nil && len(to.nets) == 1 {
			s.answersAtOnce(ctx, fmt.Sprintf("%s reaches c as soon as ADD has returned", p.name), p.name, to.nets[0].addr)
		}
	}
	t.Check("no ADD with stock made an EC2 call that changes something", func() (string, error) {
		writes := s.calls().changes - before.changes
		if writes > 0 {
			return "", fmt.Errorf("%d calls", writes)
		}
		all, stock := s.calls(), 0
		for _, id := range s.lab.Instances {
			stock += len(s.secondaries(id))
		}
		return fmt.Sprintf("%d such calls so far, for %d addresses and %d pods; %d reads", all.changes, stock, 1+len(warm), all.reads), nil
	})
	s.reaches(ctx, "e on worker-2 reaches d on worker-1", "e", "d")
	s.reaches(ctx, "f in multus-2 reaches d in multus-1", "f", "d")
	s.tcp(ctx, "TCP from f to d", "f", "d")
	s.silent(ctx, "a2, whose address EC2 still does not know, does not reach e", "a2", "e")
	s.cooldown(ctx)
}

// attach makes a pod and runs ADD.
func (s *story) attach(ctx context.Context, what, name, worker string, net network) {
	s.teller.Check(what, func() (string, error) {
		p, err := s.newPod(name, worker)
		if err != nil {
			return "", err
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		a, err := s.nodes[worker].add(limited, p, net, "net1")
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s, ADD took %s", a.addr, teller.Round(a.took)), nil
	})
}

// cooldown deletes a pod and makes another: an address goes to nobody else while packets to its old pod may be under way.
func (s *story) cooldown(ctx context.Context) {
	s.teller.Check("pod d is deleted: its address cools, and the next pod gets another one", func() (string, error) {
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		d, n := s.pods["d"], s.nodes["worker-1"]
		if d == nil || len(d.nets) != 1 {
			return "", errors.New("there is no pod d")
		}
		if err := n.del(limited, d, d.nets[0]); err != nil {
			return "", err
		}
		delete(s.pods, "d")
		if err := d.Delete(); err != nil {
			return "", err
		}
		state, err := n.stateOf(limited, d.nets[0].addr)
		if err != nil {
			return "", err
		}
		if state != "cooling" {
			return "", fmt.Errorf("%s is %s", d.nets[0].addr, state)
		}
		next, err := s.newPod("g", "worker-1")
		if err != nil {
			return "", err
		}
		got, err := n.add(limited, next, multus1, "net1")
		if err == nil && got.addr == d.nets[0].addr {
			err = fmt.Errorf("g got %s, which d had", got.addr)
		}
		return fmt.Sprintf("%s cools, g has %s", d.nets[0].addr, got.addr), err
	})
}

// terminatedWorker is step 5.
func (s *story) terminatedWorker(ctx context.Context) {
	t := s.teller
	t.Step(5, "A worker is terminated, and its addresses are used again")
	victim := s.nodes["worker-2"]
	if victim == nil {
		t.Skip("worker-2 is terminated")
		return
	}
	var freed []netip.Addr
	t.Check("worker-2 is terminated, and EC2 frees the addresses of its ENIs", func() (string, error) {
		freed = s.secondaries(s.lab.Instances["worker-2"])
		if err := victim.kill(); err != nil {
			return "", err
		}
		if _, err := s.lab.Cloud.TerminateInstances(time.Now(), []string{s.lab.Instances["worker-2"]}); err != nil {
			return "", err
		}
		held := s.lab.Cloud.View(time.Now()).Routes()
		for _, a := range freed {
			if id, ok := held[a]; ok {
				return "", fmt.Errorf("%s is still on %s", a, id)
			}
		}
		return fmt.Sprintf("%d addresses", len(freed)), nil
	})
	t.Check("its pods are gone from the VPC: c reaches e no more", func() (string, error) {
		limited, cancel := context.WithTimeout(ctx, routeLag+answer)
		defer cancel()
		begin := time.Now()
		err := until(limited, func() error {
			rtt, err := s.ping(limited, "c", "e", silence)
			switch {
			case errors.Is(err, pod.ErrNoReply) && limited.Err() == nil:
				return nil
			case err != nil:
				return err
			}
			return fmt.Errorf("reply in %s, long after", teller.Round(rtt))
		})
		return "silent after " + teller.Since(begin), err
	})
	if !s.launch(ctx) {
		t.Skip("a pod on worker-3 gets an address")
		return
	}
	s.attach(ctx, "pod h on worker-3 gets its address from there", "h", "worker-3", multus1)
	t.Check("worker-3 holds addresses that were worker-2's", func() (string, error) {
		now := s.secondaries(s.launched())
		again := slices.DeleteFunc(slices.Clone(now), func(a netip.Addr) bool { return !slices.Contains(freed, a) })
		if len(again) == 0 {
			return "", fmt.Errorf("none of %d", len(now))
		}
		return fmt.Sprintf("%d of %d", len(again), len(now)), nil
	})
	s.reaches(ctx, "h on worker-3 reaches c on worker-1", "h", "c")
}

// launch launches a worker as an Auto Scaling group does, and starts its agent.
func (s *story) launch(ctx context.Context) bool {
	return s.teller.Check("worker-3 is launched, and its agent runs", func() (string, error) {
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		begin := time.Now()
		ours := map[string]string{"node.k8s.amazonaws.com/no_manage": "true"}
		launch, err := s.lab.Cloud.AddInstance(time.Now(), vpc.InstanceSetup{Name: "worker-3", Type: "m5.2xlarge", ENIs: []vpc.ENISetup{
			{SubnetID: s.lab.Subnets["primary"]}, {SubnetID: s.lab.Subnets["multus-1"], Tags: ours},
		}})
		if err != nil {
			return "", err
		}
		path, err := s.lab.AwaitInstance(limited, launch.ID)
		if err != nil {
			return "", err
		}
		n, err := s.startAgent("worker-3", path)
		if err != nil {
			return "", err
		}
		return teller.Since(begin), s.answers(limited, n)
	})
}

// launched is the ID of worker-3.
func (s *story) launched() string {
	for _, i := range s.lab.Cloud.View(time.Now()).Instances() {
		if i.Name() == "worker-3" {
			return i.ID
		}
	}
	return ""
}

// secondaries are the secondary addresses of an instance's ENIs, as EC2 has them now.
func (s *story) secondaries(instance string) []netip.Addr {
	var addrs []netip.Addr
	for _, e := range s.lab.Cloud.View(time.Now()).ENIs(instance) {
		addrs = append(addrs, e.Secondary...)
	}
	return addrs
}

// callCount are EC2 calls so far.
type callCount struct{ reads, changes int }

func (s *story) calls() callCount {
	var c callCount
	for _, line := range s.lab.Front.Calls() {
		if strings.HasPrefix(line.Action, "Describe") || strings.HasPrefix(line.Action, "Get") {
			c.reads += line.Count
		} else {
			c.changes += line.Count
		}
	}
	return c
}
