// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// starterArg as only argument makes this program a starter.
const starterArg = "start-plugins"

// starter is a process that runs calls for this one, one after the other. One Go process starts others one by one
// (syscall.ForkLock), and whoever comes last may get the lock first: with many calls at a time out of one process, their
// times would say how they queued there.
type starter struct {
	cmd *exec.Cmd
	in  io.Closer
	to  *json.Encoder
	of  *json.Decoder
}

// reply is a starter's to a call.
type reply struct {
	Took    time.Duration
	Stdout  []byte
	Failure string // of the plugin
	Broken  string // why it could not be run
}

// newStarter starts one. It ends when it is closed, or when this process ends.
func newStarter() (*starter, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &starter{cmd: exec.Command(self, starterArg)}
	s.cmd.Env = []string{"GOMAXPROCS=1"} // its own; the plugins' environment is the call's
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.in, s.to, s.of = in, json.NewEncoder(in), json.NewDecoder(out)
	return s, s.cmd.Start()
}

// run has the call run. The error is that it could not be.
func (s *starter) run(ctx context.Context, c call) (answer, error) {
	defer context.AfterFunc(ctx, func() { _ = s.cmd.Process.Kill() })() // fails only when it has ended; its plugin ends with it
	var r reply
	err := s.to.Encode(c)
	if err == nil {
		err = s.of.Decode(&r)
	}
	switch {
	case ctx.Err() != nil:
		return answer{}, context.Cause(ctx)
	case err != nil:
		return answer{}, fmt.Errorf("a process that starts plugins: %w", err)
	case r.Broken != "":
		return answer{}, errors.New(r.Broken)
	}
	a := answer{took: r.Took, stdout: r.Stdout}
	if r.Failure != "" {
		a.err = errors.New(r.Failure)
	}
	return a, nil
}

func (s *starter) close() error { return errors.Join(s.in.Close(), s.cmd.Wait()) }

// serveCalls is what a starter does.
func serveCalls(stdin io.Reader, stdout, stderr io.Writer) int {
	runtime.LockOSThread() // plugins end with the thread that started them
	requests, replies := json.NewDecoder(stdin), json.NewEncoder(stdout)
	for {
		var c call
		err := requests.Decode(&c)
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err == nil {
			err = replies.Encode(replyTo(c))
		}
		if err != nil {
			fmt.Fprintln(stderr, "bench: start plugins:", err)
			return 1
		}
	}
}

func replyTo(c call) reply {
	a, err := c.run()
	r := reply{Took: a.took, Stdout: a.stdout}
	if a.err != nil {
		r.Failure = a.err.Error()
	}
	if err != nil {
		r.Broken = err.Error()
	}
	return r
}
