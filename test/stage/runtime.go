// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Runtime executes the plugin for the pods of one worker, as a container runtime does. Its fields are set before its first
// call and do not change; its methods are safe for concurrent use.
type Runtime struct {
	Worker string // name
	Place  *Place
	Wiring Wiring
	Bin    string // folder of the programs
	Socket string // the agent's

	serial atomic.Int64
	mu     sync.Mutex
	open   map[*Call]bool
}

// Sandbox is one life of a pod: a container ID and a network namespace.
type Sandbox struct {
	Pod  string // the pod's name, which outlives the sandbox
	ID   string
	File string     // of the namespace, in its worker's folder
	Path string     // the same, as the tests see it
	Addr netip.Addr // what ADD returned; invalid before
	Gone bool       // the namespace is no more
	// Result is what ADD printed.
	Result []byte
}

// Call is one execution of the plugin.
type Call struct {
	Command string // CNI_COMMAND
	Netns   string // of the pod
	Stdout  bytes.Buffer
	Stderr  bytes.Buffer

	Done  chan struct{}
	Ended time.Time // these three are set before Done is closed
	Err   error
	Shot  bool // SIGKILL ended it

	cmd *exec.Cmd
}

// ErrShot says that the plugin was killed: the runtime knows nothing about what it has done.
var ErrShot = errors.New("the plugin was killed")

// callTimeout is above what a plugin may take, which waits up to 20 s for an agent.
const callTimeout = 60 * time.Second

// NewSandbox makes a namespace for a pod, in the file of that name, or of the container ID.
func (r *Runtime) NewSandbox(podName, file string) (*Sandbox, error) {
	s := &Sandbox{Pod: podName, ID: fmt.Sprintf("%s-%d", podName, r.serial.Add(1)), File: file}
	if file == "" {
		s.File = s.ID
	}
	var err error
	if s.Path, err = r.Place.Create(s.File); err != nil {
		return nil, err
	}
	return s, nil
}

// PodName is a name that no pod had.
func (r *Runtime) PodName() string { return fmt.Sprintf("%s-p%d", r.Worker, r.serial.Add(1)) }

// RemoveNetns takes a pod's namespace away.
func (r *Runtime) RemoveNetns(s *Sandbox) error {
	s.Gone = true
	return r.Place.Remove(s.File)
}

// cniNetns is what the runtime says in CNI_NETNS: nothing when it knows that the namespace is gone.
func (r *Runtime) cniNetns(s *Sandbox) string {
	if s.Gone {
		return ""
	}
	return r.Place.Inside(s.File)
}

// Exec runs the plugin for a sandbox and waits for its end. Keys of more replace those of the wiring's configuration.
// The error is what the plugin said, or [ErrShot], or that it did not answer.
func (r *Runtime) Exec(ctx context.Context, command string, s *Sandbox, more map[string]any) (*Call, error) {
	env := []string{
		"CNI_CONTAINERID=" + s.ID, "CNI_NETNS=" + r.cniNetns(s), "CNI_IFNAME=" + IfName,
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s", s.Pod, s.ID, s.Pod),
	}
	return r.exec(ctx, &Call{Command: command, Netns: s.Path, Done: make(chan struct{})}, s.ID, env, more)
}

// ExecAll runs a command that is about no sandbox: GC or STATUS.
func (r *Runtime) ExecAll(ctx context.Context, command string, more map[string]any) (*Call, error) {
	return r.exec(ctx, &Call{Command: command, Done: make(chan struct{})}, "all", nil, more)
}

func (r *Runtime) exec(ctx context.Context, c *Call, what string, env []string, more map[string]any) (*Call, error) {
	config := r.Wiring.Config(r.Socket)
	maps.Copy(config, more)
	stdin, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c.cmd = exec.CommandContext(ctx, filepath.Join(r.Bin, r.Wiring.Plugin))
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = bytes.NewReader(stdin), &c.Stdout, &c.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Env = append(env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND="+c.Command, "CNI_PATH="+r.Bin)
	if err = r.Place.Do(c.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", r.Wiring.Plugin, err)
	}
	r.add(c) // now that it can be shot
	err = c.cmd.Wait()
	r.remove(c)
	c.Ended = time.Now()
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		c.Shot = true
		err = ErrShot
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
	if err != nil {
		c.Err = fmt.Errorf("%s of %s on %s: %w: %s%s", c.Command, what, r.Worker, err, bytes.TrimSpace(c.Stdout.Bytes()), bytes.TrimSpace(c.Stderr.Bytes()))
	}
	close(c.Done)
	return c, c.Err
}

// Shoot kills the plugin. Whether that met a living process shows in Shot, after Done.
func (c *Call) Shoot() {
	_ = c.cmd.Process.Kill() // fails only when the process has ended
}

func (r *Runtime) add(c *Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[*Call]bool{}
	}
	r.open[c] = true
}

func (r *Runtime) remove(c *Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
}

// InFlight are the executions that have not ended.
func (r *Runtime) InFlight() []*Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*Call
	for c := range r.open {
		list = append(list, c)
	}
	return list
}
