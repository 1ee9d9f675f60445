// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Ports are the worlds that a [Node] acts on.
type Ports struct {
	EC2        EC2
	Metadata   Metadata
	Host       Host
	Namespaces Namespaces
	Ledger     Ledger
	Tombstones Tombstones
	Pods       Pods // nil without a Kubernetes API
}

// EC2 is the part of the EC2 API that a pool needs. Errors match the sentinels of package eni; an error that matches
// [eni.ErrOutcomeUnknown] may have taken effect. Implementations do not retry.
type EC2 interface {
	Limits(ctx context.Context, instanceType string) (eni.Limits, error)
	Subnets(ctx context.Context, ids []eni.SubnetID) ([]eni.Subnet, error)
	Reservations(ctx context.Context, id eni.SubnetID) ([]eni.Reservation, error)
	InterfacesOf(ctx context.Context, id eni.InstanceID) ([]eni.Interface, error)
	// Owners says which ENI holds each of the addresses; those that nobody holds are absent.
	Owners(ctx context.Context, subnet eni.SubnetID, addrs []netip.Addr) (map[netip.Addr]eni.ID, error)
	// Assign names addresses. With reassign false it is a compare-and-set: EC2 refuses what another ENI holds.
	Assign(ctx context.Context, id eni.ID, addrs []netip.Addr, reassign bool) error
	Unassign(ctx context.Context, id eni.ID, addrs []netip.Addr) error
	// Interfaces describes ENIs of any instance; those that do not exist are absent.
	Interfaces(ctx context.Context, ids []eni.ID) ([]eni.Interface, error)
	// AssignIPv6 names addresses; EC2 refuses what another ENI holds.
	AssignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error
	UnassignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error
	// AssignCount and AssignPrefixes have EC2 choose; with an unknown outcome they return what could be read.
	AssignCount(ctx context.Context, id eni.ID, v6 bool, n int) ([]netip.Addr, error)
	AssignPrefixes(ctx context.Context, id eni.ID, v6 bool, n int) ([]netip.Prefix, error)
	UnassignPrefixes(ctx context.Context, id eni.ID, prefixes []netip.Prefix) error
}

// Metadata is the instance metadata: no EC2 request, but later than EC2 and without tags.
type Metadata interface {
	Interfaces(ctx context.Context) ([]eni.Interface, error)
	// MACs lists the ENIs that there are, in one request.
	MACs(ctx context.Context) ([]eni.MAC, error)
	// Held lists one ENI's addresses of both families and its prefixes.
	Held(ctx context.Context, mac eni.MAC) ([]netip.Addr, []netip.Prefix, error)
}

// Pods is the Kubernetes API, for the one question that sticky addresses ask.
type Pods interface {
	// Ordinal says which StatefulSet owns the pod and which of its pods it is. The pod's UID must be the one given.
	Ordinal(ctx context.Context, pod attachment.Pod) (statefulSet string, ordinal int, err error)
}

// Host is the host's network namespace.
type Host interface {
	// Links lists what may be an ENI's link: no ipvlan, macvlan or vlan, which share their parent's MAC.
	Links() ([]attachment.Link, error)
	// Up brings a link up, and sets its MTU unless that is 0.
	Up(index, mtu int) error
	// Addresses maps the host's addresses to the links that carry them.
	Addresses() (map[netip.Addr]string, error)
}

// Sight is what the agent can tell of a network namespace.
type Sight int

// Hidden says nothing about life or death, and nothing is concluded from it.
const (
	Hidden Sight = iota
	Alive        // the path leads to that very namespace
	Gone         // the path is absent, or leads to another namespace
)

// Namespaces are the pods' network namespaces. Implementations keep no handle open: an open one keeps a dead namespace
// and its links alive.
type Namespaces interface {
	Look(n attachment.Netns) Sight
	// Elsewhere lists those of the namespaces that are reachable by any visible path.
	Elsewhere(ns []attachment.Netns) ([]attachment.Netns, error)
	// Addresses lists the addresses that the namespace at path carries, loopback left out.
	Addresses(path string) ([]netip.Addr, error)
	// Forget deletes the neighbour entries for the addresses in the namespace at path.
	Forget(path string, addrs []netip.Addr) error
	// Scan lists the visible namespaces.
	Scan() ([]Found, error)
}

// Found is a visible network namespace.
type Found struct {
	Netns attachment.Netns
	Addrs []netip.Addr
	// Modes maps the index of a host link to the ipvlan mode of a child that this namespace has of it.
	Modes map[int]string
}

// Record is one entry of the ledger. A nil Value deletes the key.
type Record struct {
	Key   string
	Value json.RawMessage
}

// Ledger is the node's durable record. Put is all or nothing, also across a kill, and last write wins by key. It may
// be called with locks held and must be quick.
type Ledger interface {
	Put(records ...Record) error
}

// Tombstone says that an attachment was deleted while no agent listened.
type Tombstone struct {
	Key    attachment.Key
	BootID string
	Uptime time.Duration // CLOCK_BOOTTIME when it was written
}

// Tombstones are what plugins left behind while no agent listened.
type Tombstones interface {
	List() ([]Tombstone, error)
	Find(key attachment.Key) (Tombstone, bool, error)
	Remove(key attachment.Key) error
}

// Reason classifies a [Refusal] by what the caller can do about it.
type Reason int

// The reasons.
const (
	Invalid    Reason = iota // the request cannot be served as it is: fix the configuration
	Exhausted                // a limit was hit that time or another worker may lift
	NotReady                 // the agent is not ready, or EC2 does not answer: try again
	MasterMode               // somebody put the link in another ipvlan mode than l2
	Mismatch                 // CHECK found a difference
	Taken                    // another ENI, or another pod here, has the address and keeps it
)

// Refusal is an answer that is no fault of ours: its text is what the user sees, and names the limit and the remedy.
type Refusal struct {
	Reason Reason
	Text   string
}

func (r *Refusal) Error() string { return r.Text }
