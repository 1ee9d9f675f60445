// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/asgapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/ec2api"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/iam"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/metadata"
	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Lab is a scenario come to life, without a network of its own: its services are handlers and round trippers. It starts
// no goroutines by itself, so there is nothing to stop.
type Lab struct {
	Cloud *vpc.Cloud
	Front *front.Front // the EC2 endpoint
	// Metadata, Instances and ENIs are by the names of the scenario's instances; Subnets by theirs.
	Metadata  map[string]*metadata.Service
	Instances map[string]string   // instance IDs
	ENIs      map[string][]string // ENI IDs, in the order of the scenario
	Subnets   map[string]string   // subnet IDs
	VPC       string              // its ID

	// The services that launch further instances and act on that. They stand still unless [Lab.Run] runs.
	Scaling      *autoscaling.Service
	ScalingFront *front.Front // the Auto Scaling endpoint
	Events       *events.Bus
	Functions    *lambda.Service
	Roles        *iam.Service // of what calls the two endpoints

	early map[string]bool // ENI IDs
	now   func() time.Time

	mu    sync.Mutex
	later map[string]*metadata.Service // by the ID of an instance that the scenario does not have
}

// EC2 is the endpoint as a transport, for an SDK client in the same process.
func (l *Lab) EC2() http.RoundTripper { return l.Front.RoundTripper() }

// AutoScaling is the Auto Scaling endpoint as a transport.
func (l *Lab) AutoScaling() http.RoundTripper { return l.ScalingFront.RoundTripper() }

// Run lets time pass for Auto Scaling, EventBridge and Lambda until ctx ends. When it returns no function runs any more.
func (l *Lab) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { l.Scaling.Run(ctx) })
	running.Go(func() { l.Events.Run(ctx) })
	running.Go(func() { l.Functions.Run(ctx) })
	running.Wait()
}

// IMDS is the metadata of the instance of that name as a transport, nil when the scenario has no such instance.
func (l *Lab) IMDS(name string) http.RoundTripper {
	if m, ok := l.Metadata[name]; ok {
		return front.InProcess(m)
	}
	return nil
}

// MetadataOf is the metadata of any instance by its ID, those that were launched later included.
func (l *Lab) MetadataOf(instanceID string) *metadata.Service {
	for name, id := range l.Instances {
		if id == instanceID {
			return l.Metadata[name]
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.later[instanceID]
	if !ok {
		s = metadata.New(metadata.Config{Cloud: l.Cloud, InstanceID: instanceID, Now: l.now})
		l.later[instanceID] = s
	}
	return s
}

// Early reports whether an ENI was there when its instance booted. One that was created later never is.
func (l *Lab) Early(eniID string) bool { return l.early[eniID] }

// Build makes the lab that s describes. Its clock is now, [time.Now] when nil, which a synctest bubble controls. What s
// describes has existed longer than any propagation lag when Build returns. The error is a [*strictyaml.Error].
func Build(s *Scenario, now func() time.Time) (*Lab, error) {
	if now == nil {
		now = time.Now
	}
	var p strictyaml.Problems
	s.validate(&p)
	if err := p.Err(); err != nil {
		return nil, err
	}
	b := builder{scenario: s, problems: &p, settled: s.settled(), lab: &Lab{
		Metadata:  make(map[string]*metadata.Service),
		Instances: make(map[string]string),
		ENIs:      make(map[string][]string),
		Subnets:   make(map[string]string),
		early:     make(map[string]bool),
		later:     make(map[string]*metadata.Service),
		now:       now,
		Cloud: vpc.New(vpc.Config{
			Region: regionOf(s.Subnets[0].AZ),
			Propagation: vpc.Propagation{
				Route: s.EC2.Propagation.Route, IMDS: s.EC2.Propagation.IMDS, Describe: s.EC2.Propagation.Describe,
			},
			Boot:        s.EC2.Boot,
			AssignOwned: s.EC2.AssignOwned,
			MixedBatch:  s.EC2.MixedBatch,
			Seed:        s.EC2.Seed,
		}),
	}}
	b.network(now().Add(-3 * b.settled))
	b.interfaces(now().Add(-2 * b.settled))
	b.instances(now().Add(-b.settled), now)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if err := b.mountFront(now); err != nil {
		return nil, err
	}
	return b.lab, b.mountScaling(now)
}

// settled is a time after which all readers see a change.
func (s *Scenario) settled() time.Duration {
	l := s.EC2.Propagation
	return max(l.Route, l.IMDS, l.Describe) + time.Minute
}

// actions that the lab's EC2 knows.
func actions() []string { return ec2api.Actions() }

func (b *builder) mountFront(now func() time.Time) (err error) {
	b.lab.Roles = iam.New(b.lab.Cloud.AccountID())
	b.lab.Front, err = front.New(front.Config{
		API:     b.lab.Roles.GuardEC2(b.lab.Cloud, now, ec2api.Handler(b.lab.Cloud, now)),
		Actions: actions(),
		Now:     now,
		Caller:  metadata.Caller,
		Weather: b.scenario.EC2.weather(),
	})
	return err
}

// mountScaling adds what launches instances by itself, and what that causes.
func (b *builder) mountScaling(now func() time.Time) (err error) {
	cloud, seed := b.lab.Cloud, b.scenario.EC2.Seed
	b.lab.Events = events.New(events.Config{
		Account: cloud.AccountID(), Region: cloud.Region(), Mischief: b.scenario.Events, Seed: seed,
	})
	b.lab.Scaling = autoscaling.New(autoscaling.Config{Cloud: cloud, Publish: b.lab.Events.Put, Seed: seed})
	b.lab.Functions = lambda.New(lambda.Config{
		Account: cloud.AccountID(), Region: cloud.Region(), RetryAfter: b.scenario.Functions.RetryAfter,
	})
	b.lab.ScalingFront, err = front.New(front.Config{
		API:     b.lab.Roles.GuardAutoScaling(b.lab.Scaling, asgapi.Handler(b.lab.Scaling, cloud, now)),
		Actions: asgapi.Actions(),
		Now:     now,
		Caller:  metadata.Caller,
		Errors:  asgapi.WriteError,
		// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html
		Throttled: "Throttling",
		Weather:   b.scenario.AutoScaling.weather(b.scenario.EC2),
	})
	return err
}

// builder makes the account in three steps that lie in the past, a settling time apart. It goes on after a refusal, so
// that all are reported, and leaves out what depends on the refused.
type builder struct {
	scenario *Scenario
	lab      *Lab
	problems *strictyaml.Problems
	settled  time.Duration
}

// refused reports an objection of EC2, and whether there was one.
func (b *builder) refused(path string, err error) bool {
	if err == nil {
		return false
	}
	if e, ok := errors.AsType[*vpc.APIError](err); ok {
		b.problems.Addf(path, "EC2 refuses it: %s (%s)", e.Message, e.Code)
	} else {
		b.problems.Addf(path, "%v", err)
	}
	return true
}

func named(tags map[string]string, name string) map[string]string {
	out := make(map[string]string, len(tags)+1)
	maps.Copy(out, tags)
	out["Name"] = name
	return out
}

func (b *builder) network(at time.Time) {
	v, err := b.lab.Cloud.AddVPC(at, vpc.VPCSetup{
		Name: "lab", IPv4: b.scenario.VPC.CIDR, IPv6: b.scenario.VPC.IPv6, Tags: b.scenario.VPC.Tags,
	})
	if b.refused("vpc", err) {
		return
	}
	b.lab.VPC = v.ID
	for i, n := range b.scenario.Subnets {
		path := fmt.Sprintf("subnets[%d]", i)
		made, err := b.lab.Cloud.AddSubnet(at, vpc.SubnetSetup{
			Name: n.Name, VPCID: v.ID, AZ: n.AZ, IPv4: n.CIDR, IPv6: n.IPv6, Tags: n.Tags,
		})
		if b.refused(path, err) {
			continue
		}
		b.lab.Subnets[n.Name] = made.ID
		for j, r := range n.Reservations {
			_, err := b.lab.Cloud.CreateSubnetCIDRReservation(at, vpc.CreateSubnetCIDRReservationInput{
				SubnetID: made.ID, CIDR: r.CIDR, Type: reservationType(r), Description: r.Description, Tags: r.Tags,
			})
			b.refused(fmt.Sprintf("%s.reservations[%d]", path, j), err)
		}
	}
}

func reservationType(r Reservation) string {
	if r.Type == "" {
		return vpc.ReservationExplicit
	}
	return r.Type
}

// interfaces makes the ENIs that name addresses first, so that EC2 does not choose these for the others.
func (b *builder) interfaces(at time.Time) {
	for _, in := range b.scenario.Instances {
		b.lab.ENIs[in.Name] = make([]string, len(in.ENIs))
	}
	for _, named := range []bool{true, false} {
		for i, in := range b.scenario.Instances {
			for j, e := range in.ENIs {
				if named == (len(e.Addresses)+len(e.IPv6Addresses) > 0) {
					b.networkInterface(at, in.Name, j, e, fmt.Sprintf("instances[%d].enis[%d]", i, j))
				}
			}
		}
	}
}

func (b *builder) networkInterface(at time.Time, instance string, j int, e ENI, path string) {
	subnet, ok := b.lab.Subnets[e.Subnet]
	if !ok {
		return // refused, and reported
	}
	request := vpc.AddressRequest{IPv6: e.IPv6Addresses}
	if len(e.Addresses) > 0 {
		request.Primary, request.Secondary = e.Addresses[0], e.Addresses[1:]
	}
	made, err := b.lab.Cloud.CreateNetworkInterface(at, vpc.CreateNetworkInterfaceInput{SubnetID: subnet, Tags: e.Tags, AddressRequest: request})
	if b.refused(path, err) {
		return
	}
	b.lab.ENIs[instance][j] = made.ID
	b.lab.early[made.ID] = e.Link != LinkLate
}

func (b *builder) instances(at time.Time, now func() time.Time) {
	for i, in := range b.scenario.Instances {
		ids := b.lab.ENIs[in.Name]
		if slices.Contains(ids, "") {
			continue // one was refused, and reported
		}
		dies := true
		specs := make([]vpc.InterfaceSpec, len(ids))
		for j, place := range in.places() {
			specs[j] = vpc.InterfaceSpec{
				NetworkInterfaceID: ids[j], NetworkCardIndex: place.card, DeviceIndex: place.index, DeleteOnTermination: &dies,
			}
		}
		made, err := b.lab.Cloud.RunInstances(at, vpc.RunInstancesInput{
			ImageID: imageID, InstanceType: instanceType(in), MinCount: 1, MaxCount: 1, Interfaces: specs, Tags: named(in.Tags, in.Name),
		})
		if b.refused(fmt.Sprintf("instances[%d]", i), err) {
			continue
		}
		id := made.Instances[0].ID
		b.lab.Instances[in.Name] = id
		b.lab.Metadata[in.Name] = metadata.New(metadata.Config{Cloud: b.lab.Cloud, InstanceID: id, Now: now})
	}
}

// imageID is that of no image: the lab has none.
const imageID = "ami-0123456789abcdef0"

func instanceType(in Instance) string {
	if in.Type == "" {
		return DefaultInstanceType
	}
	return in.Type
}
