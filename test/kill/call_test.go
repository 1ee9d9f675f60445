// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

// call is one execution of the plugin.
type call struct {
	command string // ADD or DEL
	netns   string // of the pod
	cmd     *exec.Cmd
	stdout  bytes.Buffer
	stderr  bytes.Buffer

	done  chan struct{}
	ended time.Time // these three are set before done is closed
	err   error
	shot  bool // SIGKILL ended it
}

// errShot says that the plugin was killed: the runtime knows nothing about what it has done.
var errShot = errors.New("the plugin was killed")

// callTimeout is above what a plugin may take, which waits up to 20 s for an agent.
const callTimeout = 60 * time.Second

// calls are a worker's executions in flight.
type calls struct {
	mu   sync.Mutex
	open map[*call]bool
}

func (c *calls) add(x *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*call]bool{}
	}
	c.open[x] = true
}

func (c *calls) remove(x *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, x)
}

func (c *calls) inFlight() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*call
	for x := range c.open {
		list = append(list, x)
	}
	return list
}

// exec runs the plugin for a sandbox and waits for its end.
func (n *node) exec(ctx context.Context, command string, s *sandbox) (*call, error) {
	config, err := json.Marshal(n.wiring.Config(n.agent.socket()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c := &call{command: command, netns: s.path, done: make(chan struct{})}
	c.cmd = exec.CommandContext(ctx, filepath.Join(n.bin, n.wiring.Plugin))
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = bytes.NewReader(config), &c.stdout, &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + s.id, "CNI_NETNS=" + n.cniNetns(s), "CNI_IFNAME=" + stage.IfName, "CNI_PATH=" + n.bin,
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s", s.pod, s.id, s.pod),
	}
	if err = n.place.Do(c.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", n.wiring.Plugin, err)
	}
	n.calls.add(c) // now that it can be shot
	err = c.cmd.Wait()
	if err == nil && command == "ADD" {
		select {
		case n.answered <- struct{}{}:
		default:
		}
	}
	n.calls.remove(c)
	c.ended = time.Now()
	if status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		c.shot = true
		err = errShot
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %v", callTimeout)
	}
	if err != nil {
		c.err = fmt.Errorf("%s of %s on %s: %w: %s%s", command, s.id, n.name, err, bytes.TrimSpace(c.stdout.Bytes()), bytes.TrimSpace(c.stderr.Bytes()))
	}
	close(c.done)
	return c, c.err
}

// shoot kills the plugin. Whether that met a living process shows in shot, after done.
func (c *call) shoot() {
	_ = c.cmd.Process.Kill() // fails only when the process has ended
}
