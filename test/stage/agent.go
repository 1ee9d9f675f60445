// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// Agent is one worker's agent, through all its lives. Its fields are set before [Agent.Prepare] and do not change.
type Agent struct {
	Place  *Place
	Netns  string // path
	Dir    string // socket, ledger, configuration, log
	Bin    string // folder of the programs
	Config string // YAML of --config
	Env    []string
	// Died is told of an end that nobody asked for.
	Died func(error)

	mu  sync.Mutex
	now *life // nil while there is none
}

// life is one process.
type life struct {
	cmd    *exec.Cmd
	log    *os.File
	asked  bool // its end is wanted; guarded by Agent.mu
	ended  chan struct{}
	result error
}

// Socket is where the agent listens.
func (a *Agent) Socket() string { return filepath.Join(a.Dir, "run", "agent", "agent.sock") }

// StateDir is where the agent keeps its ledger.
func (a *Agent) StateDir() string { return filepath.Join(a.Dir, "state") }

// Ledger is the ledger's file.
func (a *Agent) Ledger() string { return filepath.Join(a.StateDir(), "ledger") }

// LogFile has what the agents of all lives have said.
func (a *Agent) LogFile() string { return filepath.Join(a.Dir, "agent.log") }

// Tombstones is the folder of the notes that plugins left for the agent.
func (a *Agent) Tombstones() string {
	return filepath.Join(filepath.Dir(a.Socket()), agentapi.TombstoneDir)
}

func (a *Agent) configFile() string { return filepath.Join(a.Dir, "agent.yaml") }

// Prepare writes what the agent needs before its first life.
func (a *Agent) Prepare() error {
	if err := os.MkdirAll(filepath.Dir(filepath.Dir(a.Socket())), 0o700); err != nil {
		return err
	}
	return os.WriteFile(a.configFile(), []byte(a.Config), 0o600)
}

// Start begins a life.
func (a *Agent) Start() error {
	log, err := os.OpenFile(a.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(a.Bin, "agent"),
		"--socket", a.Socket(), "--state-dir", a.StateDir(), "--config", a.configFile(), "--metrics-address", "")
	cmd.Env = a.Env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.Place.Do(cmd.Start); err != nil {
		return errors.Join(fmt.Errorf("start the agent: %w", err), log.Close())
	}
	l := &life{cmd: cmd, log: log, ended: make(chan struct{})}
	a.mu.Lock()
	a.now = l
	a.mu.Unlock()
	go a.watch(l)
	return nil
}

func (a *Agent) watch(l *life) {
	err := l.cmd.Wait()
	l.result = errors.Join(err, l.log.Close())
	a.mu.Lock()
	asked := l.asked
	if a.now == l {
		a.now = nil
	}
	a.mu.Unlock()
	close(l.ended)
	if !asked {
		a.Died(fmt.Errorf("the agent ended by itself: %w", l.result))
	}
}

// Signal sends the current life a signal that does not end it. Without one it does nothing.
func (a *Agent) Signal(sig syscall.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now != nil {
		_ = a.now.cmd.Process.Signal(sig) // fails only when the process has ended
	}
}

// End sends the current life a signal and waits until it is over. It reports whether the process was there to get it, and
// for other signals than SIGKILL whether it then ended in order.
func (a *Agent) End(sig syscall.Signal) (hit bool) {
	a.mu.Lock()
	l := a.now
	if l == nil {
		a.mu.Unlock()
		return false
	}
	a.now, l.asked = nil, true
	a.mu.Unlock()
	_ = l.cmd.Process.Signal(sig) // fails only when the process has ended, which its status tells
	<-l.ended
	status, ok := l.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && (status.Signaled() && status.Signal() == sig || sig != syscall.SIGKILL && status.ExitStatus() == 0)
}

// Status asks the living agent, and waits for one while there is none.
func (a *Agent) Status(ctx context.Context) (s *agentapi.Status, err error) {
	err = netns.Do(a.Netns, func() error {
		resp, callErr := agentapi.Client{Socket: a.Socket()}.Call(ctx, agentapi.Request{Method: agentapi.MethodStatus})
		s = resp.Status
		return callErr
	})
	if err == nil && s == nil {
		err = errors.New("the agent answered without a status")
	}
	return s, err
}
