// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package worker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Call is one call of a CNI plugin.
type Call struct {
	Plugin      string // vpcipam or vpcipvlan
	Bin         string // folder of the plugin; empty means the worker's
	Command     string // CNI_COMMAND
	ContainerID string
	Netns       string // path; empty when the runtime knows that it is gone
	IfName      string
	Pod         string // name of the Kubernetes pod; empty outside Kubernetes
	UID         string // of the Kubernetes pod; default: its name
	Config      []byte // standard input
}

// Answer is what a plugin said.
type Answer struct {
	Code           int // exit status
	Stdout, Stderr []byte
}

// Refusal is the error that a plugin prints.
// https://github.com/containernetworking/cni/blob/main/SPEC.md#error
type Refusal struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details"`
}

// CNI executes the plugin as a runtime on the worker does. The error is that it could not be run to its end.
func (w *Worker) CNI(ctx context.Context, c Call) (Answer, error) {
	cmd := exec.Command(filepath.Join(cmp.Or(c.Bin, w.bin), c.Plugin))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Config), &stdout, &stderr
	cmd.Dir = w.Dir
	cmd.Env = append(w.env(), "MULTUS_VPC_AGENT_SOCKET="+w.Socket(), "CNI_PATH="+w.bin,
		"CNI_COMMAND="+c.Command, "CNI_CONTAINERID="+c.ContainerID, "CNI_NETNS="+c.Netns, "CNI_IFNAME="+c.IfName)
	if c.Pod != "" {
		cmd.Env = append(cmd.Env, fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_UID=%s;K8S_POD_INFRA_CONTAINER_ID=%s",
			c.Pod, cmp.Or(c.UID, c.Pod), c.ContainerID))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := w.place.do(cmd.Start); err != nil {
		return Answer{}, fmt.Errorf("start %s: %w", c.Plugin, err)
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })() // fails only when it has ended
	err := cmd.Wait()
	if ctx.Err() != nil {
		return Answer{}, fmt.Errorf("%s %s: %w", c.Plugin, c.Command, context.Cause(ctx))
	}
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		err = nil
	}
	return Answer{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}, err
}

// Err is nil when the plugin succeeded.
func (a Answer) Err() error {
	if a.Code == 0 {
		return nil
	}
	return fmt.Errorf("exit status %d: %s%s", a.Code, bytes.TrimSpace(a.Stdout), bytes.TrimSpace(a.Stderr))
}

// Refusal reads the error that a plugin printed when it failed.
func (a Answer) Refusal() (Refusal, error) {
	if a.Code == 0 {
		return Refusal{}, fmt.Errorf("the plugin succeeded: %s", a.Stdout)
	}
	var r Refusal
	if err := json.Unmarshal(a.Stdout, &r); err != nil || r.Code == 0 || r.Msg == "" {
		return r, fmt.Errorf("stdout has no CNI error: %q (stderr %q)", a.Stdout, a.Stderr)
	}
	return r, nil
}

// Address reads the one address of an ADD's result.
func (a Answer) Address() (netip.Prefix, error) {
	if err := a.Err(); err != nil {
		return netip.Prefix{}, err
	}
	var r struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(a.Stdout, &r); err != nil {
		return netip.Prefix{}, fmt.Errorf("read the result: %w: %s", err, a.Stdout)
	}
	if len(r.IPs) != 1 {
		return netip.Prefix{}, fmt.Errorf("the result has not one address: %s", a.Stdout)
	}
	return r.IPs[0].Address, nil
}
