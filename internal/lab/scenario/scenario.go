// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package scenario makes a whole lab out of one description: a VPC with subnets, reservations and workers, the endpoint
// with its weather, and the instance metadata of every worker. The description is a [Scenario], written in Go by tests
// and in YAML by people. Everything that is wrong with a file is reported at once, with the paths of the fields; what
// only EC2's rules can tell (an address that is taken, an ENI too many) is reported in EC2's words. Serving the lab on
// sockets and forwarding its packets belong to the packages that import this one.
package scenario

import (
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
)

// Scenario describes a lab.
type Scenario struct {
	VPC       VPC        `json:"vpc"`
	Subnets   []Subnet   `json:"subnets"`
	Instances []Instance `json:"instances"`
	EC2       EC2        `json:"ec2"`
	// AutoScaling is how the Auto Scaling endpoint behaves; its latency is EC2's.
	AutoScaling AutoScaling `json:"autoScaling"`
	// Events is how EventBridge delivers; by default each event once, at once.
	Events events.Mischief `json:"events"`
	// Functions is how Lambda behaves.
	Functions Functions `json:"functions"`
}

// Functions is how Lambda behaves.
type Functions struct {
	// RetryAfter is how long the first retry of an event waits that a function failed at, and half of what the second does;
	// default 1m, as with AWS.
	RetryAfter time.Duration `json:"retryAfter"`
}

// VPC is the one VPC of the lab.
type VPC struct {
	CIDR netip.Prefix      `json:"cidr"` // IPv4, /16 to /28; required
	IPv6 netip.Prefix      `json:"ipv6"` // usually a /56; default none
	Tags map[string]string `json:"tags"`
}

// Subnet is a subnet of the VPC. The Region of the lab is the one that all availability zones lie in.
type Subnet struct {
	Name         string            `json:"name"` // required, unique; becomes the tag Name
	CIDR         netip.Prefix      `json:"cidr"` // IPv4, /16 to /28; this or IPv6 is required
	IPv6         netip.Prefix      `json:"ipv6"` // a /64; default none
	AZ           string            `json:"az"`   // availability zone, "us-west-2a"; required
	Tags         map[string]string `json:"tags"`
	Reservations []Reservation     `json:"reservations"`
}

// Reservation is a subnet CIDR reservation.
type Reservation struct {
	CIDR        netip.Prefix      `json:"cidr"` // inside the subnet; required
	Type        string            `json:"type"` // explicit (default) or prefix
	Description string            `json:"description"`
	Tags        map[string]string `json:"tags"`
}

// Instance is a running worker.
type Instance struct {
	Name string            `json:"name"` // required, unique; becomes the tag Name
	Type string            `json:"type"` // default m5.2xlarge
	ENIs []ENI             `json:"enis"` // at least one; one of them is the primary: device index 0 on card 0
	Tags map[string]string `json:"tags"`
}

// DefaultInstanceType is the type of an [Instance] that names none: 4 ENIs of 15 IPv4 addresses.
const DefaultInstanceType = "m5.2xlarge"

// ENI is an elastic network interface, attached to its instance from the start.
type ENI struct {
	Subnet        string       `json:"subnet"`        // name of a subnet; required
	Addresses     []netip.Addr `json:"addresses"`     // IPv4, the primary first; by default EC2 chooses a primary
	IPv6Addresses []netip.Addr `json:"ipv6Addresses"` // default none
	NetworkCard   int          `json:"networkCard"`   // default 0
	// DeviceIndex of the attachment; by default the next one that is free on the card, counted from 0 on card 0 and from
	// 1 on the others.
	DeviceIndex *int `json:"deviceIndex"`
	// Link says how the worker's operating system meets the ENI: "early" (default; there at boot, so it is up and has
	// its primary address) or "late" (attached after boot: down and without an address, as on AL2023).
	// https://github.com/awslabs/amazon-eks-ami/issues/2180
	Link string            `json:"link"`
	Tags map[string]string `json:"tags"`
}

// Values of [ENI.Link].
const (
	LinkEarly = "early"
	LinkLate  = "late"
)

// EC2 is how EC2 behaves. What is left out is ideal: no latency, no lag, no throttling, no faults.
type EC2 struct {
	Latency     time.Duration  `json:"latency"` // round trip of a request
	Propagation Propagation    `json:"propagation"`
	Boot        time.Duration  `json:"boot"`        // for how long an instance that is launched is pending
	AssignOwned string         `json:"assignOwned"` // assigning an address that the ENI has already: ok (default) or error
	MixedBatch  string         `json:"mixedBatch"`  // assigning free and taken addresses in one call: atomic (default) or partial
	Throttle    front.Throttle `json:"throttle"`
	Faults      []front.Fault  `json:"faults"`
	// Seed decides IDs, the addresses that EC2 chooses, and which calls meet a fault with a probability; default 0.
	Seed uint64 `json:"seed"`
}

// AutoScaling is how the Auto Scaling endpoint behaves. What is left out is ideal.
type AutoScaling struct {
	Throttle front.Throttle `json:"throttle"`
	Faults   []front.Fault  `json:"faults"`
}

// Propagation is how long a change takes to be routed, and to be shown. Route is at most IMDS.
type Propagation struct {
	Route    time.Duration `json:"route"`
	IMDS     time.Duration `json:"imds"`
	Describe time.Duration `json:"describe"`
}
