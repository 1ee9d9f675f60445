// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// call is a container's call of a plugin.
type call struct {
	Program string
	Path    string // CNI_PATH
	Command string
	ID      string // of the container
	Netns   string // path of the container's
	From    string // path of the network namespace that the call comes from; empty: this process's
	Config  []byte
}

// answer is what came of it.
type answer struct {
	took   time.Duration
	stdout []byte
	err    error
}

// callTimeout bounds one call. Kubelet gives a pod four minutes, for all of its interfaces.
const callTimeout = time.Minute

// run executes the plugin as a runtime does, but with files instead of pipes: nothing of this process takes part. The
// error is that it could not be run.
func (c call) run() (a answer, err error) {
	var files [3]*os.File
	for i, content := range [][]byte{c.Config, nil, nil} {
		if files[i], err = scratch(content); err != nil {
			return a, err
		}
		defer files[i].Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=" + cmp.Or(c.Path, "/nonexistent"), "CNI_COMMAND=" + c.Command,
		"CNI_CONTAINERID=" + c.ID, "CNI_NETNS=" + c.Netns, "CNI_IFNAME=net1",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=bench-" + c.ID + ";K8S_POD_INFRA_CONTAINER_ID=" + c.ID,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	timed := func() error {
		start := time.Now()
		defer func() { a.took = time.Since(start) }()
		return cmd.Run()
	}
	if c.From == "" {
		err = timed()
	} else {
		err = netns.Do(c.From, timed)
	}
	if ctx.Err() != nil {
		a.err = fmt.Errorf("no answer within %v", callTimeout)
		return a, nil
	}
	exit, failed := errors.AsType[*exec.ExitError](err)
	if err != nil && !failed {
		return a, fmt.Errorf("run %s: %w", c.Program, err)
	}
	a.stdout, err = contents(files[1])
	if failed {
		said, readErr := contents(files[2])
		a.err = fmt.Errorf("%w: %s%s", exit, bytes.TrimSpace(a.stdout), lastLine(said))
		err = errors.Join(err, readErr)
	}
	return a, err
}

// contents are what was written to a scratch file.
func contents(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// lastLine of a log, in brackets; empty when there is none.
func lastLine(log []byte) string {
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return " (" + last + ")"
	}
	return ""
}
