// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sticky

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

func TestMain(m *testing.M) {
	bin, remove, err := worker.Programs()
	if err == nil {
		err = os.Setenv("MULTUS_VPC_BIN", bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const (
	// testTimeout is far above the sum of what a test waits for, in an emulated machine.
	testTimeout = 4 * time.Minute
	// apiInWorker is where the Kubernetes API listens in each worker.
	apiInWorker = "127.0.0.1:6443"
)

// ground is a lab with an agent on each worker.
type ground struct {
	t      *testing.T
	ctx    context.Context
	lab    *lab.Running
	nodes  map[string]*worker.Worker
	api    *statefulSet
	access func(*worker.Worker) (kubeconfig string) // to the Kubernetes API
	config string                                   // of the agents
	prefix string                                   // of the names of all namespaces
	serial int
}

var grounds atomic.Int64

// up raises the lab of a scenario and starts the agents, which ask the stand-in. Everything goes when the test ends.
func up(t *testing.T, text, config string) *ground {
	t.Helper()
	g := raise(t, text, config)
	g.access = g.standIn
	g.start()
	return g
}

func raise(t *testing.T, text, config string) *ground {
	t.Helper()
	s, err := scenario.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	g := &ground{
		t: t, ctx: ctx, nodes: map[string]*worker.Worker{}, api: newStatefulSet(t, "db"), config: config,
		prefix: fmt.Sprintf("sticky%d-%d", os.Getpid(), grounds.Add(1)),
	}
	g.lab, err = lab.Up(ctx, s, lab.Config{Prefix: g.prefix, Log: t.Output()})
	g.must(err)
	g.cleanUp(g.lab.Close)
	return g
}

func (g *ground) start() {
	g.t.Helper()
	for name := range g.lab.Instances {
		g.join(name)
	}
	for name := range g.nodes {
		g.ready(name)
	}
}

// join makes a worker with an agent, and the Kubernetes API in it.
func (g *ground) join(name string) {
	g.t.Helper()
	w, err := worker.New(g.lab, name, os.Getenv("MULTUS_VPC_BIN"))
	g.must(err)
	g.nodes[name] = w
	g.cleanUp(func() error {
		if g.t.Failed() {
			g.t.Logf("the agent of %s said:\n%s", name, w.Log())
		}
		return w.Close()
	})
	w.Env = []string{"KUBECONFIG=" + g.access(w)}
	g.must(w.Start(g.config))
}

// standIn has the stand-in answer in the worker's namespace, and returns the kubeconfig for it.
func (g *ground) standIn(w *worker.Worker) (kubeconfig string) {
	g.t.Helper()
	l, err := pod.Listen(g.ctx, w.Netns, netip.MustParseAddrPort(apiInWorker))
	g.must(err)
	server, access := g.api.serve(l)
	g.t.Cleanup(server.Close)
	kubeconfig = filepath.Join(w.Dir, "kubeconfig")
	g.must(os.WriteFile(kubeconfig, []byte(access), 0o600))
	return kubeconfig
}

// ready waits until the agent knows its ENIs.
func (g *ground) ready(name string) {
	g.t.Helper()
	g.until(name, func(s *agentapi.Status) string {
		if len(s.ENIs) == 0 {
			return fmt.Sprintf("the ENIs; problems: %q", s.Problems)
		}
		return ""
	})
}

// until waits until the agent's status is as wanted: want says what is missing.
func (g *ground) until(name string, want func(*agentapi.Status) string) {
	g.t.Helper()
	g.must(g.nodes[name].Await(g.ctx, want))
}

func (g *ground) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *ground) cleanUp(f func() error) {
	g.t.Cleanup(func() {
		if err := f(); err != nil {
			g.t.Error(err)
		}
	})
}

// sandbox is one life of a pod on a worker.
type sandbox struct {
	*pod.Pod
	worker, name, uid string
}

// sandbox makes the pod's namespace.
func (g *ground) sandbox(worker, name, uid string) *sandbox {
	g.t.Helper()
	g.serial++
	p, err := pod.New(fmt.Sprintf("%s-%s-%d", g.prefix, name, g.serial))
	g.must(err)
	g.cleanUp(p.Delete)
	return &sandbox{p, worker, name, uid}
}

// call runs a plugin for the sandbox as its worker's runtime does.
func (g *ground) call(s *sandbox, plugin, command, ifName, config string) worker.Answer {
	g.t.Helper()
	a, err := g.nodes[s.worker].CNI(g.ctx, worker.Call{
		Plugin: plugin, Command: command, ContainerID: s.Name, Netns: s.Netns, IfName: ifName, Pod: s.name, UID: s.uid, Config: []byte(config),
	})
	g.must(err)
	return a
}

// owner is the worker whose ENI has the address in EC2, "" for none.
func (g *ground) owner(addr netip.Addr) string {
	id := g.lab.Cloud.View(time.Now()).Routes()[addr]
	for name, enis := range g.lab.ENIs {
		for _, e := range enis {
			if e == id {
				return name
			}
		}
	}
	return id
}

// state is what the agent says of an address, "" when it does not know it.
func state(s *agentapi.Status, addr netip.Addr) string {
	for _, e := range s.ENIs {
		for _, a := range e.Addresses {
			if a.Addr == addr {
				return a.State
			}
		}
	}
	return ""
}
