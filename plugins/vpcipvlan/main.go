// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command vpcipvlan is a CNI plugin that gives pods interfaces on the worker's ENIs: ipvlan children in mode l2 on the
// ENI that the configuration selects, with source routing. With `ipam.type` vpcipam it asks the node's agent for
// addresses itself, any other IPAM plugin is executed. It stands first in its chain and keeps no state.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/link"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/internal/netns"
	"github.com/multus-vpc/multus-vpc/plugins/internal/ipam"
	"github.com/multus-vpc/multus-vpc/plugins/internal/process"
)

// kernelTimeout is for the work on links, which takes milliseconds and may wait 2 s for an address to come free.
const kernelTimeout = 10 * time.Second

func main() {
	process.OutliveReaders()
	os.Exit(run(os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

func run(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx := context.Background() // runtimes that lose patience kill; the DEL that follows removes what is there
	p := plugin{getenv: getenv, stdout: stdout, stderr: stderr}
	answers := func(do func(context.Context, process.Call) error) func(process.Call) error {
		return func(c process.Call) error { return answer(do(ctx, c)) }
	}
	return process.Plugin{
		About: "CNI plugin vpcipvlan of multus-vpc",
		Add:   answers(p.add), Del: answers(p.del), Check: answers(p.check), Status: answers(p.status), GC: answers(p.gc),
	}.Run(getenv, stdin, stdout, stderr)
}

type plugin struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

func (p plugin) agentOf(rel netconf.Release) ipam.Agent {
	return ipam.Agent{Socket: rel.AgentSocket, Stderr: p.stderr}
}

// call is one ADD, CHECK or STATUS.
type call struct {
	process.Call
	conf  netconf.VPCIpvlan
	about attachment.Attachment
	agent ipam.Agent
}

// open is a call about an attachment. The caller hangs up in the end, also after an error.
func (p plugin) open(ctx context.Context, from process.Call) (call, error) {
	c, err := p.read(from)
	if err != nil {
		return c, err
	}
	if c.conf.IPAMType == netconf.TypeVPCIPAM {
		c.agent = c.agent.Connect(ctx)
	}
	c.about, err = ipam.Describe(from, c.conf.Name, c.conf.Pod)
	return c, err
}

// read is a call about no attachment.
func (p plugin) read(from process.Call) (call, error) {
	conf, err := from.Config.VPCIpvlan(ipam.Env(from.Args, p.getenv))
	agent := ipam.Agent{Socket: conf.IPAM.AgentSocket, Timeout: conf.IPAM.Timeout, Stderr: p.stderr}
	return call{Call: from, conf: conf, agent: agent}, err
}

// add allocates, then makes the interface, then prints the result; each step is undone when a later one fails.
func (p plugin) add(ctx context.Context, from process.Call) (err error) {
	c, err := p.open(ctx, from)
	defer c.agent.Hangup()
	if err != nil {
		return err
	}
	prev, _, err := ipam.PrevResult(from)
	if err != nil {
		return err
	}
	// Asked before anything is allocated: undoing the second ADD of a living attachment would free its addresses.
	if err = link.Vacant(from.Netns, c.about.Key); err != nil {
		return err
	}
	g, err := c.allocate(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && !errors.Is(err, link.ErrExists) {
			err = withUndo(err, g.release(context.WithoutCancel(ctx)))
		}
	}()
	if c.conf.MTU > g.master.MTU {
		return types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("mtu: %d exceeds that of link %s, %d; write at most that, or 0", c.conf.MTU, g.master.Name, g.master.MTU), "")
	}
	kernel, cancel := context.WithTimeout(ctx, kernelTimeout)
	defer cancel()
	made, err := link.Add(kernel, c.child(g))
	if err != nil {
		return err
	}
	if err = c.result(g, made, prev).PrintTo(p.stdout, c.conf.CNIVersion); err != nil {
		return withUndo(fmt.Errorf("print the result: %w", err), link.Del(from.Netns, c.about.Key))
	}
	return nil
}

// del removes the interface first, so that no address is given to another pod while this one still has it. What the agent
// registered is given back before the IPAM plugin that gave it can give it again.
func (p plugin) del(ctx context.Context, from process.Call) error {
	rel := from.Config.Release(ipam.Env(from.Args, p.getenv))
	key := ipam.Key(from)
	if err := removeLink(from, key); err != nil {
		return err
	}
	if rel.Registered {
		p.agentOf(rel).Release(ctx, attachment.Attachment{Key: key, Network: rel.Name})
	}
	if rel.Foreign() {
		if err := invoke.DelegateDel(ctx, rel.IPAMType, from.Stdin, nil); err != nil {
			return err
		}
	}
	return ipam.Elsewhere(from)
}

// removeLink does nothing in the plugin's own namespace, where the call is refused afterwards.
func removeLink(from process.Call, key attachment.Key) error {
	if from.Netns == "" {
		return nil
	}
	if own, err := netns.IsOwn(from.Netns); err != nil || own {
		return err
	}
	return link.Del(from.Netns, key)
}

func (p plugin) check(ctx context.Context, from process.Call) error {
	c, err := p.open(ctx, from)
	defer c.agent.Hangup()
	if err != nil {
		return err
	}
	expected, err := ipam.Expected(from)
	if err != nil {
		return err
	}
	master, err := c.checkIPAM(ctx, expected)
	if err != nil {
		return err
	}
	return link.Check(c.child(grant{master: master, addresses: expected.Addresses, routes: expected.Routes}))
}

func (p plugin) status(ctx context.Context, from process.Call) error {
	c, err := p.read(from)
	if err != nil {
		return err
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	if c.conf.IPAMType == netconf.TypeVPCIPAM {
		return nil
	}
	return invoke.DelegateStatus(ctx, c.conf.IPAMType, from.Stdin, nil)
}

// ready is nil when the agent can do its part of an ADD.
func (c call) ready(ctx context.Context) error {
	q, err := c.query()
	switch {
	case err != nil:
		return ipam.Unavailable(err)
	case c.conf.IPAMType == netconf.TypeVPCIPAM:
		return c.agent.Ready(ctx, q)
	case c.conf.Register || c.conf.Master == "":
		return c.agent.Reachable(ctx, q)
	}
	return nil
}

// gc goes on after an error and reports all of them at the end.
func (p plugin) gc(ctx context.Context, from process.Call) error {
	valid, err := from.Config.Valid()
	if err != nil {
		return err
	}
	rel := from.Config.Release(ipam.Env(from.Args, p.getenv))
	if rel.Registered {
		err = p.agentOf(rel).GC(ctx, rel.Name, valid)
	}
	if rel.Foreign() {
		if foreign := invoke.DelegateGC(ctx, rel.IPAMType, from.Stdin, nil); err == nil {
			err = foreign
		} else if foreign != nil {
			err = also(err, "IPAM plugin "+rel.IPAMType, foreign)
		}
	}
	return err
}

// coded gives the errors of package link their CNI codes, and others those that every plugin uses.
func coded(err error) *types.Error {
	code := uint(0)
	_, difference := errors.AsType[*link.Difference](err)
	_, mode := errors.AsType[*link.ModeError](err)
	switch {
	case difference:
		code = agentapi.CodeCheckFailed
	case mode:
		code = agentapi.CodeMasterMode
	case errors.Is(err, link.ErrExists):
		code = types.ErrInvalidEnvironmentVariables
	case errors.Is(err, unix.EADDRINUSE), errors.Is(err, link.ErrMaster):
		code = types.ErrTryAgainLater
	default:
		return ipam.Coded(err)
	}
	return types.NewError(code, err.Error(), "")
}

// answer is what is printed; a nil *types.Error must not become an error.
func answer(err error) error {
	if err == nil {
		return nil
	}
	return coded(err)
}

// withUndo keeps the first error's code and says what its undoing met.
func withUndo(err, undo error) error {
	if undo == nil {
		return err
	}
	return also(err, "undoing it", undo)
}

// also adds a second error to the details of the first, which keeps its code.
func also(err error, what string, second error) error {
	e := coded(err)
	return types.NewError(e.Code, e.Msg, strings.TrimPrefix(fmt.Sprintf("%s; %s: %v", e.Details, what, second), "; "))
}
