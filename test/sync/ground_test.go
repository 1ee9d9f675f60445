// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

// twoWorkers are those of the AWS samples: ENIs on 10.10.1.0/24, and whereabouts has 10.10.1.80 to 82 for pods. The reservation
// keeps EC2's own choices out of that range, and its role agents.
// https://github.com/aws-samples/eks-automated-ipmgmt-multus-pods
const twoWorkers = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, ipv6: "2001:db8:10:1::/64", az: us-west-2a,
   reservations: [{cidr: 10.10.1.64/26, tags: {multus-vpc.io/role: static}}]}
instances:
- name: worker-1
  type: m5.4xlarge
  enis:
  - {subnet: primary, addresses: [10.10.12.11]}
  - {subnet: multus-1, addresses: [10.10.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
- name: worker-2
  type: m5.4xlarge
  enis:
  - {subnet: primary, addresses: [10.10.12.12]}
  - {subnet: multus-1, addresses: [10.10.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2:
  latency: 20ms
  propagation: {route: 300ms, imds: 500ms, describe: 200ms}
`

// Times.
const (
	// patience is for what takes time by design, in an emulated machine.
	patience = time.Minute
	// silence is how long a reply that must not come is waited for: longer than what comes late in an emulated machine.
	silence = time.Second
	// pollInterval is between two looks at a condition.
	pollInterval = 50 * time.Millisecond
)

// master is the link of each worker's ENI for pods, and deviceIndex its place.
const (
	master      = "eth1"
	deviceIndex = 1
)

// ground is the lab with its two workers.
type ground struct {
	lab   *lab.Running
	dir   string
	bin   string // of this project's programs
	peers string // of the reference plugins
	stack string // of Multus, whereabouts, etcd and the API server
	nodes map[string]*node
	log   *ec2Log
}

// up raises the ground of the AWS samples.
func up(t *testing.T) *ground {
	t.Helper()
	return raise(t, twoWorkers)
}

// raise raises a ground. Everything goes when the test ends.
func raise(t *testing.T, text string) *ground {
	t.Helper()
	s, err := scenario.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	g := &ground{bin: folder(t, "MULTUS_VPC_BIN"), peers: folder(t, "MULTUS_VPC_PEERS"), nodes: map[string]*node{}}
	if g.stack, err = stack.Programs(); err != nil {
		t.Fatal(err)
	}
	// Not below the test's own folder: a socket's path has 107 bytes at most (unix(7)).
	if g.dir, err = os.MkdirTemp("", "sync-"); err != nil {
		t.Fatal(err)
	}
	cleanUp(t, func() error { return os.RemoveAll(g.dir) })
	if g.lab, err = lab.Up(t.Context(), s, lab.Config{Prefix: fmt.Sprintf("sync%dlab", os.Getpid()), Log: t.Output()}); err != nil {
		t.Fatal(err)
	}
	cleanUp(t, g.lab.Close)
	g.log = &ec2Log{ec2: g.lab.Front}
	for name := range g.lab.Instances {
		g.nodes[name] = g.newNode(t, name)
	}
	return g
}

func folder(t *testing.T, variable string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if !filepath.IsAbs(dir) {
		t.Fatalf("%s must name a folder absolutely (make test-vm sets it)", variable)
	}
	return dir
}

func cleanUp(t *testing.T, f func() error) {
	t.Cleanup(func() {
		if err := f(); err != nil {
			t.Error(err)
		}
	})
}

// owners are the workers that have an address, as EC2 has it now.
func (g *ground) owners(a netip.Addr) (workers []string) {
	view := g.lab.Cloud.View(time.Now())
	for name, ids := range g.lab.ENIs {
		for _, id := range ids {
			if e, ok := view.ENI(id); ok && (slices.Contains(e.IPv4(), a) || slices.Contains(e.IPv6, a)) {
				workers = append(workers, name)
			}
		}
	}
	return workers
}

// await looks until there is no error.
func await(t *testing.T, what string, look func() error) {
	t.Helper()
	if err := until(t.Context(), look); err != nil {
		t.Fatalf("%s: not within %v: %v", what, patience, err)
	}
}

func until(ctx context.Context, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// reaches demands that a pod has an answer from an address.
func (p *aPod) reaches(t *testing.T, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := pod.Ping(ctx, p.Netns, to); err != nil {
		t.Errorf("from %s on %s: %v", p.Name, p.node.name, err)
	}
}

// misses demands that a pod has no answer from an address.
func (p *aPod) misses(t *testing.T, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), silence)
	defer cancel()
	if _, err := pod.Ping(ctx, p.Netns, to); !errors.Is(err, pod.ErrNoReply) {
		t.Errorf("%s on %s has an answer from %s (%v), which EC2 does not know", p.Name, p.node.name, to, err)
	}
}
