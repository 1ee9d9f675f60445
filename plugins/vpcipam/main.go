// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Command vpcipam is a CNI IPAM plugin that gives pods addresses which their VPC routes: it asks the node's agent, which
// holds them on the worker's ENIs. It serves interface plugins that put pods on an ENI's link (upstream's ipvlan with
// `master`; vpcipvlan asks the agent by itself). It keeps no state.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/plugins/internal/ipam"
	"github.com/multus-vpc/multus-vpc/plugins/internal/process"
)

func main() {
	process.OutliveReaders()
	os.Exit(run(os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

func run(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := plugin{getenv: getenv, stdout: stdout, stderr: stderr}
	return process.Plugin{
		About: "CNI IPAM plugin vpcipam of multus-vpc",
		Add:   p.add, Del: p.del, Check: p.check, Status: p.status, GC: p.gc,
	}.Run(getenv, stdin, stdout, stderr)
}

type plugin struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

func (p plugin) agent(c netconf.IPAM) ipam.Agent {
	return ipam.Agent{Socket: c.AgentSocket, Timeout: c.Timeout, Stderr: p.stderr}
}

func (p plugin) agentOf(rel netconf.Release) ipam.Agent {
	return ipam.Agent{Socket: rel.AgentSocket, Stderr: p.stderr}
}

func (p plugin) add(call process.Call) error {
	conf, err := call.Config.VPCIPAM(ipam.Env(call.Args, p.getenv))
	if err != nil {
		return ipam.Error(err)
	}
	ctx := context.Background()
	agent := p.agent(conf.IPAM).Connect(ctx)
	defer agent.Hangup()
	a, err := ipam.Describe(call, conf.Name, conf.Pod)
	if err != nil {
		return ipam.Error(err)
	}
	result, err := allocate(ctx, agent, conf, a)
	if err != nil {
		return ipam.Error(err)
	}
	if err = result.PrintTo(p.stdout, conf.CNIVersion); err != nil {
		agent.Release(ctx, a)
		return ipam.Error(fmt.Errorf("print the result: %w", err))
	}
	return nil
}

// allocate is an ADD's work: addresses on the ENI that the configuration means, as an IPAM result.
func allocate(ctx context.Context, agent ipam.Agent, conf netconf.VPCIPAM, a attachment.Attachment) (r ipam.Result, err error) {
	selector, err := selectorOf(conf.Target)
	if err != nil {
		return r, err
	}
	reply, err := agent.Add(ctx, a, conf.IPAM.Query(selector))
	if err != nil {
		return r, err
	}
	if found := reply.ENI.Link.Name; conf.Master != "" && found != "" && found != conf.Master {
		agent.Release(ctx, a)
		return r, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("master: %q has the MAC of %s, but that ENI's link is %q; name it instead", conf.Master, reply.ENI.ID, found), "")
	}
	addresses := ipam.Addresses(reply, conf.IPAM.Gateways)
	for _, address := range addresses {
		r.IPs = append(r.IPs, ipam.IP{Address: address})
	}
	r.Routes = ipam.Routes(conf.IPAM.Routes, a.IfName == ipam.FirstInterface, addresses)
	r.DNS = conf.IPAM.DNS
	return r, nil
}

func (p plugin) del(call process.Call) error {
	rel := call.Config.Release(ipam.Env(call.Args, p.getenv))
	ctx := context.Background()
	agent := p.agentOf(rel).Connect(ctx)
	outcome := ipam.Elsewhere(call)
	agent.Release(ctx, attachment.Attachment{Key: ipam.Key(call), Network: rel.Name})
	return outcome
}

func (p plugin) check(call process.Call) error {
	conf, err := call.Config.VPCIPAM(ipam.Env(call.Args, p.getenv))
	if err != nil {
		return ipam.Error(err)
	}
	a, err := ipam.Describe(call, conf.Name, conf.Pod)
	if err != nil {
		return ipam.Error(err)
	}
	expected, err := ipam.Expected(call)
	if err != nil {
		return ipam.Error(err)
	}
	_, err = p.agent(conf.IPAM).Check(context.Background(), a, expected.Addresses)
	return ipam.Error(err)
}

func (p plugin) status(call process.Call) error {
	conf, err := call.Config.VPCIPAM(ipam.Env(call.Args, p.getenv))
	if err != nil {
		return ipam.Error(err)
	}
	selector, err := selectorOf(conf.Target)
	if err != nil {
		return ipam.Unavailable(err)
	}
	return ipam.Error(p.agent(conf.IPAM).Ready(context.Background(), conf.IPAM.Query(selector)))
}

func (p plugin) gc(call process.Call) error {
	valid, err := call.Config.Valid()
	if err != nil {
		return ipam.Error(err)
	}
	rel := call.Config.Release(ipam.Env(call.Args, p.getenv))
	return ipam.Error(p.agentOf(rel).GC(context.Background(), rel.Name, valid))
}
