// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// initTimeout is how long a program may take until it asks for its first event.
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html (init phase)
const initTimeout = 10 * time.Second

// environment is one program with its runtime API. One invocation uses it at a time.
type environment struct {
	function *function
	program  *exec.Cmd
	server   *http.Server
	api      *runtimeAPI
	started  time.Time
	fresh    bool          // no invocation has used it
	exited   chan struct{} // closed when the program has ended, with exit set
	exit     error
}

// inEnvironment runs one attempt in an environment that is idle, or in a new one.
func (f *function) inEnvironment(ctx context.Context, in invocation, past *Invocation) ([]byte, error) {
	e, err := f.environment(ctx)
	if err != nil {
		return nil, &FunctionError{Type: "Runtime.InvalidEntrypoint", Message: fmt.Sprintf("RequestId: %s Error: %v", in.id, err)}
	}
	if err = e.ready(ctx, in.id); err != nil {
		e.kill()
		return nil, err
	}
	if e.fresh {
		past.Init, e.fresh = time.Since(e.started), false
	}
	past.Start = time.Now()
	answer, err := e.invoke(ctx, in)
	past.Duration = time.Since(past.Start)
	past.MaxMemory = residentPeak(e.program.Process.Pid)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[e] {
		f.idle = append(f.idle, e)
	}
	return answer, err
}

// environment takes the idle environment that was used last, or starts one.
func (f *function) environment(ctx context.Context) (*environment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.idle) > 0 {
		e := f.idle[len(f.idle)-1]
		f.idle = f.idle[:len(f.idle)-1]
		select {
		case <-e.exited:
			delete(f.all, e)
		default:
			return e, nil
		}
	}
	if f.closed {
		return nil, errors.New("the function was deleted")
	}
	e, err := f.start(ctx)
	if err != nil {
		return nil, err
	}
	f.all[e] = true
	return e, nil
}

// start runs the program with a runtime API of its own.
func (f *function) start(ctx context.Context) (*environment, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &environment{function: f, started: time.Now(), fresh: true, exited: make(chan struct{}), api: newRuntimeAPI(f.service.ARN(f.Name))}
	e.server = &http.Server{Handler: e.api, ReadHeaderTimeout: initTimeout}
	e.program = exec.Command(f.Program) // not bound to ctx: it is used again by later invocations
	e.program.Dir = filepath.Dir(f.Program)
	e.program.Env = f.environ(l.Addr().String())
	e.program.Stdout, e.program.Stderr = f.log, f.log
	e.program.WaitDelay = time.Second // its children may have its output open
	if err := e.program.Start(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	go func() { _ = e.server.Serve(l) }() // until the program has ended
	go func() {
		e.exit = e.program.Wait()
		_ = e.server.Close()
		close(e.exited)
	}()
	return e, nil
}

// environ is what the program finds in its environment.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
func (f *function) environ(api string) []string {
	f.service.mu.Lock()
	c := f.service.config
	f.service.mu.Unlock()
	env := []string{
		"AWS_LAMBDA_RUNTIME_API=" + api,
		"AWS_LAMBDA_FUNCTION_NAME=" + f.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=" + strconv.Itoa(f.MemoryMB),
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + f.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME=lab",
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_EXECUTION_ENV=AWS_Lambda_provided.al2023",
		"AWS_REGION=" + c.Region,
		"AWS_DEFAULT_REGION=" + c.Region,
		"AWS_ACCESS_KEY_ID=" + f.Name, // by which the endpoints know who calls
		"AWS_SECRET_ACCESS_KEY=lab",
		"AWS_SESSION_TOKEN=lab",
		"LAMBDA_TASK_ROOT=" + filepath.Dir(f.Program),
		"LAMBDA_RUNTIME_DIR=" + filepath.Dir(f.Program),
		"_HANDLER=bootstrap",
		"PATH=/usr/local/bin:/usr/bin:/bin",
		"LANG=en_US.UTF-8",
		"TZ=:UTC",
	}
	for _, more := range []map[string]string{c.Environment, f.Environment} {
		for k, v := range more {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// ready waits until the program has asked for its first event.
func (e *environment) ready(ctx context.Context, id string) error {
	timer := time.NewTimer(initTimeout)
	defer timer.Stop()
	select {
	case <-e.api.ready:
		return nil
	case <-e.exited:
		if err := e.api.failedInit(); err != nil {
			return err
		}
		return exited(id, e.exit)
	case <-timer.C:
		return &FunctionError{Type: "Sandbox.Timedout", Message: "RequestId: " + id + " Error: Init timed out after 10.00 seconds"}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// invoke hands the program an event and waits for its answer. A program that does not answer in time is killed.
func (e *environment) invoke(ctx context.Context, in invocation) ([]byte, error) {
	timer := time.NewTimer(e.function.Timeout)
	defer timer.Stop()
	h := &handing{invocation: in, deadline: time.Now().Add(e.function.Timeout), done: make(chan outcome, 1)}
	e.api.offer(h)
	select {
	case o := <-h.done:
		return o.answer, o.err
	case <-e.exited:
		select {
		case o := <-h.done: // it answered before it ended
			return o.answer, o.err
		default:
		}
		return nil, exited(in.id, e.exit)
	case <-timer.C:
		e.kill()
		return nil, e.function.timedOut(in.id)
	case <-ctx.Done():
		e.kill()
		return nil, context.Cause(ctx)
	}
}

// kill ends the program at once, and waits until it has.
func (e *environment) kill() {
	e.function.forget(e)
	_ = e.program.Process.Kill() // it may have ended by itself
	<-e.exited
}

func (f *function) forget(e *environment) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, e)
	f.idle = slices.DeleteFunc(f.idle, func(o *environment) bool { return o == e })
}

// close ends all programs, for good.
func (f *function) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.kill()
}

// kill ends all programs of the function.
func (f *function) kill() int {
	f.mu.Lock()
	var all []*environment
	for e := range f.all {
		all = append(all, e)
	}
	f.mu.Unlock()
	for _, e := range all {
		e.kill()
	}
	return len(all)
}

// residentPeak is the most memory that a process has had resident, in bytes, or 0.
// https://docs.kernel.org/filesystems/proc.html (VmHWM)
func residentPeak(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}
