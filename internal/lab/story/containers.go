// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// container is one of the suite's containers in a pod: a program in its network namespace.
type container struct {
	cmd   *exec.Cmd
	log   bytes.Buffer // to be read when it has ended
	ended chan struct{}
}

// startContainer starts a program in a pod, with the environment that the injector gives it.
func (s *story) startContainer(ctx context.Context, p *demoPod, program string, env ...string) (*container, error) {
	if !p.served {
		closeAll, err := s.lab.ServePod(ctx, p.worker, p.Netns, s.lab.Front)
		if err != nil {
			return nil, err
		}
		s.closes = append(s.closes, closeAll)
		p.served = true
	}
	c := &container{cmd: exec.Command(filepath.Join(s.cfg.BinDir, program)), ended: make(chan struct{})}
	c.cmd.Env = append([]string{
		"MULTUS_VPC_INTERFACES=net1", "AWS_REGION=" + s.lab.Cloud.Region(),
		"AWS_ENDPOINT_URL_EC2=http://" + lab.EC2InPod.String(), "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + lab.IMDSInPod.String(),
	}, env...)
	c.cmd.Stderr = &c.log
	if err := netns.Do(p.Netns, c.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", program, p.name, err)
	}
	go func() {
		_ = c.cmd.Wait() // its status is in ProcessState
		close(c.ended)
	}()
	return c, nil
}

// end waits for the end of a container, which must be a good one.
func (c *container) end(ctx context.Context) error {
	select {
	case <-c.ended:
	case <-ctx.Done():
		return fmt.Errorf("%s has not ended: %w", filepath.Base(c.cmd.Path), context.Cause(ctx))
	}
	if c.cmd.ProcessState.Success() {
		return nil
	}
	lines := bytes.Split(bytes.TrimSpace(c.log.Bytes()), []byte("\n"))
	return fmt.Errorf("%s: %v: %s", filepath.Base(c.cmd.Path), c.cmd.ProcessState, lines[len(lines)-1])
}

// kill ends the pod's sidecar as the death of its pod does.
func (p *demoPod) kill() {
	if p.sidecar == nil {
		return
	}
	_ = p.sidecar.cmd.Process.Kill() // fails only when it has ended
	<-p.sidecar.ended
}

// stop ends a sidecar as the kubelet does.
func (c *container) stop(ctx context.Context) error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	return c.end(ctx)
}

// each calls f for the named pods, one after the other.
func (s *story) each(names []string, f func(*demoPod) error) error {
	for _, name := range names {
		p := s.pods[name]
		if p == nil {
			return fmt.Errorf("there is no pod %s", name)
		}
		if err := f(p); err != nil {
			return err
		}
	}
	return nil
}
