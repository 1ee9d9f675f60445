// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package workereni gives workers their ENIs and takes them back: in the subnets of the worker's availability zone, on the network
// cards and device indexes that the configuration says, tagged in the create call. Whoever learns that an instance launches or ends
// calls it (a lifecycle hook's Lambda, the agent at boot) and says until when.
//
// It promises that calling it again is harmless: at any time, twice at once, after having been killed between any two EC2 calls or
// with the reply lost, the end is the same and no ENI is left over. What cannot be is found, as far as EC2 tells, before anything is
// made. It neither knows Auto Scaling nor Kubernetes, and assigns no addresses to what exists: that is the agent's.
package workereni

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Tags of every ENI that this package makes, besides [eni.TagNoManage].
const (
	TagOwner    = "multus-vpc.io/owner"    // [Config.Owner]
	TagInstance = "multus-vpc.io/instance" // the worker that it is for
	TagSlot     = "multus-vpc.io/slot"     // network card and device index, "0:1"
	TagLaunched = "multus-vpc.io/launched" // when the worker was launched; EC2 does not say when an ENI was made
)

// EC2 is what the flow needs of EC2. Errors wrap the sentinels of package eni. Nothing is retried below it.
type EC2 interface {
	// Workers, SubnetsFound and Groups leave out what does not exist, or not yet.
	Workers(ctx context.Context, ids []eni.InstanceID) ([]eni.Worker, error)
	WorkersTagged(ctx context.Context, key, value string) ([]eni.Worker, error)
	Layout(ctx context.Context, instanceType string) (eni.Layout, error)
	SubnetsFound(ctx context.Context, ids []eni.SubnetID) ([]eni.Subnet, error)
	SubnetsTagged(ctx context.Context, in eni.VPCID, tags map[string]string) ([]eni.Subnet, error)
	Reservations(ctx context.Context, id eni.SubnetID) ([]eni.Reservation, error)
	Groups(ctx context.Context, ids []eni.GroupID) ([]eni.Group, error)
	DevicesTagged(ctx context.Context, tags map[string]string) ([]eni.Device, error)
	DevicesIn(ctx context.Context, subnet eni.SubnetID) ([]eni.Device, error)

	Create(ctx context.Context, n eni.NewDevice) (eni.Device, error)
	Attach(ctx context.Context, id eni.ID, to eni.InstanceID, card, index int) (eni.AttachmentID, error)
	Detach(ctx context.Context, a eni.AttachmentID) error
	Delete(ctx context.Context, id eni.ID) error
	SetDeleteOnTermination(ctx context.Context, id eni.ID, a eni.AttachmentID, on bool) error
	SetSourceDestCheck(ctx context.Context, id eni.ID, on bool) error
}

var (
	// ErrImpossible is a worker that cannot get its ENIs however often it is tried: an [*ImpossibleError] says why. What was made
	// for it is undone, as far as the worker is given up: see [Request].
	ErrImpossible = errors.New("worker cannot get its ENIs")
	// ErrGone is an instance that ends, or has ended. What was made for it and is not attached is undone.
	ErrGone = errors.New("instance is gone")
	// ErrUnfinished is a caller whose time was up. Calling again goes on from there.
	ErrUnfinished = errors.New("not finished in time")
)

// ImpossibleError has every reason that was found. It matches [ErrImpossible].
type ImpossibleError struct {
	Reasons []string
	Err     error // what EC2 refused; nil when it was found before anything was made
}

func (e *ImpossibleError) Error() string {
	return ErrImpossible.Error() + ": " + strings.Join(e.Reasons, "; ")
}

// Is makes errors.Is(err, [ErrImpossible]) true.
func (e *ImpossibleError) Is(target error) bool { return target == ErrImpossible }

func (e *ImpossibleError) Unwrap() error { return e.Err }

// Flow carries out a configuration. Its methods may be called concurrently, also for the same worker.
type Flow struct {
	cfg Config
	ec2 EC2
	log *slog.Logger
}

// New makes a flow. The configuration must have passed [Config.Validate]. A nil logger logs nowhere.
func New(cfg Config, ec2 EC2, log *slog.Logger) *Flow {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Flow{cfg: cfg, ec2: ec2, log: log}
}

// Request is one worker that launches.
type Request struct {
	Instance eni.InstanceID
	// Group is the Auto Scaling group, as the tag of its instances has it. Where addresses are counted from the start of a subnet,
	// the workers of a group that start together each take another; without it, they try the same first.
	Group string
	// GiveUp, when set, is called once before Launch undoes what it made and returns [ErrImpossible]. It tells whoever waits for the
	// worker, and reports whether the worker is given up by that. One that is not may be in service: what is attached to it stays.
	GiveUp func(*ImpossibleError) bool
}

// tagAutoScalingGroup is the tag that Auto Scaling sets on its instances.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-tagging.html
const tagAutoScalingGroup = "aws:autoscaling:groupName"
