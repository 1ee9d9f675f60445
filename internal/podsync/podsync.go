// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package podsync keeps EC2 in step with the addresses that a pod carries on its own interfaces: what another IPAM gave it, and
// what floats between pods. Init container, sidecar and agent run it, each with its own way to EC2 behind [Registrar]; [Direct] is
// the one that calls EC2 itself. It decides when an address is claimed and when it is let go, and never what may be taken
// from whom beyond what its configuration says. It reads no netlink and speaks no protocol.
package podsync

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Pod is the pod's network namespace.
type Pod interface {
	// Interfaces lists the pod's interfaces with their addresses; the loopback is left out.
	Interfaces() ([]attachment.Interface, error)
	// Watch tells of every address that appears or goes, in order. The zero Change, which it tells first, says that changes may
	// have been missed or that a link changed. It returns nil when ctx ends, and an error when the kernel cannot be watched. tell
	// does not block, and may be called with a lock held that Interfaces takes.
	Watch(ctx context.Context, tell func(attachment.Change)) error
}

// Registrar is a way to EC2. Its methods may be called concurrently, but never twice at a time for one address.
type Registrar interface {
	// Register has EC2 know the addresses as those of the interface's ENI, with as few calls as it can, and answers for each of
	// them when the VPC routes it there or it is clear why it does not. An error that matches [ErrRefused] says that to try again is
	// of no use, one that matches [ErrContested] that another ENI has the address and conflict forbids to take it.
	Register(ctx context.Context, i attachment.Interface, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]Result
	// Release gives addresses back that the interface's ENI may still hold. That it does not is no error.
	Release(ctx context.Context, i attachment.Interface, addrs []netip.Addr) error
	// Standing tells who has each of the addresses, as EC2 says now.
	Standing(ctx context.Context, i attachment.Interface, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error)
}

// Result is what became of one address of [Registrar.Register].
type Result struct {
	// New is whether this registration changed EC2. What was there before is not ours to give back.
	New bool
	Err error
}

var (
	// ErrRefused is a registration that will not succeed before somebody changes something.
	ErrRefused = errors.New("refused")
	// ErrContested is an address that another ENI holds and that may not be taken from there.
	ErrContested = errors.New("held by another ENI")
)

// Config says how a [Syncer] behaves.
type Config struct {
	// Floating are the ranges whose addresses move with the pod that carries them: one that appears is taken from whatever ENI
	// has it.
	Floating []attachment.Range
	// OnConflict is for all other addresses.
	OnConflict attachment.OnConflict
	// KeepFloating leaves floating addresses on the ENI when they go from here: a neighbour on the same worker, of which this
	// process knows nothing, may carry them.
	KeepFloating bool
	// Grace is how long an address that went is kept: floating ones come back, to this pod or to a neighbour.
	Grace time.Duration
	// CheckInterval is how often what we believe is compared with EC2.
	CheckInterval time.Duration
	// Known tells of addresses that were claimed for the pod before this syncer started. That they are there when it starts is no
	// appearance, and takes them from nobody. Nil knows none.
	Known func(netip.Addr) bool
	// Claimed is told, for each claim that an appearing address caused, how long after the address it left.
	Claimed func(time.Duration)
	// Moved is told of each address that went from an interface or came to it: pods on the same ENI have to send elsewhere. It does
	// not block.
	Moved func(by attachment.Interface, addr netip.Addr, here bool)
	// Contested is told of each address that is left to another ENI, though it is carried. It does not block.
	Contested func(by attachment.Interface, addr netip.Addr)
	// Changed is told of each change of what [Syncer.Report] says.
	Changed func(Report)
	Log     *slog.Logger
}

// DefaultConfig is what the programs do unless they are told otherwise.
func DefaultConfig() Config {
	return Config{
		OnConflict:    attachment.WaitThenReassign,
		Grace:         30 * time.Second,
		CheckInterval: time.Minute,
		Claimed:       func(time.Duration) {},
		Moved:         func(attachment.Interface, netip.Addr, bool) {},
		Contested:     func(attachment.Interface, netip.Addr) {},
		Changed:       func(Report) {},
		Log:           slog.New(slog.DiscardHandler),
	}
}

func (c Config) floats(a netip.Addr) bool {
	for _, r := range c.Floating {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// conflictFor is what an appearance of the address may do to another ENI.
func (c Config) conflictFor(a netip.Addr) attachment.OnConflict {
	if c.floats(a) {
		return attachment.Reassign
	}
	return c.OnConflict
}

// The states of an address, as [AddressReport] shows them.
const (
	Pending    = "pending"    // carried, and not known to EC2 as this ENI's
	Registered = "registered" // EC2 and the pod agree
	Contested  = "contested"  // carried, and another ENI has it: left alone until it appears anew, or nobody has it
	Leaving    = "leaving"    // no longer carried, and not given back yet
)

// Report is what a pod's addresses are up to.
type Report struct {
	Addresses  []AddressReport   `json:"addresses"`
	Interfaces []InterfaceReport `json:"interfaces,omitempty"`
}

// InterfaceReport is one interface of a [Report].
type InterfaceReport struct {
	Name string `json:"name"`
	// Ignored says why its addresses are not registered; empty when they are.
	Ignored string `json:"ignored,omitempty"`
	// Useless is whether somebody meant the VPC to route to it, which it never will. Others may be there for another purpose: a
	// bridge within the node, a device that was moved into the pod.
	Useless bool `json:"useless,omitempty"`
}

// AddressReport is one address of a [Report].
type AddressReport struct {
	Addr      netip.Addr `json:"addr"`
	Interface string     `json:"interface"`
	State     string     `json:"state"`
	Floating  bool       `json:"floating,omitempty"`
	Error     string     `json:"error,omitempty"`   // of the last attempt
	Refused   bool       `json:"refused,omitempty"` // to try again is of no use: [ErrRefused]
}

// Ready reports whether the VPC routes to the pod whatever is its own alone: a floating address that another pod has is no
// reason to wait.
func (r Report) Ready() bool {
	for _, a := range r.Addresses {
		if a.State == Pending || a.State == Contested && !a.Floating {
			return false
		}
	}
	return true
}
