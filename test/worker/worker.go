// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package worker runs the real agent and the real plugins on a worker of the lab, the way a DaemonSet and a container
// runtime run them. Tests of whole nodes use it (test/errors, test/life, test/sticky). A [Worker] keeps all that its processes may
// write below one folder, and its processes end with it, however the test ends. What is right is for the tests to say.
package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// Programs returns the folder with agent, vpcipam and vpcipvlan: MULTUS_VPC_BIN, or a new one that they are built in.
// The caller calls remove in the end.
func Programs() (dir string, remove func() error, err error) {
	if dir = os.Getenv("MULTUS_VPC_BIN"); dir != "" {
		return dir, func() error { return nil }, nil
	}
	if dir, err = os.MkdirTemp("", "multus-vpc-bin-"); err != nil {
		return "", nil, err
	}
	const module = "github.com/multus-vpc/multus-vpc/"
	build := exec.Command("go", "build", "-o", dir+"/", module+"agent", module+"plugins/vpcipam", module+"plugins/vpcipvlan")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, buildErr := build.CombinedOutput(); buildErr != nil {
		return "", nil, errors.Join(fmt.Errorf("build the programs: %w\n%s", buildErr, out), os.RemoveAll(dir))
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// Worker is an instance of a lab. Its methods are not safe for concurrent use, but for [Worker.Status] and [Worker.CNI].
type Worker struct {
	Name  string
	Netns string // path
	// Dir holds the agent's socket, state and log, and is HOME and the working folder of all processes.
	Dir string
	// Env is added to the environment of the agents that are started from now on.
	Env []string

	bin      string
	agentBin string // of agents
	region   string
	place    *place
	cell     *place // where agents come from instead, once something is mounted for them alone
	agent    *process
}

// New makes the worker's folder, and the thread that its processes come from. Nothing runs yet. The caller closes it,
// before the lab.
func New(l *lab.Running, name, bin string) (w *Worker, err error) {
	w = &Worker{Name: name, Netns: l.Netns[name], bin: bin, agentBin: bin, region: l.Cloud.Region()}
	// Not below the test's own folder: a socket's path has 107 bytes at most (unix(7)).
	if w.Dir, err = os.MkdirTemp("", "multus-vpc-"+name+"-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(w.Dir))
		}
	}()
	if err = os.Mkdir(filepath.Join(w.Dir, "run"), 0o700); err != nil {
		return nil, err
	}
	if w.place, err = enter(w.Netns); err != nil {
		return nil, err
	}
	return w, nil
}

// Close ends the agent if there is one, and removes the worker's folder.
func (w *Worker) Close() error {
	w.Kill()
	if w.cell != nil {
		w.cell.leave()
	}
	w.place.leave()
	return os.RemoveAll(w.Dir)
}

// Socket is where the agent listens.
func (w *Worker) Socket() string { return filepath.Join(w.Dir, "run", "agent", "agent.sock") }

// StateDir is where the agent keeps its ledger.
func (w *Worker) StateDir() string { return filepath.Join(w.Dir, "state") }

// Overmount has the agents that are started from now on see an empty file system of so many bytes at dir, in a mount
// namespace of their own. It is one dir at most.
func (w *Worker) Overmount(dir string, size int) (err error) {
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if w.cell, err = enter(w.Netns); err != nil {
		return err
	}
	return w.cell.overmount(dir, size)
}

// Resize changes the size of what [Worker.Overmount] mounted.
func (w *Worker) Resize(dir string, size int) error { return w.cell.resize(dir, size) }

// Use has agents be started from another folder of programs.
func (w *Worker) Use(bin string) { w.agentBin = bin }

// agents is where agents are started.
func (w *Worker) agents() *place {
	if w.cell != nil {
		return w.cell
	}
	return w.place
}

// Tombstones are the notes that plugins left for the agent.
func (w *Worker) Tombstones() ([]string, error) {
	return filepath.Glob(filepath.Join(filepath.Dir(w.Socket()), agentapi.TombstoneDir, "*.json"))
}

func (w *Worker) logFile() string { return filepath.Join(w.Dir, "agent.log") }

// Log is what the agents of this worker have said so far.
func (w *Worker) Log() string {
	text, err := os.ReadFile(w.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Do runs f in the worker's network namespace, where the agent answers.
func (w *Worker) Do(f func() error) error { return netns.Do(w.Netns, f) }

// Status asks the agent, and waits for one while there is none.
func (w *Worker) Status(ctx context.Context) (*agentapi.Status, error) {
	var resp agentapi.Response
	err := w.Do(func() (err error) {
		resp, err = agentapi.Client{Socket: w.Socket()}.Call(ctx, agentapi.Request{Method: agentapi.MethodStatus})
		return err
	})
	if err == nil && resp.Status == nil {
		err = errors.New("the agent answered without a status")
	}
	return resp.Status, err
}

// pollInterval is far below every period that the agent can be configured with.
const pollInterval = 20 * time.Millisecond

// Await asks the agent until its status is as wanted: want returns "" then, and otherwise what is missing.
func (w *Worker) Await(ctx context.Context, want func(*agentapi.Status) string) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for missing := "a first status"; ; {
		s, err := w.Status(ctx)
		switch {
		case err == nil:
			if missing = want(s); missing == "" {
				return nil
			}
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: still waiting for %s: %w", w.Name, missing, context.Cause(ctx))
		}
	}
}
