// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package sweep finds addresses that are registered on workers' ENIs for pods which are gone, and gives them back to EC2.
// `vpcctl sweep` uses it. An address is freed only when two looks, some time apart, both show an orphan: no pod of the cluster
// has it or may be about to, and no agent keeps it as stock. It never frees a primary address, and nothing at all when EC2 or
// Kubernetes cannot be asked. What a look shows is judged by a pure function; who prints it, and how EC2 and Kubernetes are
// reached, does not belong here.
package sweep

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// EC2 is what a sweep asks of EC2.
type EC2 interface {
	// InterfacesTagged reads the ENIs with the tag, of these subnets or of all.
	InterfacesTagged(ctx context.Context, key, value string, subnets []eni.SubnetID) ([]eni.Interface, error)
	Interfaces(ctx context.Context, ids []eni.ID) ([]eni.Interface, error)
	Reservations(ctx context.Context, id eni.SubnetID) ([]eni.Reservation, error)
	Unassign(ctx context.Context, id eni.ID, addrs []netip.Addr) error
	UnassignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error
}

// Kubernetes is what a sweep asks of the cluster: everything of a kind, in all namespaces.
type Kubernetes interface {
	Pods(ctx context.Context) ([]cluster.Pod, error)
	Nodes(ctx context.Context) ([]cluster.Node, error)
	Networks(ctx context.Context) ([]cluster.Network, error)
}

// DefaultWait is the time between the two looks: a pod that is being moved has its address again by then, and what EC2 and
// Kubernetes show has settled.
const DefaultWait = time.Minute

// Options say what to sweep.
type Options struct {
	// Cluster is the name of the cluster, for ENIs that carry it in a tag and are on no instance; with it, others without that
	// tag are not looked at.
	Cluster string
	// Subnets to look at; none means all.
	Subnets []eni.SubnetID
	// Ranges to look at, in which no pod takes addresses by itself; none means all addresses.
	Ranges []attachment.Range
	// Keep are ranges of which nothing is freed.
	Keep []attachment.Range
	// Free the orphans; otherwise one look is all.
	Free bool
	// Wait between the looks.
	Wait time.Duration
	// Tell gets a line about what goes on, for who waits. Nil means nobody.
	Tell func(line string)
}

// Verdict is what a sweep makes of an address.
type Verdict string

// The verdicts.
const (
	Kept   Verdict = "kept"
	Orphan Verdict = "orphan" // may be freed, and has not been
	Freed  Verdict = "freed"
	Gone   Verdict = "gone"   // was no longer on the ENI when it should be freed
	Failed Verdict = "failed" // could not be freed
)

// Finding is an address on an ENI and what became of it.
type Finding struct {
	Address  netip.Addr     `json:"address"`
	ENI      eni.ID         `json:"eni"`
	SubnetID eni.SubnetID   `json:"subnetID"`
	Instance eni.InstanceID `json:"instance,omitempty"`
	Node     string         `json:"node,omitempty"`
	Verdict  Verdict        `json:"verdict"`
	Reason   string         `json:"reason"`
}

func (f Finding) place() place { return place{f.ENI, f.Address} }

// place is an address on an ENI. Elsewhere the same address is another matter.
type place struct {
	eni     eni.ID
	address netip.Addr
}

// Report is what came of a sweep.
type Report struct {
	ENIs     int       `json:"enis"`
	Pods     int       `json:"pods"`
	Findings []Finding `json:"addresses"`
}

// Count says how many findings have the verdict.
func (r Report) Count(v Verdict) (n int) {
	for _, f := range r.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Sweeper sweeps.
type Sweeper struct {
	EC2        EC2
	Kubernetes Kubernetes
}

// freshness is how old a look may be when an address is freed by it: pods come meanwhile.
const freshness = 5 * time.Second

// Run looks, and where it is to free looks again and frees. With an error the report has what was done until then. That an
// address could not be freed is a finding, and no error.
func (s *Sweeper) Run(ctx context.Context, o Options) (Report, error) {
	if o.Tell == nil {
		o.Tell = func(string) {}
	}
	report, err := s.look(ctx, o)
	if err != nil || !o.Free || report.Count(Orphan) == 0 {
		return report, err
	}
	o.Tell(fmt.Sprintf("%d of %d addresses are orphans", report.Count(Orphan), len(report.Findings)))
	if err = wait(ctx, o); err != nil {
		return report, err
	}
	first := orphans(report)
	if report, err = s.look(ctx, o); err != nil {
		return Report{}, err
	}
	report.onlyIn(first, "was no orphan at the first look")
	return s.freeAll(ctx, o, report)
}

// wait lets the time between the looks pass, and tells.
func wait(ctx context.Context, o Options) error {
	const step = 10 * time.Second
	for left := o.Wait; left > 0; left -= step {
		o.Tell(fmt.Sprintf("the second look is in %v", left))
		if err := pause(ctx, min(step, left)); err != nil {
			return fmt.Errorf("wait for the second look: %w", err)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// look reads everything and judges it. EC2 is read first: a pod that had an address then is in the list that is read after, or
// gone in between.
func (s *Sweeper) look(ctx context.Context, o Options) (Report, error) {
	var v view
	err := reading(ctx, func() (readErr error) {
		v.interfaces, readErr = s.EC2.InterfacesTagged(ctx, eni.TagNoManage, "true", o.Subnets)
		return readErr
	})
	if err != nil {
		return Report{}, err
	}
	v.interfaces = slices.DeleteFunc(v.interfaces, func(i eni.Interface) bool {
		return i.IsPrimary() && i.InstanceID != "" || o.Cluster != "" && !eni.OfCluster(i.Tags, o.Cluster)
	})
	v.reservations = map[eni.SubnetID][]eni.Reservation{}
	for _, i := range v.interfaces {
		if _, known := v.reservations[i.SubnetID]; known {
			continue
		}
		err = reading(ctx, func() (readErr error) {
			v.reservations[i.SubnetID], readErr = s.EC2.Reservations(ctx, i.SubnetID)
			return readErr
		})
		if err != nil {
			return Report{}, err
		}
	}
	if v.networks, err = s.Kubernetes.Networks(ctx); err != nil {
		return Report{}, err
	}
	if v.nodes, err = s.Kubernetes.Nodes(ctx); err != nil {
		return Report{}, err
	}
	if v.pods, err = s.Kubernetes.Pods(ctx); err != nil {
		return Report{}, err
	}
	v.at = time.Now()
	return Report{ENIs: len(v.interfaces), Pods: len(v.pods), Findings: v.judge(o)}, nil
}

func orphans(r Report) map[place]bool {
	found := map[place]bool{}
	for _, f := range r.Findings {
		if f.Verdict == Orphan {
			found[f.place()] = true
		}
	}
	return found
}

// onlyIn keeps orphans that are not among those of another look.
func (r Report) onlyIn(other map[place]bool, reason string) {
	for i, f := range r.Findings {
		if f.Verdict == Orphan && !other[f.place()] {
			r.Findings[i].Verdict, r.Findings[i].Reason = Kept, reason
		}
	}
}
