// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/plugins/internal/ipam"
)

// delegate executes another IPAM plugin. Unless that is turned off, the agent then registers the addresses on the ENI;
// if it is, the agent is asked only which link `eni` means, and a `master` needs no agent.
func (c call) delegate(ctx context.Context) (grant, error) {
	if c.conf.Register {
		return c.delegateAndRegister(ctx)
	}
	g, subnets, err := c.foreignMaster(ctx)
	if err != nil {
		return grant{}, err
	}
	if err = c.delegateAdd(ctx, &g); err != nil {
		return grant{}, err
	}
	g.findGateways(subnets)
	return g, nil
}

// delegateAdd takes the other plugin's addresses into the grant. The failed ADD of a delegate is followed by its DEL
// (CNI specification, section 4).
func (c call) delegateAdd(ctx context.Context, g *grant) error {
	g.release = c.delegateDel
	result, err := invoke.DelegateAdd(ctx, c.conf.IPAMType, c.Stdin, nil)
	if err == nil {
		err = g.take(result)
	}
	if err != nil {
		return withUndo(err, g.release(context.WithoutCancel(ctx)))
	}
	return nil
}

func (c call) delegateDel(ctx context.Context) error {
	return invoke.DelegateDel(ctx, c.conf.IPAMType, c.Stdin, nil)
}

// delegateAndRegister makes EC2 route the other plugin's addresses to the ENI before the interface is there.
func (c call) delegateAndRegister(ctx context.Context) (g grant, err error) {
	q, err := c.query()
	if err != nil {
		return grant{}, err
	}
	if err = c.delegateAdd(ctx, &g); err != nil {
		return grant{}, err
	}
	g.release = func(ctx context.Context) error {
		c.agent.Release(ctx, c.about)
		return c.delegateDel(ctx)
	}
	reply, err := c.agent.Register(ctx, c.about, q, g.addresses, c.conf.OnConflict)
	if err == nil && c.conf.Master != "" && reply.ENI.Link.Name != c.conf.Master {
		err = c.wrongMaster(reply.ENI.ID, reply.ENI.Link.Name)
	} else if _, answered := errors.AsType[*agentapi.Error](err); answered {
		g.release = c.delegateDel // the agent said no and holds nothing
	}
	if err != nil {
		return grant{}, withUndo(err, g.release(context.WithoutCancel(ctx)))
	}
	g.master = masterOf(reply.ENI.Link, reply.ENI.MAC)
	g.findGateways(subnetsOf(reply.ENI))
	return g, nil
}

func (c call) foreignMaster(ctx context.Context) (g grant, subnets []netip.Prefix, err error) {
	if c.conf.Master != "" {
		g.master, err = c.masterByName()
		return g, nil, err
	}
	q, err := c.query()
	if err != nil {
		return g, nil, err
	}
	reply, err := c.agent.Resolve(ctx, c.about, q)
	g.master = masterOf(reply.ENI.Link, reply.ENI.MAC)
	return g, subnetsOf(reply.ENI), err
}

func subnetsOf(e agentapi.ENI) []netip.Prefix {
	return append([]netip.Prefix{e.SubnetIPv4}, e.SubnetIPv6...)
}

// take reads an IPAM result.
func (g *grant) take(from types.Result) error {
	result, err := ipam.ResultOf(from)
	if err != nil {
		return err
	}
	if len(result.IPs) == 0 {
		return types.NewError(types.ErrInternal, "the IPAM plugin gave no address", "")
	}
	for _, ip := range result.IPs {
		g.addresses = append(g.addresses, ip.Address)
	}
	g.routes, g.dns = result.Routes, result.DNS
	return nil
}

// findGateways gives addresses that came without a gateway that of their subnet.
func (g *grant) findGateways(subnets []netip.Prefix) {
	for i, a := range g.addresses {
		for _, subnet := range subnets {
			if !a.Gateway.IsValid() && subnet.IsValid() && subnet.Contains(a.Prefix.Addr()) {
				g.addresses[i].Gateway = eni.Gateway(subnet)
			}
		}
	}
}
