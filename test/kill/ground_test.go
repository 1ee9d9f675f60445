// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// twoWorkers share a reservation that is smaller than what both may hold, so that addresses change hands.
const twoWorkers = `
vpc: {cidr: 10.66.0.0/16}
subnets:
- {name: primary, cidr: 10.66.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.66.1.0/24, az: us-west-2a, reservations: [{cidr: 10.66.1.160/27}, {cidr: 10.66.1.192/26}]}
instances:
- name: worker-1
  type: c5.18xlarge
  enis: [{subnet: primary}, {subnet: pods, addresses: [10.66.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: worker-2
  type: c5.18xlarge
  enis: [{subnet: primary}, {subnet: pods, addresses: [10.66.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}]
ec2:
  latency: 10ms
  propagation: {route: 100ms, imds: 200ms, describe: 100ms}
`

// ground is the lab with its workers.
type ground struct {
	t      *testing.T
	lab    *lab.Running
	seed   uint64
	nodes  []*node
	judge  *stage.Judge
	routes *stage.Routes
	ctx    context.Context // ends with the first failure
	stop   context.CancelCauseFunc

	notes sync.Mutex // guards log
	log   []string
}

// The agent's times are as short as its configuration allows, so that a minute sees every one of them pass many times.
const (
	cooldown    = time.Second
	warmTarget  = 1
	minTarget   = 2
	agentConfig = "warmIPTarget: 1\nminimumIPTarget: 2\nipCooldownPeriod: 1\nreconcileInterval: 1\nmassReapDelay: 1\n"
)

// ec2Port is where the gate listens in each worker, beside the lab's own endpoint.
const ec2Port = 8081

// node is a worker: its agent, and its runtime with the pods.
type node struct {
	ground  *ground
	wiring  stage.Wiring
	name    string
	netns   string
	bin     string
	eni     string // ID of the ENI for pods
	dev     string // the link of that ENI in the VPC's namespace
	place   *stage.Place
	gate    *gate
	agent   *stage.Agent
	runtime *stage.Runtime
	rng     *rand.Rand // of the goroutine that runs the rounds alone

	refusals atomic.Int64
	answered chan struct{} // gets something when an ADD has returned an address

	mu   sync.Mutex
	live []*stage.Sandbox
}

// errFailed ends a run whose test has failed.
var errFailed = errors.New("the test has failed")

// up raises the ground. Everything goes when the test ends.
func up(t *testing.T, w stage.Wiring, bin string, seed uint64) *ground {
	t.Helper()
	s, err := scenario.Parse([]byte(twoWorkers))
	if err != nil {
		t.Fatal(err)
	}
	s.EC2.Seed = seed
	running, err := lab.Up(t.Context(), s, lab.Config{Prefix: fmt.Sprintf("kill%d", os.Getpid()), Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	g := &ground{t: t, lab: running, seed: seed}
	g.ctx, g.stop = context.WithCancelCause(t.Context())
	t.Cleanup(func() {
		if closeErr := running.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	if g.routes, err = stage.OpenRoutes(running.Netns["vpc"]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.routes.Close)
	g.judge = stage.NewJudge(running.Cloud, g.routes, cooldown, g.fail)
	dir, err := os.MkdirTemp("", "multus-vpc-kill-") // shorter than t.TempDir: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			t.Error(removeErr)
		}
	})
	for i, name := range []string{"worker-1", "worker-2"} {
		home := filepath.Join(dir, name)
		if err = os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		g.nodes = append(g.nodes, g.addNode(i, name, w, bin, home))
	}
	return g
}

// addNode starts what a worker has: the gate before EC2 and an agent.
func (g *ground) addNode(i int, name string, w stage.Wiring, bin, dir string) *node {
	g.t.Helper()
	path := g.lab.Netns[name]
	n := &node{
		ground: g, wiring: w, name: name, netns: path, bin: bin, eni: g.lab.ENIs[name][1],
		gate: &gate{ec2: g.lab.Front}, answered: make(chan struct{}, 1),
		rng: rand.New(rand.NewPCG(g.seed, uint64(i))),
	}
	var err error
	if n.dev, err = g.routes.LinkOf(n.eni); err != nil {
		g.t.Fatal(err)
	}
	if n.place, err = stage.Enter(path, filepath.Join(dir, "netns")); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if leaveErr := n.place.Leave(); leaveErr != nil {
			g.t.Error(leaveErr)
		}
	})
	at := netip.AddrPortFrom(lab.EC2InWorker.Addr(), ec2Port)
	listener, err := pod.Listen(g.t.Context(), path, at)
	if err != nil {
		g.t.Fatal(err)
	}
	server := &http.Server{Handler: n.gate}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends when it is closed
	}()
	g.t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	n.agent = &stage.Agent{
		Place: n.place, Netns: path, Dir: dir, Bin: bin, Config: agentConfig,
		Env: []string{
			"AWS_REGION=us-west-2",
			fmt.Sprintf("AWS_ENDPOINT_URL_EC2=http://%s:%d", lab.EC2InWorker.Addr(), ec2Port),
			"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + lab.IMDSInWorker.String(),
		},
		Died: func(err error) { g.fail("%s: %v", name, err) },
	}
	n.runtime = &stage.Runtime{Worker: name, Place: n.place, Wiring: w, Bin: bin, Socket: n.agent.Socket()}
	if err = n.agent.Prepare(); err != nil {
		g.t.Fatal(err)
	}
	if err = n.agent.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { n.agent.End(killSignal) })
	return n
}

// fail reports what must not be, and ends the run.
func (g *ground) fail(format string, args ...any) {
	if g.ctx.Err() == nil {
		g.t.Errorf(format, args...)
	}
	g.stop(errFailed)
}

// note keeps a line for the reader of a failure.
func (g *ground) note(format string, args ...any) {
	g.notes.Lock()
	defer g.notes.Unlock()
	g.log = append(g.log, fmt.Sprintf(format, args...))
}

// places are the workers' places.
func (g *ground) places() (all []*stage.Place) {
	for _, n := range g.nodes {
		all = append(all, n.place)
	}
	return all
}
