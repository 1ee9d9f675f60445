// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package scenario

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/asgapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Parse reads a scenario file. Its error is a [*strictyaml.Error] with everything that is wrong, EC2's own objections
// included: what Parse accepts, [Build] can build.
func Parse(data []byte) (*Scenario, error) {
	var s Scenario
	var p strictyaml.Problems
	strictyaml.Decode(data, &s, "", &p)
	s.validate(&p)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if _, err := Build(&s, nil); err != nil {
		return nil, err
	}
	return &s, nil
}

// validate reports what can be told without EC2's rules.
func (s *Scenario) validate(p *strictyaml.Problems) {
	requireCIDR(s.VPC.CIDR, "vpc.cidr", p)
	checkHostBits(s.VPC.CIDR, "vpc.cidr", p)
	checkHostBits(s.VPC.IPv6, "vpc.ipv6", p)
	if len(s.Subnets) == 0 {
		p.Addf("subnets", "there must be at least one")
	}
	names := map[string]string{}
	for i := range s.Subnets {
		path := fmt.Sprintf("subnets[%d]", i)
		checkName(s.Subnets[i].Name, path, names, p)
		s.validateSubnet(i, path, p)
	}
	clear(names)
	for i := range s.Instances {
		path := fmt.Sprintf("instances[%d]", i)
		checkName(s.Instances[i].Name, path, names, p)
		s.validateInstance(&s.Instances[i], path, p)
	}
	s.EC2.validate("ec2", p)
	s.AutoScaling.weather(s.EC2).Validate("autoScaling", asgapi.Actions(), p)
	if s.Events.Duplicates < 0 {
		p.Addf("events.duplicates", "must not be negative")
	}
	if s.Events.Delay < 0 {
		p.Addf("events.delay", "must not be negative")
	}
	if s.Functions.RetryAfter < 0 {
		p.Addf("functions.retryAfter", "must not be negative")
	}
}

func requireCIDR(c netip.Prefix, path string, p *strictyaml.Problems) {
	if !c.IsValid() {
		p.Addf(path, "is missing")
	}
}

func checkHostBits(c netip.Prefix, path string, p *strictyaml.Problems) {
	if c.IsValid() && c.Masked() != c {
		p.Addf(path, "%s has host bits set; the network is %s", c, c.Masked())
	}
}

// nameSyntax keeps names usable as names of network namespaces and in paths.
var nameSyntax = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

func checkName(name, path string, seen map[string]string, p *strictyaml.Problems) {
	at := strictyaml.Join(path, "name")
	switch other, taken := seen[name]; {
	case name == "":
		p.Addf(at, "is missing")
	case len(name) > 63 || !nameSyntax.MatchString(name):
		p.Addf(at, "%q is not a name: letters, digits, dots, dashes and underscores, at most 63, none of the signs at an end", name)
	case taken:
		p.Addf(at, "%q is also the name of %s", name, other)
	default:
		seen[name] = path
	}
}

// zoneSyntax is a Region's name with a zone's letter.
var zoneSyntax = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]+[a-z]$`)

func regionOf(az string) string { return az[:max(0, len(az)-1)] }

func (s *Scenario) validateSubnet(i int, path string, p *strictyaml.Problems) {
	n := s.Subnets[i]
	if !n.IPv6.IsValid() {
		requireCIDR(n.CIDR, strictyaml.Join(path, "cidr"), p)
	}
	checkHostBits(n.CIDR, strictyaml.Join(path, "cidr"), p)
	checkHostBits(n.IPv6, strictyaml.Join(path, "ipv6"), p)
	at := strictyaml.Join(path, "az")
	switch {
	case n.AZ == "":
		p.Addf(at, "is missing")
	case !zoneSyntax.MatchString(n.AZ):
		p.Addf(at, "%q is not an availability zone such as us-west-2a", n.AZ)
	case regionOf(n.AZ) != regionOf(s.Subnets[0].AZ):
		p.Addf(at, "%s lies in another Region than %s of subnets[0]; a lab has one", n.AZ, s.Subnets[0].AZ)
	}
	for j, r := range n.Reservations {
		at := fmt.Sprintf("%s.reservations[%d]", path, j)
		requireCIDR(r.CIDR, strictyaml.Join(at, "cidr"), p)
		checkHostBits(r.CIDR, strictyaml.Join(at, "cidr"), p)
		oneOf(r.Type, strictyaml.Join(at, "type"), p, vpc.ReservationExplicit, vpc.ReservationPrefix)
	}
}

func (s *Scenario) validateInstance(in *Instance, path string, p *strictyaml.Problems) {
	if len(in.ENIs) == 0 {
		p.Addf(strictyaml.Join(path, "enis"), "there must be at least one")
		return
	}
	primary, first := false, ""
	for j, place := range in.places() {
		e := in.ENIs[j]
		at := fmt.Sprintf("%s.enis[%d]", path, j)
		primary = primary || place == (slot{})
		oneOf(e.Link, strictyaml.Join(at, "link"), p, LinkEarly, LinkLate)
		if e.Link == LinkLate && place == (slot{}) {
			p.Addf(strictyaml.Join(at, "link"), "the primary ENI cannot be late")
		}
		families(e, at, p)
		subnet, ok := s.subnet(e.Subnet)
		if !ok {
			p.Addf(strictyaml.Join(at, "subnet"), "%q is not the name of a subnet", e.Subnet)
			continue
		}
		if first == "" {
			first = subnet.AZ
		}
		if subnet.AZ != first {
			p.Addf(strictyaml.Join(at, "subnet"), "%s lies in %s, but the instance is in %s", e.Subnet, subnet.AZ, first)
		}
	}
	if !primary {
		p.Addf(strictyaml.Join(path, "enis"), "none has device index 0 on network card 0: an instance has a primary ENI")
	}
}

func families(e ENI, path string, p *strictyaml.Problems) {
	for k, a := range e.Addresses {
		if !a.Is4() {
			p.Addf(fmt.Sprintf("%s.addresses[%d]", path, k), "%s is not an IPv4 address", a)
		}
	}
	for k, a := range e.IPv6Addresses {
		if !a.Is6() || a.Zone() != "" || a.Is4In6() {
			p.Addf(fmt.Sprintf("%s.ipv6Addresses[%d]", path, k), "%s is not an IPv6 address", a)
		}
	}
}

func (s *Scenario) subnet(name string) (Subnet, bool) {
	i := slices.IndexFunc(s.Subnets, func(n Subnet) bool { return n.Name == name })
	if i < 0 || name == "" {
		return Subnet{}, false
	}
	return s.Subnets[i], true
}

// slot is a place for an ENI in an instance; the zero slot is the primary's.
type slot struct{ card, index int }

// places is where each ENI of the instance goes.
func (in *Instance) places() []slot {
	taken := map[slot]bool{}
	for _, e := range in.ENIs {
		if e.DeviceIndex != nil {
			taken[slot{e.NetworkCard, *e.DeviceIndex}] = true
		}
	}
	out := make([]slot, len(in.ENIs))
	for j, e := range in.ENIs {
		if e.DeviceIndex != nil {
			out[j] = slot{e.NetworkCard, *e.DeviceIndex}
			continue
		}
		place := slot{card: e.NetworkCard}
		if e.NetworkCard != 0 {
			place.index = 1
		}
		for taken[place] {
			place.index++
		}
		taken[place] = true
		out[j] = place
	}
	return out
}

func (e EC2) validate(path string, p *strictyaml.Problems) {
	e.weather().Validate(path, actions(), p)
	lags := strictyaml.Join(path, "propagation")
	checkLag(e.Propagation.Route, strictyaml.Join(lags, "route"), p)
	checkLag(e.Propagation.IMDS, strictyaml.Join(lags, "imds"), p)
	checkLag(e.Propagation.Describe, strictyaml.Join(lags, "describe"), p)
	if e.Propagation.Route > e.Propagation.IMDS {
		p.Addf(strictyaml.Join(lags, "route"), "must be at most imds (%v): the metadata never shows what is not routed yet", e.Propagation.IMDS)
	}
	checkLag(e.Boot, strictyaml.Join(path, "boot"), p)
	oneOf(e.AssignOwned, strictyaml.Join(path, "assignOwned"), p, vpc.AssignOwnedOK, vpc.AssignOwnedError)
	oneOf(e.MixedBatch, strictyaml.Join(path, "mixedBatch"), p, vpc.MixedBatchAtomic, vpc.MixedBatchPartial)
}

func (e EC2) weather() front.Weather {
	return front.Weather{Latency: e.Latency, Throttle: e.Throttle, Faults: e.Faults, Seed: e.Seed}
}

// weather has the latency of EC2's, of which that endpoint reports what is wrong.
func (a AutoScaling) weather(e EC2) front.Weather {
	return front.Weather{Latency: max(0, e.Latency), Throttle: a.Throttle, Faults: a.Faults, Seed: e.Seed}
}

// maxLag is far above what EC2 shows (seconds to minutes), and keeps the past that [Build] makes up representable.
// https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
const maxLag = time.Hour

func checkLag(d time.Duration, path string, p *strictyaml.Problems) {
	if d < 0 || d > maxLag {
		p.Addf(path, "must be 0 to %v", maxLag)
	}
}

// oneOf accepts the values and nothing at all.
func oneOf(got, path string, p *strictyaml.Problems, values ...string) {
	if got != "" && !slices.Contains(values, got) {
		p.Addf(path, "%q is neither %s", got, strings.Join(values, " nor "))
	}
}
