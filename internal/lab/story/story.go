// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package story tells what the suite is for, on one machine: workers with ENIs, pods on them, and packets that flow
// exactly when EC2 knows the address. Real agents run in the workers' namespaces and real plugins are executed as a
// container runtime executes them; the VPC around them is the lab's. Every line of the story is an assertion with what
// was measured. `vpclab demo` tells it; nothing else belongs here.
package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
)

// ErrFailed says that an assertion of the story did not hold. The story itself says which.
var ErrFailed = errors.New("the story did not hold")

// Config is what [Tell] needs.
type Config struct {
	// Out gets the story.
	Out io.Writer
	// Terminal makes lines change while something is in progress, and colours the marks.
	Terminal bool
	// BinDir holds the agent, the plugins, the init container and the sidecar.
	BinDir string
	// Prefix starts the names of all network namespaces.
	Prefix string
}

// Tell tells the whole story and cleans up after it. When an assertion fails it tells on as far as that makes sense, and
// returns an error that matches [ErrFailed].
func Tell(ctx context.Context, cfg Config) (err error) {
	dir, err := os.MkdirTemp("", "multus-vpc-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the agents: %w", err)
	}
	s := &story{cfg: cfg, dir: dir, teller: teller.New(cfg.Out, cfg.Terminal), pods: map[string]*demoPod{}, nodes: map[string]*node{}}
	defer func() {
		if s.teller.Failed() == 0 {
			err = errors.Join(err, os.RemoveAll(dir)) // otherwise the agents' logs are of use
		}
	}()
	defer func() { err = errors.Join(err, s.cleanUp(context.WithoutCancel(ctx))) }()

	sc, err := scenario.Parse([]byte(theScenario))
	if err != nil {
		return err
	}
	s.title()
	if s.lab, err = lab.Up(ctx, sc, lab.Config{Prefix: cfg.Prefix, Log: cfg.Out}); err != nil {
		return err
	}
	for _, chapter := range []func(context.Context){s.unknownAddresses, s.registeredAddresses, s.knownAddresses, s.floatingAddress, s.terminatedWorker, s.table} {
		chapter(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.verdict()
}

// theScenario is the example that the suite began with: two workers with ENIs on 10.10.1.0/24 and pods on an explicit
// reservation in it. The reservation is small, so that a third worker needs the addresses of one that is gone.
const theScenario = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24,  az: us-west-2a, tags: {multus: "1"},
   reservations: [{cidr: 10.10.1.64/27, type: explicit, tags: {multus-vpc.io/role: pool}}]}
- {name: multus-2, cidr: 10.10.2.0/24,  az: us-west-2a, tags: {multus: "2"},
   reservations: [{cidr: 10.10.2.64/26, type: explicit, tags: {multus-vpc.io/role: pool}}]}
instances:
- name: worker-1
  type: m5.4xlarge
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.10.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-2, addresses: [10.10.2.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
- name: worker-2
  type: m5.4xlarge
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.10.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-2, addresses: [10.10.2.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2:
  latency: 80ms
  propagation: {route: 3s, imds: 3500ms, describe: 2s}
`

// routeLag is the scenario's propagation.route: a pod whose address is not routed yet when ADD returns is mute for about
// as long.
const routeLag = 3 * time.Second

// story is the state of a telling.
type story struct {
	cfg    Config
	dir    string // of the agents' sockets, ledgers and logs
	teller *teller.Teller
	lab    *lab.Running
	nodes  map[string]*node    // workers with an agent, by name
	pods   map[string]*demoPod // by name
	closes []func() error      // of what listens in pods' namespaces
}

// demoPod is a pod of the story.
type demoPod struct {
	*pod.Pod
	name   string
	worker string
	nets   []attached
	served bool // AWS listens in its namespace

	sidecar *container // nil without one
}

func (s *story) title() {
	s.teller.Say(`multus-vpc: pod interfaces whose addresses the VPC itself knows

  A VPC 10.10.0.0/16 on this machine. Each worker has a primary ENI (eth0) and one in each of multus-1 (10.10.1.0/24)
  and multus-2 (10.10.2.0/24), where a CIDR reservation is kept for pods. EC2 answers in 80 ms, and what it changes is
  routed 3 s later.`)
}

func (s *story) verdict() error {
	t := s.teller
	if t.Failed() > 0 {
		for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
			t.Say("\nThe end of what the agent of " + name + " logged:\n" + s.nodes[name].logTail())
		}
		t.Say(fmt.Sprintf("\n%d of %d assertions failed. The agents' logs are in %s", t.Failed(), t.Passed()+t.Failed(), s.dir))
		return fmt.Errorf("%w: %d of %d assertions failed", ErrFailed, t.Failed(), t.Passed()+t.Failed())
	}
	t.Say(fmt.Sprintf("\n%d assertions, all true.", t.Passed()))
	return nil
}

// cleanUp stops what the story started, in reverse.
func (s *story) cleanUp(ctx context.Context) error {
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.stop(ctx))
	}
	for _, p := range s.pods {
		p.kill()
	}
	for _, c := range s.closes {
		errs = append(errs, c())
	}
	for _, p := range s.pods {
		errs = append(errs, p.Delete())
	}
	if s.lab != nil {
		errs = append(errs, s.lab.Close())
	}
	return errors.Join(errs...)
}

// newPod makes an empty pod on a worker.
func (s *story) newPod(name, worker string) (*demoPod, error) {
	made, err := pod.New(s.cfg.Prefix + "-pod-" + name)
	if err != nil {
		return nil, err
	}
	p := &demoPod{Pod: made, name: name, worker: worker}
	s.pods[name] = p
	return p, nil
}

// startAgent starts the agent of a worker.
func (s *story) startAgent(worker, netnsPath string) (*node, error) {
	n := &node{
		name: worker, netns: netnsPath, binDir: s.cfg.BinDir, dir: filepath.Join(s.dir, worker), region: s.lab.Cloud.Region(),
	}
	if err := n.start(); err != nil {
		return nil, err
	}
	s.nodes[worker] = n
	return n, nil
}
