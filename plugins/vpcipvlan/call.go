// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/link"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
	"github.com/multus-vpc/multus-vpc/plugins/internal/ipam"
)

// grant is what an interface is made of, whichever IPAM gave it.
type grant struct {
	master    attachment.Link
	addresses []ipam.Address
	routes    []netconf.Route
	dns       types.DNS
	// release gives the addresses back.
	release func(context.Context) error
}

func (c call) allocate(ctx context.Context) (grant, error) {
	if c.conf.IPAMType == netconf.TypeVPCIPAM {
		return c.allocateHere(ctx)
	}
	return c.delegate(ctx)
}

// allocateHere asks the agent, as vpcipam would.
func (c call) allocateHere(ctx context.Context) (grant, error) {
	q, err := c.query()
	if err != nil {
		return grant{}, err
	}
	reply, err := c.agent.Add(ctx, c.about, q)
	if err != nil {
		return grant{}, err
	}
	addresses := ipam.Addresses(reply, c.conf.IPAM.Gateways)
	g := grant{
		master:    masterOf(reply.ENI.Link, reply.ENI.MAC),
		addresses: addresses,
		routes:    ipam.Routes(c.conf.IPAM.Routes, true, addresses),
		dns:       c.conf.IPAM.DNS,
		release: func(ctx context.Context) error {
			c.agent.Release(ctx, c.about)
			return nil
		},
	}
	if c.conf.Master != "" && g.master.Name != c.conf.Master {
		return grant{}, withUndo(c.wrongMaster(reply.ENI.ID, g.master.Name), g.release(ctx))
	}
	return g, nil
}

func (c call) wrongMaster(id eni.ID, name string) error {
	return types.NewError(types.ErrInvalidNetworkConfig,
		fmt.Sprintf("master: %q has the MAC of %s, but that ENI's link is %q; name it instead", c.conf.Master, id, name), "")
}

// query asks for what the configuration says, which is no more than an ENI with another IPAM plugin. A master is known to
// the agent by its MAC.
func (c call) query() (attachment.Query, error) {
	selector := c.conf.Selector
	if c.conf.Master != "" {
		l, err := c.masterByName()
		if err != nil {
			return attachment.Query{}, err
		}
		selector = eni.Selector{MAC: l.MAC}
	}
	q := c.conf.IPAM.Query(selector)
	q.NeedLink, q.Floating = true, c.conf.Floating
	return q, nil
}

func (c call) masterByName() (attachment.Link, error) {
	l, err := link.ByName(c.conf.Master)
	if err != nil {
		return l, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("master: %v; name the link of an ENI, or choose one by eni", err), "")
	}
	return l, nil
}

// masterOf is the agent's link with the MAC that the ENI must have.
func masterOf(l attachment.Link, mac eni.MAC) attachment.Link {
	l.MAC = mac
	return l
}

func (c call) child(g grant) link.Child {
	child := link.Child{
		Key: c.about.Key, Netns: c.Netns, Master: g.master, MTU: c.conf.MTU,
		Routes: g.routes, SourceRouting: c.conf.SourceRouting,
	}
	for _, a := range g.addresses {
		child.Addresses = append(child.Addresses, link.Address(a))
	}
	return child
}

// result adds the interface to what plugins before this one in the chain have made.
func (c call) result(g grant, made link.Made, prev ipam.Result) ipam.Result {
	r := prev
	for _, dns := range []types.DNS{g.dns, c.conf.DNS} {
		if !dns.IsEmpty() {
			r.DNS = dns
		}
	}
	index := len(r.Interfaces)
	i := ipam.Interface{Name: c.IfName, MAC: made.MAC, MTU: made.MTU, Sandbox: c.Netns}
	routes := made.Routes
	if c.conf.CNIVersion != "1.1.0" {
		// Before 1.1.0 a result has neither MTU nor tables, and a route of our table would pass for one of the main table.
		i.MTU = 0
		routes = slices.DeleteFunc(slices.Clone(routes), func(r netconf.Route) bool { return r.Table != nil })
	}
	r.Interfaces = append(r.Interfaces, i)
	for _, a := range g.addresses {
		r.IPs = append(r.IPs, ipam.IP{Address: a, Interface: &index})
	}
	r.Routes = append(r.Routes, routes...)
	return r
}

// checkIPAM has whoever gave the addresses check them, and returns the master as far as it is known.
func (c call) checkIPAM(ctx context.Context, expected ipam.Expectation) (master attachment.Link, err error) {
	if c.conf.Master != "" {
		if master, err = c.masterByName(); err != nil {
			return master, err
		}
	}
	if c.conf.IPAMType != netconf.TypeVPCIPAM {
		err = invoke.DelegateCheck(ctx, c.conf.IPAMType, c.Stdin, nil)
		if err != nil || !c.conf.Register {
			return master, err
		}
	}
	reply, err := c.agent.Check(ctx, c.about, expected.Addresses)
	if reply != nil {
		master = masterOf(reply.ENI.Link, reply.ENI.MAC)
	}
	return master, err
}
