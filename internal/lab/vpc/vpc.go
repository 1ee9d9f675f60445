// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package vpc is the laboratory's VPC: a pure state machine with the rules, limits and errors of EC2.
//
// The protocols (EC2's query API, the instance metadata) and the fabric of network namespaces are mounted over it; tests
// of the flows use it directly. It promises that what EC2 refuses is refused here with EC2's code and message, that a
// refused call changes nothing, and that every change becomes visible to each reader (Describe, the instance metadata,
// the data path) only after that reader's propagation lag.
//
// It has no goroutines and no clock: whoever calls says what time it is. It knows no wire format. Where a rule comes
// from stands beside the rule; what nobody could verify on AWS is marked "unverified:".
//
// IDs are plain strings, as on the wire.
package vpc

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Propagation says how long a change takes to reach each of its readers. EC2 documents only that there is a delay.
// https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
type Propagation struct {
	Route    time.Duration // until the data path forwards by it
	IMDS     time.Duration // until the instance metadata shows it
	Describe time.Duration // until Describe calls show it, and until a new object can be named in a call
}

func (p Propagation) longest() time.Duration { return max(p.Route, p.IMDS, p.Describe) }

// Values of [Config.AssignOwned].
const (
	AssignOwnedOK    = "ok"
	AssignOwnedError = "error"
)

// Values of [Config.MixedBatch].
const (
	MixedBatchAtomic  = "atomic"
	MixedBatchPartial = "partial"
)

// Config says which account the VPC lies in and how EC2 behaves where that is not known for certain.
type Config struct {
	Region    string // default "us-west-2"
	AccountID string // default "123456789012"

	Propagation Propagation

	// Boot is how long an instance that is launched is "pending", in which no ENI can be attached to it.
	Boot time.Duration

	// AssignOwned is what happens when AssignPrivateIpAddresses names an address that the ENI already has, without
	// AllowReassignment: "ok" (default) accepts it, "error" says "assigned, but move is not allowed".
	// unverified: neither is documented.
	AssignOwned string

	// MixedBatch is what happens when some addresses of an AssignPrivateIpAddresses are taken: "atomic" (default) assigns
	// none of them, "partial" assigns the others, and both return the error that names the taken ones.
	// unverified: all-or-nothing is what users report, the API reference does not say.
	MixedBatch string

	// Seed makes IDs and the automatic choice of addresses reproducible.
	Seed uint64
}

// Cloud is one account's VPCs in one Region. Its methods are safe for concurrent use.
//
// Each method that changes something takes the time of the change. A time before that of an earlier call counts as the
// time of that call. The zero time is for what has existed since ever: it is visible to all readers at once. Errors are
// always [*APIError].
type Cloud struct {
	cfg Config

	mu      sync.Mutex
	last    time.Time
	rng     *rand.Rand
	changed chan struct{} // closed and replaced by every change
	moments []time.Time   // of the changes that are not yet older than the longest lag
	sweeps  int

	vpcs         store[VPC]
	subnets      store[Subnet]
	reservations store[Reservation]
	groups       store[SecurityGroup]
	instances    store[Instance]
	enis         store[ENI]
	templates    store[LaunchTemplate]

	spaces map[string]*space // by subnet: who holds which address now
	tokens map[string]replay // by action and client token
}

// New makes an empty account. It panics on a Config whose modes are not among the constants.
func New(cfg Config) *Cloud {
	cfg.Region = orDefault(cfg.Region, "us-west-2")
	cfg.AccountID = orDefault(cfg.AccountID, "123456789012")
	cfg.AssignOwned = orDefault(cfg.AssignOwned, AssignOwnedOK)
	cfg.MixedBatch = orDefault(cfg.MixedBatch, MixedBatchAtomic)
	if !slices.Contains([]string{AssignOwnedOK, AssignOwnedError}, cfg.AssignOwned) {
		panic("vpc: unknown AssignOwned " + cfg.AssignOwned)
	}
	if !slices.Contains([]string{MixedBatchAtomic, MixedBatchPartial}, cfg.MixedBatch) {
		panic("vpc: unknown MixedBatch " + cfg.MixedBatch)
	}
	return &Cloud{
		cfg:     cfg,
		rng:     rand.New(rand.NewPCG(cfg.Seed, 0x6d756c747573)),
		changed: make(chan struct{}),
		spaces:  map[string]*space{},
		tokens:  map[string]replay{},
	}
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// Region is the Region that the account is looked at in.
func (c *Cloud) Region() string { return c.cfg.Region }

// AccountID is the account that owns everything.
func (c *Cloud) AccountID() string { return c.cfg.AccountID }

// Lags returns how late each reader sees a change.
func (c *Cloud) Lags() Propagation { return c.cfg.Propagation }

// Changed returns a channel that is closed at the next change of anything. Take it before reading a [View], so that no
// change falls in between.
func (c *Cloud) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// NextChange returns when a change that was already made will reach the data path, if there is one that has not by now.
// Together with [Cloud.Changed] it lets the fabric wait without polling.
func (c *Cloud) NextChange(now time.Time) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lag := c.cfg.Propagation.Route
	i, _ := slices.BinarySearchFunc(c.moments, now, func(at, now time.Time) int {
		if at.Add(lag).After(now) {
			return 1
		}
		return -1
	})
	if i == len(c.moments) {
		return time.Time{}, false
	}
	return c.moments[i].Add(lag), true
}
