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
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/plugins/internal/ipam"
)

func main() { os.Exit(run(os.Getenv, os.Stdout, os.Stderr)) }

// run serves one call; skel itself reads CNI_* and the configuration from the process.
func run(getenv func(string) string, stdout, stderr io.Writer) int {
	p := plugin{getenv: getenv, stdout: stdout, stderr: stderr}
	funcs := skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, Status: p.status, GC: p.gc}
	return ipam.Main(funcs, "CNI IPAM plugin vpcipam of multus-vpc", getenv, stdout, stderr)
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

func (p plugin) add(args *skel.CmdArgs) error {
	conf, err := netconf.ParseVPCIPAM(args.StdinData, ipam.Env(args.Args, p.getenv))
	if err != nil {
		return ipam.Error(err)
	}
	a, err := ipam.Describe(args, conf.Name, conf.Pod)
	if err != nil {
		return ipam.Error(err)
	}
	ctx := context.Background()
	result, err := p.allocate(ctx, conf, a)
	if err != nil {
		return ipam.Error(err)
	}
	if err = ipam.Print(result, conf.CNIVersion, p.stdout); err != nil {
		p.agent(conf.IPAM).Release(ctx, a)
		return ipam.Error(fmt.Errorf("print the result: %w", err))
	}
	return nil
}

// allocate is an ADD's work: addresses on the ENI that the configuration means, as an IPAM result.
func (p plugin) allocate(ctx context.Context, conf netconf.VPCIPAM, a attachment.Attachment) (*types100.Result, error) {
	selector, err := selectorOf(conf.Target)
	if err != nil {
		return nil, err
	}
	agent := p.agent(conf.IPAM)
	reply, err := agent.Add(ctx, a, conf.IPAM.Query(selector))
	if err != nil {
		return nil, err
	}
	if found := reply.ENI.Link.Name; conf.Master != "" && found != "" && found != conf.Master {
		agent.Release(ctx, a)
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("master: %q has the MAC of %s, but that ENI's link is %q; name it instead", conf.Master, reply.ENI.ID, found), "")
	}
	addresses := ipam.Addresses(reply, conf.IPAM.Gateways)
	result := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Routes:     ipam.CNIRoutes(ipam.Routes(conf.IPAM.Routes, a.IfName == ipam.FirstInterface, addresses)),
		DNS:        conf.IPAM.DNS,
	}
	for _, address := range addresses {
		result.IPs = append(result.IPs, address.CNI(nil))
	}
	return result, nil
}

// selectorOf turns a master's name into what identifies the ENI, its MAC.
func selectorOf(t netconf.Target) (eni.Selector, error) {
	if t.Master == "" {
		return t.Selector, nil
	}
	link, err := net.InterfaceByName(t.Master)
	if err != nil {
		return eni.Selector{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("master: no link %q on this node; name the link of an ENI", t.Master), "")
	}
	return eni.Selector{MAC: eni.ParseMAC(link.HardwareAddr.String())}, nil
}

func (p plugin) del(args *skel.CmdArgs) error {
	rel := netconf.ParseRelease(args.StdinData, ipam.Env(args.Args, p.getenv))
	p.agentOf(rel).Release(context.Background(), attachment.Attachment{Key: ipam.Key(args), Network: rel.Name})
	return nil
}

func (p plugin) check(args *skel.CmdArgs) error {
	conf, err := netconf.ParseVPCIPAM(args.StdinData, ipam.Env(args.Args, p.getenv))
	if err != nil {
		return ipam.Error(err)
	}
	a, err := ipam.Describe(args, conf.Name, conf.Pod)
	if err != nil {
		return ipam.Error(err)
	}
	expected, err := ipam.Expected(args.StdinData, a)
	if err != nil {
		return ipam.Error(err)
	}
	_, err = p.agent(conf.IPAM).Check(context.Background(), a, expected.Addresses)
	return ipam.Error(err)
}

func (p plugin) status(args *skel.CmdArgs) error {
	conf, err := netconf.ParseVPCIPAM(args.StdinData, ipam.Env(args.Args, p.getenv))
	if err != nil {
		return ipam.Error(err)
	}
	selector, err := selectorOf(conf.Target)
	if err != nil {
		return ipam.Unavailable(err)
	}
	return ipam.Error(p.agent(conf.IPAM).Ready(context.Background(), conf.IPAM.Query(selector)))
}

func (p plugin) gc(args *skel.CmdArgs) error {
	valid, err := netconf.ParseValid(args.StdinData)
	if err != nil {
		return ipam.Error(err)
	}
	rel := netconf.ParseRelease(args.StdinData, ipam.Env(args.Args, p.getenv))
	return ipam.Error(p.agentOf(rel).GC(context.Background(), rel.Name, valid))
}
