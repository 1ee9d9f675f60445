// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

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
	q.Families, q.Source = c.conf.IPAM.Families, c.conf.IPAM.Source
	reply, err := c.agent.Add(ctx, c.about, q)
	if err != nil {
		return grant{}, err
	}
	addresses := ipam.Addresses(reply, c.conf.IPAM.Gateway)
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

// query means the ENI that the configuration selects; a master is known to the agent by its MAC.
func (c call) query() (attachment.Query, error) {
	q := attachment.Query{Selector: c.conf.Selector, NeedLink: true}
	if c.conf.Master != "" {
		l, err := c.masterByName()
		if err != nil {
			return q, err
		}
		q.Selector = eni.Selector{MAC: l.MAC}
	}
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

// delegate executes another IPAM plugin. The agent is asked only which link `eni` means; a `master` needs no agent.
func (c call) delegate(ctx context.Context) (grant, error) {
	g, subnet, err := c.foreignMaster(ctx)
	if err != nil {
		return grant{}, err
	}
	g.release = func(ctx context.Context) error {
		return invoke.DelegateDel(ctx, c.conf.IPAMType, c.args.StdinData, nil)
	}
	result, err := invoke.DelegateAdd(ctx, c.conf.IPAMType, c.args.StdinData, nil)
	if err == nil {
		err = g.take(result, subnet)
	}
	if err != nil {
		// A failed ADD of a delegate is followed by its DEL (CNI specification, section 4).
		return grant{}, withUndo(err, g.release(context.WithoutCancel(ctx)))
	}
	return g, nil
}

func (c call) foreignMaster(ctx context.Context) (g grant, subnet netip.Prefix, err error) {
	if c.conf.Master != "" {
		g.master, err = c.masterByName()
		return g, subnet, err
	}
	q, err := c.query()
	if err != nil {
		return g, subnet, err
	}
	reply, err := c.agent.Resolve(ctx, c.about, q)
	g.master = masterOf(reply.ENI.Link, reply.ENI.MAC)
	return g, reply.ENI.SubnetIPv4, err
}

// take reads an IPAM result. An address without a gateway gets its subnet's router where that is known.
func (g *grant) take(from types.Result, subnet netip.Prefix) error {
	result, err := types100.NewResultFromResult(from)
	if err != nil {
		return err
	}
	if len(result.IPs) == 0 {
		return types.NewError(types.ErrInternal, "the IPAM plugin gave no address", "")
	}
	for _, one := range result.IPs {
		a, addrErr := ipam.FromCNI(one)
		if addrErr != nil {
			return addrErr
		}
		if !a.Gateway.IsValid() && subnet.IsValid() && subnet.Contains(a.Prefix.Addr()) {
			a.Gateway = eni.Gateway(subnet)
		}
		g.addresses = append(g.addresses, a)
	}
	g.routes, err = ipam.RoutesFromCNI(result.Routes)
	g.dns = result.DNS
	return err
}

func (c call) child(g grant) link.Child {
	child := link.Child{
		Key: c.about.Key, Netns: c.args.Netns, Master: g.master, MTU: c.conf.MTU,
		Routes: g.routes, SourceRouting: c.conf.SourceRouting,
	}
	for _, a := range g.addresses {
		child.Addresses = append(child.Addresses, link.Address(a))
	}
	return child
}

// result adds the interface to what plugins before this one in the chain have made.
func (c call) result(g grant, made link.Made, prev *types100.Result) *types100.Result {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, DNS: g.dns}
	if prev != nil {
		r.Interfaces, r.IPs, r.Routes = prev.Interfaces, prev.IPs, prev.Routes
	}
	if !c.conf.DNS.IsEmpty() {
		r.DNS = c.conf.DNS
	}
	index := len(r.Interfaces)
	i := &types100.Interface{Name: c.args.IfName, Mac: string(made.MAC), Mtu: made.MTU, Sandbox: c.args.Netns}
	routes := made.Routes
	if modern, err := version.GreaterThanOrEqualTo(c.conf.CNIVersion, "1.1.0"); err != nil || !modern {
		// Before 1.1.0 a result has neither MTU nor tables, and a route of our table would pass for one of the main table.
		i.Mtu = 0
		routes = slices.DeleteFunc(slices.Clone(routes), func(r netconf.Route) bool { return r.Table != nil })
	}
	r.Interfaces = append(r.Interfaces, i)
	for _, a := range g.addresses {
		r.IPs = append(r.IPs, a.CNI(&index))
	}
	r.Routes = append(r.Routes, ipam.CNIRoutes(routes)...)
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
		return master, invoke.DelegateCheck(ctx, c.conf.IPAMType, c.args.StdinData, nil)
	}
	reply, err := c.agent.Check(ctx, c.about, expected.Addresses)
	if reply != nil {
		master = masterOf(reply.ENI.Link, reply.ENI.MAC)
	}
	return master, err
}
