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
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/link"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/internal/netns"
	"github.com/multus-vpc/multus-vpc/plugins/internal/ipam"
)

// kernelTimeout is for the work on links, which takes milliseconds and may wait 2 s for an address to come free.
const kernelTimeout = 10 * time.Second

func main() { os.Exit(run(os.Getenv, os.Stdout, os.Stderr)) }

// run serves one call; skel itself reads CNI_* and the configuration from the process.
func run(getenv func(string) string, stdout, stderr io.Writer) int {
	ctx := context.Background() // runtimes that lose patience kill; the DEL that follows removes what is there
	p := plugin{getenv: getenv, stdout: stdout, stderr: stderr}
	funcs := skel.CNIFuncs{
		Add:    func(args *skel.CmdArgs) error { return answer(p.add(ctx, args)) },
		Del:    func(args *skel.CmdArgs) error { return answer(p.del(ctx, args)) },
		Check:  func(args *skel.CmdArgs) error { return answer(p.check(ctx, args)) },
		Status: func(args *skel.CmdArgs) error { return answer(p.status(ctx, args)) },
		GC:     func(args *skel.CmdArgs) error { return answer(p.gc(ctx, args)) },
	}
	return ipam.Main(funcs, "CNI plugin vpcipvlan of multus-vpc", getenv, stdout, stderr)
}

type plugin struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

func (p plugin) agentOf(rel netconf.Release) ipam.Agent {
	return ipam.Agent{Socket: rel.AgentSocket, Stderr: p.stderr}
}

// call is one ADD or CHECK.
type call struct {
	args  *skel.CmdArgs
	conf  netconf.VPCIpvlan
	about attachment.Attachment
	agent ipam.Agent
}

func (p plugin) open(args *skel.CmdArgs) (call, error) {
	c, err := p.read(args)
	if err != nil {
		return call{}, err
	}
	c.about, err = ipam.Describe(args, c.conf.Name, c.conf.Pod)
	return c, err
}

// read is a call about no attachment.
func (p plugin) read(args *skel.CmdArgs) (call, error) {
	conf, err := netconf.ParseVPCIpvlan(args.StdinData, ipam.Env(args.Args, p.getenv))
	agent := ipam.Agent{Socket: conf.IPAM.AgentSocket, Timeout: conf.IPAM.Timeout, Stderr: p.stderr}
	return call{args: args, conf: conf, agent: agent}, err
}

// add allocates, then makes the interface, then prints the result; each step is undone when a later one fails.
func (p plugin) add(ctx context.Context, args *skel.CmdArgs) (err error) {
	c, err := p.open(args)
	if err != nil {
		return err
	}
	prev, err := ipam.PrevResult(args.StdinData)
	if err != nil {
		return err
	}
	// Asked before anything is allocated: undoing the second ADD of a living attachment would free its addresses.
	if err = link.Vacant(args.Netns, c.about.Key); err != nil {
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
	if err = ipam.Print(c.result(g, made, prev), c.conf.CNIVersion, p.stdout); err != nil {
		return withUndo(fmt.Errorf("print the result: %w", err), link.Del(args.Netns, c.about.Key))
	}
	return nil
}

// del removes the interface first, so that no address is given to another pod while this one still has it. What the agent
// registered is given back before the IPAM plugin that gave it can give it again.
func (p plugin) del(ctx context.Context, args *skel.CmdArgs) error {
	rel := netconf.ParseRelease(args.StdinData, ipam.Env(args.Args, p.getenv))
	key := ipam.Key(args)
	if err := removeLink(args, key); err != nil {
		return err
	}
	if rel.Registered {
		p.agentOf(rel).Release(ctx, attachment.Attachment{Key: key, Network: rel.Name})
	}
	if rel.Foreign() {
		return invoke.DelegateDel(ctx, rel.IPAMType, args.StdinData, nil)
	}
	return nil
}

// removeLink does nothing in the plugin's own namespace, where skel refuses the call afterwards.
func removeLink(args *skel.CmdArgs, key attachment.Key) error {
	if args.Netns == "" {
		return nil
	}
	ns, err := netns.Identify(args.Netns)
	if netns.Missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if own, ownErr := ipam.IsOwn(ns); ownErr != nil || own {
		return ownErr
	}
	return link.Del(args.Netns, key)
}

func (p plugin) check(ctx context.Context, args *skel.CmdArgs) error {
	c, err := p.open(args)
	if err != nil {
		return err
	}
	expected, err := ipam.Expected(args.StdinData, c.about)
	if err != nil {
		return err
	}
	master, err := c.checkIPAM(ctx, expected)
	if err != nil {
		return err
	}
	return link.Check(c.child(grant{master: master, addresses: expected.Addresses, routes: expected.Routes}))
}

func (p plugin) status(ctx context.Context, args *skel.CmdArgs) error {
	c, err := p.read(args)
	if err != nil {
		return err
	}
	if err := c.ready(ctx); err != nil {
		return err
	}
	if c.conf.IPAMType == netconf.TypeVPCIPAM {
		return nil
	}
	return invoke.DelegateStatus(ctx, c.conf.IPAMType, args.StdinData, nil)
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
func (p plugin) gc(ctx context.Context, args *skel.CmdArgs) error {
	valid, err := netconf.ParseValid(args.StdinData)
	if err != nil {
		return err
	}
	rel := netconf.ParseRelease(args.StdinData, ipam.Env(args.Args, p.getenv))
	if rel.Registered {
		err = p.agentOf(rel).GC(ctx, rel.Name, valid)
	}
	if rel.Foreign() {
		if foreign := invoke.DelegateGC(ctx, rel.IPAMType, args.StdinData, nil); err == nil {
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

// answer is what skel prints; a nil *types.Error must not become an error.
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
