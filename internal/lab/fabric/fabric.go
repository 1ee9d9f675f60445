// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package fabric is the VPC's data path in network namespaces: one for the VPC, which routes, and one per worker. An ENI
// is a veth pair between them, with the ENI's MAC on the worker's end; an address that EC2 says an ENI holds is a /32 or
// /128 route to its link. So a packet reaches the holder and nobody else, a packet whose source the ENI does not hold is
// dropped and counted (EC2's source/destination check), the subnet's gateway answers, and subnets route to each other.
//
// `vpclab up`, the demo and tests use it: they derive a [Topology] from the state of the VPC and [Fabric.Apply] it
// whenever that changes. It needs root, veth and nftables with the fib expression, and touches nothing outside of its
// own namespaces. What EC2 allows and when a change becomes visible is decided by the caller, not here.
package fabric

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	vnetns "github.com/vishvananda/netns"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// vpcName stands for the VPC where workers go by their names.
const vpcName = "vpc"

// mtu is what EC2 gives an ENI inside the VPC.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/network_mtu.html
const mtu = 9001

// Config is what [New] needs.
type Config struct {
	// Prefix starts the names of all namespaces: <Prefix>-vpc and <Prefix>-<worker>. It must be this fabric's alone.
	Prefix string
}

// Fabric is a running data path. Its methods may be called concurrently. The namespaces outlive the process; Close
// removes them.
type Fabric struct {
	prefix string

	mu      sync.Mutex
	vpc     netlinksafe.Handle // rtnetlink in the VPC's namespace
	fd      vnetns.NsHandle    // of the VPC's namespace
	workers map[string]bool
	closed  bool

	answerer *answerer
}

// New removes what an earlier fabric of the same prefix left behind and makes the VPC's namespace, empty.
func New(cfg Config) (_ *Fabric, err error) {
	if cfg.Prefix == "" {
		return nil, errors.New("fabric: no prefix for the names of namespaces")
	}
	f := &Fabric{prefix: cfg.Prefix, fd: vnetns.None(), workers: map[string]bool{}}
	if err = f.removeNamespaces(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	path, err := netns.Create(f.name(vpcName))
	if err != nil {
		return nil, err
	}
	if f.fd, err = vnetns.GetFromPath(path); err != nil {
		return nil, fmt.Errorf("open netns %s: %w", path, err)
	}
	if f.vpc, err = netlinksafe.NewHandleAt(f.fd, netlinkRoute); err != nil {
		return nil, fmt.Errorf("open rtnetlink in %s: %w", path, err)
	}
	if err = f.prepareVPC(); err != nil {
		return nil, err
	}
	if f.answerer, err = answer(path); err != nil {
		return nil, fmt.Errorf("answer in %s: %w", path, err)
	}
	return f, nil
}

// Netns is the path of a worker's namespace, or the VPC's by the name "vpc". It exists while the worker is in the
// applied topology.
func (f *Fabric) Netns(name string) string { return netns.Path(f.name(name)) }

func (f *Fabric) name(worker string) string { return f.prefix + "-" + worker }

// Apply makes the kernel look like t by changing what differs: applying the same topology again changes nothing, and
// what was changed behind the fabric's back in the VPC's namespace is repaired. When it fails, some of the changes are
// made, and a later Apply carries on from there.
//
// An ENI that is no longer there takes its link along, and with it every ipvlan child, in whatever namespace. Moving an
// address replaces its route in one step. Inside a worker, Apply configures a link when it makes it and never again.
func (f *Fabric) Apply(ctx context.Context, t Topology) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("apply topology: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errors.New("apply topology: fabric is closed")
	}
	if err := f.addWorkers(ctx, t.Workers); err != nil {
		return err
	}
	have, err := f.read()
	if err != nil {
		return err
	}
	want := wanted(t)
	if err := f.change(ctx, have, want); err != nil {
		return err
	}
	if err := f.delegate(want); err != nil {
		return err
	}
	return f.removeWorkers(t.Workers)
}

// Close removes all namespaces, and with them every link. Closing twice succeeds.
func (f *Fabric) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var errs []error
	if f.answerer != nil {
		errs = append(errs, f.answerer.close())
	}
	if f.vpc.Handle != nil {
		// A process that still runs in a namespace keeps it; its links shall go all the same.
		errs = append(errs, f.removeAllLinks())
		f.vpc.Close()
	}
	if f.fd.IsOpen() {
		errs = append(errs, f.fd.Close())
	}
	return errors.Join(append(errs, f.removeNamespaces())...)
}

// removeNamespaces removes every namespace of the prefix.
func (f *Fabric) removeNamespaces() error {
	names, err := netns.List(f.prefix + "-")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, netns.Delete(name))
	}
	return errors.Join(errs...)
}
