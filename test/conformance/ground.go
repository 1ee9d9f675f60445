// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// ground is where a subject runs: a worker of the lab with three ENIs for pods, or this host.
type ground struct {
	dir    string // scratch
	prefix string // of the names of network namespaces
	do     func(func() error) error
	close  func() error
}

// onThisHost is the ground of a subject that a user brings: its daemon is here.
func onThisHost(serial int) (*ground, error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return nil, err
	}
	return &ground{
		dir: dir, prefix: prefix(serial), do: func(f func() error) error { return f() },
		close: func() error { return os.RemoveAll(dir) },
	}, nil
}

func prefix(serial int) string { return fmt.Sprintf("conf%d-%d", os.Getpid(), serial) }

// node is a worker of the lab.
type node struct {
	ground
	lab    *lab.Running
	worker *worker.Worker
	pods   netip.Prefix // the subnet for pods
}

// sizeTag tells the reservations apart.
const sizeTag = "size"

// podENIs of the worker are eth1 and so on, each with room for 49 addresses.
const podENIs = 3

// raise makes a worker of the lab; no agent runs yet. Each has a VPC of its own, for agents look into every network
// namespace of a machine.
func raise(ctx context.Context, serial int, bin string, log io.Writer) (n *node, err error) {
	// Others' labs are below 10.128.0.0.
	addr := func(third, fourth byte) netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(160 + serial), third, fourth})
	}
	n = &node{pods: netip.PrefixFrom(addr(16, 0), 20)}
	ours := scenario.ENI{Subnet: "pods", Tags: map[string]string{"node.k8s.amazonaws.com/no_manage": "true"}}
	s := &scenario.Scenario{
		VPC: scenario.VPC{CIDR: netip.PrefixFrom(addr(0, 0), 16)},
		Subnets: []scenario.Subnet{
			{Name: "primary", CIDR: netip.PrefixFrom(addr(0, 0), 24), AZ: "us-west-2a"},
			{Name: "pods", CIDR: n.pods, AZ: "us-west-2a", Reservations: []scenario.Reservation{
				{CIDR: netip.PrefixFrom(addr(24, 0), 23), Type: "explicit", Tags: map[string]string{sizeTag: "large"}},
				{CIDR: netip.PrefixFrom(addr(26, 0), 26), Type: "explicit", Tags: map[string]string{sizeTag: "small"}},
				{CIDR: netip.PrefixFrom(addr(28, 0), 24), Type: "explicit", Tags: map[string]string{"multus-vpc.io/role": "static"}},
			}},
		},
		Instances: []scenario.Instance{{
			Name: "worker-1", Type: "c5.18xlarge", ENIs: []scenario.ENI{{Subnet: "primary"}, ours, ours, ours},
		}},
	}
	n.prefix = prefix(serial)
	n.close = n.remove
	if n.lab, err = lab.Up(ctx, s, lab.Config{Prefix: n.prefix, Log: log}); err != nil {
		return nil, err
	}
	if n.worker, err = worker.New(n.lab, "worker-1", bin); err != nil {
		return nil, errors.Join(err, n.lab.Close())
	}
	n.dir, n.do = n.worker.Dir, n.worker.Do
	return n, nil
}

func (n *node) remove() error {
	return errors.Join(n.worker.Stop(), n.worker.Close(), n.lab.Close())
}

// host is an address of the subnet for pods; with third 28 it is in the reservation that agents leave alone.
func (n *node) host(third, fourth int) netip.Addr {
	a := n.pods.Addr().As4()
	return netip.AddrFrom4([4]byte{a[0], a[1], byte(third), byte(fourth)})
}

// agentConfig has every period as short as can be.
const agentConfig = "warmIPTarget: 1\nminimumIPTarget: 2\nipCooldownPeriod: 1\nreconcileInterval: 1\nmassReapDelay: 2\n"

// agentTimeout is for an agent to come and to know its ENIs.
const agentTimeout = 3 * time.Minute

func (n *node) startAgent(ctx context.Context) error {
	if err := n.worker.Start(agentConfig); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, agentTimeout, fmt.Errorf("not within %v", agentTimeout))
	defer cancel()
	return n.worker.Await(ctx, func(s *agentapi.Status) string {
		if len(s.ENIs) <= podENIs || slices.ContainsFunc(s.Problems, func(p string) bool { return strings.HasPrefix(p, "not ready") }) {
			return fmt.Sprintf("an agent that is ready and knows %d ENIs; it knows %d, problems %q", podENIs+1, len(s.ENIs), s.Problems)
		}
		return ""
	})
}

// agent is what our plugins talk to.
func (n *node) agent() outside {
	return outside{
		Held: func(ctx context.Context) (int, error) {
			s, err := n.worker.Status(ctx)
			if err != nil {
				return 0, err
			}
			held := 0
			for _, a := range s.Attachments {
				if a.State != "cooling" {
					held += len(a.Addresses)
				}
			}
			return held, nil
		},
		Down: func(context.Context) error { return n.worker.Stop() },
		Up:   n.startAgent,
		Cut: func() error {
			return n.lab.Front.SetFaults([]front.Fault{{Kind: front.ServerError, Probability: 1}})
		},
		Mend: func() error { return n.lab.Front.SetFaults(nil) },
	}
}
