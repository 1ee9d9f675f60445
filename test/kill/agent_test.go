// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// agent is one worker's agent, through all its lives.
type agent struct {
	place *stage.Place
	netns string // path
	dir   string // socket, ledger, configuration, log
	bin   string
	env   []string
	died  func(error) // told of an end that nobody asked for

	mu  sync.Mutex
	now *life // nil while there is none
}

// life is one process.
type life struct {
	cmd    *exec.Cmd
	log    *os.File
	asked  bool // its end is wanted; guarded by agent.mu
	ended  chan struct{}
	result error
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

func (a *agent) socket() string     { return filepath.Join(a.dir, "run", "agent", "agent.sock") }
func (a *agent) stateDir() string   { return filepath.Join(a.dir, "state") }
func (a *agent) ledger() string     { return filepath.Join(a.stateDir(), "ledger") }
func (a *agent) logFile() string    { return filepath.Join(a.dir, "agent.log") }
func (a *agent) configFile() string { return filepath.Join(a.dir, "agent.yaml") }
func (a *agent) tombstones() string {
	return filepath.Join(filepath.Dir(a.socket()), agentapi.TombstoneDir)
}

// prepare writes what the agent needs before its first life.
func (a *agent) prepare() error {
	if err := os.MkdirAll(filepath.Dir(filepath.Dir(a.socket())), 0o700); err != nil {
		return err
	}
	return os.WriteFile(a.configFile(), []byte(agentConfig), 0o600)
}

// start begins a life.
func (a *agent) start() error {
	log, err := os.OpenFile(a.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(a.bin, "agent"),
		"--socket", a.socket(), "--state-dir", a.stateDir(), "--config", a.configFile(), "--metrics-address", "")
	cmd.Env = append([]string{
		fmt.Sprintf("AWS_ENDPOINT_URL_EC2=http://%s:%d", lab.EC2InWorker.Addr(), ec2Port),
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + lab.IMDSInWorker.String(),
	}, a.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.place.Do(cmd.Start); err != nil {
		return errors.Join(fmt.Errorf("start the agent: %w", err), log.Close())
	}
	l := &life{cmd: cmd, log: log, ended: make(chan struct{})}
	a.mu.Lock()
	a.now = l
	a.mu.Unlock()
	go a.watch(l)
	return nil
}

func (a *agent) watch(l *life) {
	err := l.cmd.Wait()
	a.mu.Lock()
	asked := l.asked
	a.mu.Unlock()
	l.result = errors.Join(err, l.log.Close())
	if !asked {
		a.died(fmt.Errorf("the agent ended by itself: %w", l.result))
	}
	close(l.ended)
}

// end sends the current life a signal and waits until it is over. It reports whether the process was there to get it.
func (a *agent) end(sig syscall.Signal) (hit bool) {
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

// status asks the living agent, and waits for one while there is none.
func (a *agent) status(ctx context.Context) (s *agentapi.Status, err error) {
	err = netns.Do(a.netns, func() error {
		resp, callErr := agentapi.Client{Socket: a.socket()}.Call(ctx, agentapi.Request{Method: agentapi.MethodStatus})
		s = resp.Status
		return callErr
	})
	if err == nil && s == nil {
		err = errors.New("the agent answered without a status")
	}
	return s, err
}
