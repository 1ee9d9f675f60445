// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
)

// process is an agent that runs.
type process struct {
	cmd    *exec.Cmd
	log    *os.File
	ended  chan struct{}
	result error // after ended
}

// stopTimeout is far above what an agent needs to end its requests.
const stopTimeout = 10 * time.Second

// Start starts an agent with the configuration, in the YAML of --config. It returns at once: [Worker.Status] waits until
// the agent answers.
func (w *Worker) Start(config string) error {
	if w.agent != nil {
		return fmt.Errorf("%s has an agent", w.Name)
	}
	cmd, err := w.agentCommand(config)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(w.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := w.agents().do(cmd.Start); err != nil {
		return errors.Join(fmt.Errorf("start the agent of %s: %w", w.Name, err), log.Close())
	}
	p := &process{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.result = errors.Join(cmd.Wait(), log.Close())
	}()
	w.agent = p
	return nil
}

func (w *Worker) agentCommand(config string) (*exec.Cmd, error) {
	file := filepath.Join(w.Dir, "agent.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(w.agentBin, "agent"),
		"--socket", w.Socket(), "--state-dir", w.StateDir(), "--config", file, "--metrics-address", "")
	cmd.Dir = w.Dir
	cmd.Env = append(w.env(),
		"AWS_REGION="+w.region,
		"AWS_ENDPOINT_URL_EC2=http://"+lab.EC2InWorker.String(),
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://"+lab.IMDSInWorker.String())
	cmd.Env = append(cmd.Env, w.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

func (w *Worker) env() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + w.Dir, "TMPDIR=" + w.Dir}
}

// RunAgent runs one more agent with the same socket and state, unless flags say otherwise, until it ends by itself, and returns what it said. The
// error is that it did not end before ctx did.
func (w *Worker) RunAgent(ctx context.Context, config string, flags ...string) (code int, stderr string, err error) {
	cmd, err := w.agentCommand(config)
	if err != nil {
		return 0, "", err
	}
	cmd.Args = append(cmd.Args, flags...)
	var out bytes.Buffer
	cmd.Stderr = &out
	if err = w.agents().do(cmd.Start); err != nil {
		return 0, "", err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })() // fails only when it has ended
	err = cmd.Wait()
	if ctx.Err() != nil {
		return 0, out.String(), context.Cause(ctx)
	}
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		err = nil
	}
	return cmd.ProcessState.ExitCode(), out.String(), err
}

// Stop ends the agent as the kubelet does, by SIGTERM. The error is that it did not exit with 0.
func (w *Worker) Stop() error {
	p := w.agent
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-p.ended:
		w.agent = nil
		return p.result
	case <-late.C:
		w.Kill()
		return fmt.Errorf("the agent of %s did not end within %v of SIGTERM", w.Name, stopTimeout)
	}
}

// Kill ends the agent by SIGKILL, and returns when it is gone. Without an agent it does nothing.
func (w *Worker) Kill() {
	if w.agent == nil {
		return
	}
	_ = w.agent.cmd.Process.Kill() // fails only when it has ended
	<-w.agent.ended
	w.agent = nil
}
