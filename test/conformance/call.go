// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// callTimeout is a runtime's patience for one call: a fraction of the four minutes that kubelet has for a pod.
const callTimeout = time.Minute

// call is one execution of a plugin. Its zero fields are what a runtime that makes no mistakes would send.
type call struct {
	command string
	at      *attachment // nil for VERSION, STATUS and GC
	config  object      // merged into the configuration; nil as a value removes a key
	env     map[string]string
	stdin   []byte   // instead of the configuration
	stdout  *os.File // instead of being read
	program string   // instead of the subject's
}

// reply is how it ended.
type reply struct {
	command        string
	code           int
	stdout, stderr []byte
}

// do executes the plugin as a runtime does: a process of its own, parameters in the environment, the configuration on
// standard input. The error is that it did not end.
func (k *kit) do(c call) (reply, error) {
	ctx, cancel := context.WithTimeoutCause(k.ctx, callTimeout, fmt.Errorf("no answer within %v", callTimeout))
	defer cancel()
	program := c.program
	if program == "" {
		program = k.subject.Program
	}
	file, err := k.subject.program(program)
	if err != nil {
		return reply{}, err
	}
	stdin := c.stdin
	if stdin == nil {
		if stdin, err = json.Marshal(k.config(c)); err != nil {
			return reply{}, err
		}
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, file)
	cmd.Env = k.env(c)
	cmd.Dir = k.ground.dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = k.ground.do(cmd.Run)
	if ctx.Err() != nil {
		return reply{}, fmt.Errorf("%s: %w", c.command, context.Cause(ctx))
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return reply{}, fmt.Errorf("%s: %w", c.command, err)
	}
	return reply{c.command, cmd.ProcessState.ExitCode(), stdout.Bytes(), stderr.Bytes()}, nil
}

func (k *kit) config(c call) object {
	n := 0
	if c.at != nil {
		n = c.at.n
	}
	o := merge(k.subject.Config(n), object{"cniVersion": k.version, "name": k.network})
	return merge(o, c.config)
}

// merge returns a with b on top, objects inside likewise.
func merge(a, b object) object {
	out := object{}
	maps.Copy(out, a)
	for key, value := range b {
		inner, isObject := value.(object)
		under, has := out[key].(object)
		switch {
		case value == nil:
			delete(out, key)
		case isObject && has:
			out[key] = merge(under, inner)
		default:
			out[key] = value
		}
	}
	return out
}

func (k *kit) env(c call) []string {
	env := map[string]string{"CNI_COMMAND": c.command, "CNI_PATH": strings.Join(k.subject.Path, ":")}
	if c.at != nil {
		env["CNI_CONTAINERID"], env["CNI_IFNAME"], env["CNI_NETNS"] = c.at.id, c.at.ifName, c.at.netns
		env["CNI_ARGS"] = c.at.args()
	}
	maps.Copy(env, c.env)
	list := append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + k.ground.dir, "TMPDIR=" + k.ground.dir}, k.subject.Env...)
	for key, value := range env {
		if value != "" {
			list = append(list, key+"="+value)
		}
	}
	return list
}

// done is nil when the call succeeded.
func (r reply) done() error {
	if r.code == 0 {
		return nil
	}
	e, err := r.refusal()
	if err != nil {
		return fmt.Errorf("%s failed: exit status %d, %s", r.command, r.code, oneLine(string(r.stdout)+" "+string(r.stderr)))
	}
	return fmt.Errorf("%s failed with code %d: %s", r.command, e.Code, oneLine(strings.TrimSuffix(e.Msg+"; "+e.Details, "; ")))
}

// refused is an error object.
// https://github.com/containernetworking/cni/blob/main/SPEC.md#error
type refused struct {
	CNIVersion string `json:"cniVersion"`
	Code       *uint  `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details"`
}

// refusal reads the one error object of a call that failed.
func (r reply) refusal() (e struct {
	refused
	Code uint
}, err error,
) {
	if r.code == 0 {
		return e, fmt.Errorf("%s succeeded", r.command)
	}
	if err = one(r.stdout, &e.refused); err != nil {
		return e, fmt.Errorf("%s failed, and stdout is not one error object: %w", r.command, err)
	}
	if e.refused.Code == nil || e.Msg == "" {
		return e, fmt.Errorf("%s failed, and its error object has no code or no msg: %s", r.command, oneLine(string(r.stdout)))
	}
	e.Code = *e.refused.Code
	return e, nil
}

// one decodes a single JSON document.
func one(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%w in %q", err, oneLine(string(text)))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("more than one document in %q", oneLine(string(text)))
	}
	return nil
}

// oneLine is for a table's notes.
func oneLine(s string) string {
	const longest = 160
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return s
}
