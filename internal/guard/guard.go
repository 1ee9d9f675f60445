// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package guard decides what a pod may claim through the agent's sync socket. The agent puts it in front of the pool, which does
// what it lets pass. A caller is a network namespace and nothing else: what it says of itself is looked up in the kernel, in EC2's
// view of the worker and in the Kubernetes API at the time of the claim, because a pod may be root in its namespace and
// forge whatever is in there. How addresses are assigned does not belong here.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Limits of one network namespace.
const (
	// MaxAddresses are how many addresses may be claimed in all, and how many one request may be about.
	MaxAddresses = 16
	// claimInterval and claimBurst bound claims, and questions to EC2 who has what: one a second, and a few at once for a pod that
	// starts with several interfaces.
	claimInterval = time.Second
	claimBurst    = 5
	// yieldInterval and yieldBurst bound what costs no EC2 call at that time.
	yieldInterval = 50 * time.Millisecond
	yieldBurst    = 2 * MaxAddresses
)

var (
	// ErrRefused is a claim that will not succeed before somebody changes something.
	ErrRefused = errors.New("refused")
	// ErrContested is an address that another ENI holds and that may not be taken from there.
	ErrContested = errors.New("held by another ENI")
)

// Config is what the agent's operator allows.
type Config struct {
	// Ranges are the addresses that pods may claim; empty means those of the ENI's subnet that no pool takes addresses from.
	Ranges []attachment.Range
	// Floating are the ranges whose addresses are taken from whatever ENI has them: they belong to the pod that carries them.
	Floating []attachment.Range
	// OnConflict is for all other addresses: never, or wait-then-reassign.
	OnConflict attachment.OnConflict
	Log        *slog.Logger
}

// DefaultConfig is what the agent does unless it is told otherwise.
func DefaultConfig() Config {
	return Config{OnConflict: attachment.WaitThenReassign, Log: slog.New(slog.DiscardHandler)}
}

// Caller is who asks.
type Caller interface {
	// Netns identifies the caller's network namespace.
	Netns() attachment.Netns
	// Look reads one of its interfaces as it is now.
	Look(ifName string) (Seen, error)
}

// Seen is what the kernel says of an interface and its network namespace.
type Seen struct {
	// Link is the index of the host's link that the interface is an ipvlan child of; 0 when it is no such child, and Kind then says
	// what it is.
	Link int
	Kind string
	Mode string // of the ipvlan child
	// Addrs are on the interface, All anywhere in the namespace.
	Addrs, All []netip.Addr
}

// Ports are the worlds that a [Guard] looks at and acts on.
type Ports struct {
	Node       Node
	Namespaces Namespaces
	Pods       Pods // nil without a Kubernetes API: no address is then moved but floating ones
}

// Node is the agent's pool. Errors match [ErrRefused] and [ErrContested]; for all others the claim may be tried again.
type Node interface {
	// ENIs lists those of the worker, once they are known.
	ENIs(ctx context.Context) ([]ENI, error)
	// Has lists the addresses that the namespace has by CNI calls and by claims.
	Has(n attachment.Netns) (given, claimed []netip.Addr)
	Claim(ctx context.Context, c attachment.Claimant, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]Result
	Yield(ctx context.Context, c attachment.Claimant, addrs []netip.Addr) error
	Standing(ctx context.Context, c attachment.Claimant, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error)
}

// ENI is one of the worker's.
type ENI struct {
	eni.Interface
	Subnet eni.Subnet
	Link   int // index on the host; 0 when there is none
	// Stock reports whether a pool takes the address for pods that did not name it.
	Stock func(netip.Addr) bool
}

// Result is what became of one address.
type Result struct {
	New bool // EC2 was changed
	Err error
}

// Namespaces are those of the pods on this worker.
type Namespaces interface {
	// Carriers says which namespaces carry each of the addresses, on whatever interface.
	Carriers(addrs []netip.Addr) (map[netip.Addr][]attachment.Netns, error)
}

// Pods is the Kubernetes API.
type Pods interface {
	// Networks says what Multus gave the pods of this worker that are neither done nor being deleted.
	Networks(ctx context.Context) ([]PodNetworks, error)
}

// PodNetworks is what Multus says that it gave a pod.
type PodNetworks struct {
	Pod attachment.Pod
	// Default are the addresses of the pod's first interface.
	Default []netip.Addr
	// Addrs are those of each interface by name.
	Addrs map[string][]netip.Addr
}

// Guard answers pods. Make it with [New]; its methods may be called concurrently.
type Guard struct {
	cfg                       Config
	ports                     Ports
	claims, yields, questions *pacer
}

// New makes a guard.
func New(cfg Config, ports Ports) *Guard {
	return &Guard{
		cfg: cfg, ports: ports,
		claims: newPacer(claimInterval, claimBurst), yields: newPacer(yieldInterval, yieldBurst), questions: newPacer(claimInterval, claimBurst),
	}
}

// within reports whether one of the ranges contains the address.
func within(rs []attachment.Range, a netip.Addr) bool {
	for _, r := range rs {
		if r.Contains(a) {
			return true
		}
	}
	return false
}
