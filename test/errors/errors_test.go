// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package errors

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// scriptTimeout is far above what a script takes, whose longest wait is an ADD's of a few seconds.
const scriptTimeout = 2 * time.Minute

func TestErrors(t *testing.T) {
	bin, remove, err := worker.Programs()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	var serial atomic.Int64
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			ctx, cancel := context.WithTimeout(t.Context(), scriptTimeout)
			env.Defer(cancel)
			env.Values[worldKey{}] = &world{
				ctx: ctx, bin: bin, pods: map[string]*pod.Pod{},
				prefix: fmt.Sprintf("err%d-%d", os.Getpid(), serial.Add(1)),
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lab":              raise,
			"agent":            startAgent,
			"agent-of-version": startNewerAgent,
			"pod":              makePod,
			"vpcipam":          plugin("vpcipam"),
			"vpcipvlan":        plugin("vpcipvlan"),
			"refused":          refused,
			"settled":          settled,
			"snapshot":         remember,
			"unchanged":        unchanged,
		},
	})
}

// world is what one script runs in.
type world struct {
	ctx    context.Context
	bin    string
	prefix string // of everything that the script makes

	lab     *lab.Running
	worker  *worker.Worker
	asked   bool // the worker has an agent that can be asked
	pods    map[string]*pod.Pod
	answer  worker.Answer // of the last plugin
	before  snapshot
	hasSnap bool
}

type worldKey struct{}

func of(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// usage ends the script unless the command has as many arguments as it needs, and no "!".
func usage(ts *testscript.TestScript, ok, neg bool, text string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func raise(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) <= 1, neg, "lab [FILE]")
	w := of(ts)
	var text []byte
	if len(args) == 1 {
		text = []byte(ts.ReadFile(args[0]))
	} else {
		var err error
		text, err = os.ReadFile("testdata/standard.yaml")
		ts.Check(err)
	}
	s, err := scenario.Parse(text)
	ts.Check(err)
	w.lab, err = lab.Up(w.ctx, s, lab.Config{Prefix: w.prefix, Log: ts.Stderr()})
	ts.Check(err)
	ts.Defer(func() { ts.Check(w.lab.Close()) })
	w.worker, err = worker.New(w.lab, "worker-1", w.bin)
	ts.Check(err)
	ts.Defer(func() { ts.Check(w.worker.Close()) })
}

func startAgent(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) <= 1, neg, "agent [FILE]")
	w := of(ts)
	config := ""
	if len(args) == 1 {
		config = ts.ReadFile(args[0])
	}
	ts.Check(w.worker.Start(config))
	ts.Defer(func() { ts.Logf("the agent's log:\n%s", w.worker.Log()) })
	ts.Check(w.worker.Await(w.ctx, func(s *agentapi.Status) string {
		if len(s.ENIs) == 0 || len(s.Problems) > 0 {
			return fmt.Sprintf("an agent that is ready; problems: %q", s.Problems)
		}
		return ""
	}))
	w.asked = true
}

// strict is the agent that no request may reach.
type strict struct{ reached chan<- agentapi.Request }

func (s strict) Handle(_ context.Context, req agentapi.Request) agentapi.Response {
	s.reached <- req
	return agentapi.Response{}
}
func (strict) Undelivered(agentapi.Request, agentapi.Response) {}

func startNewerAgent(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1, neg, "agent-of-version N")
	w := of(ts)
	server := &agentapi.Server{}
	_, err := fmt.Sscan(args[0], &server.Version)
	ts.Check(err)
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	reached := make(chan agentapi.Request, 1)
	ts.Check(w.worker.Do(func() error {
		ln, err := agentapi.Listen(w.worker.Socket())
		if err != nil {
			return err
		}
		go func() { ended <- server.Serve(ctx, ln, strict{reached}) }()
		return nil
	}))
	ts.Defer(func() {
		cancel()
		ts.Check(<-ended)
		if len(reached) > 0 {
			ts.Fatalf("a request of an unknown version was handled: %+v", <-reached)
		}
	})
}

func makePod(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1, neg, "pod NAME")
	w := of(ts)
	p, err := pod.New(w.prefix + "-" + args[0])
	ts.Check(err)
	ts.Defer(func() { ts.Check(p.Delete()) })
	w.pods[args[0]] = p
}
