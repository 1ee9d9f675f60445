// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// EC2 is the part of the EC2 API that [Direct] needs. Errors match the sentinels of package eni. Implementations do not retry.
type EC2 interface {
	Subnets(ctx context.Context, ids []eni.SubnetID) ([]eni.Subnet, error)
	// Interfaces describes ENIs of any instance; those that do not exist are absent.
	Interfaces(ctx context.Context, ids []eni.ID) ([]eni.Interface, error)
	// Owners says which ENI holds each of the addresses; those that nobody holds are absent.
	Owners(ctx context.Context, subnet eni.SubnetID, addrs []netip.Addr) (map[netip.Addr]eni.ID, error)
	// Assign names addresses. With reassign false it is a compare-and-set: EC2 refuses what another ENI holds.
	Assign(ctx context.Context, id eni.ID, addrs []netip.Addr, reassign bool) error
	Unassign(ctx context.Context, id eni.ID, addrs []netip.Addr) error
	// AssignIPv6 names addresses; EC2 refuses what another ENI holds.
	AssignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error
	UnassignIPv6(ctx context.Context, id eni.ID, addrs []netip.Addr) error
}

// Locator finds the worker's ENI by its MAC: the instance metadata, or EC2 where pods do not reach it. An ENI that is not there
// matches [eni.ErrNotFound].
type Locator interface {
	Locate(ctx context.Context, mac eni.MAC) (eni.Interface, error)
	// Held lists addresses that the ENI surely has had a few seconds ago, at no cost of an EC2 call; without such a source, none.
	Held(ctx context.Context, mac eni.MAC) ([]netip.Addr, error)
}

// Timings of [Direct].
const (
	// conflictPatience is how long the old owner of an address may take to give it back, asked each pollInterval.
	conflictPatience = 5 * time.Second
	pollInterval     = time.Second
	// readsBehind is how old an assignment of ours is at most that reads may still show though the address has moved on. EC2's
	// refusal is then believed instead; otherwise it refuses because the address is here already.
	readsBehind = 15 * time.Second
	// confirmPatience is how long a change is waited for in what EC2 shows, asked each confirmInterval and then ever more rarely.
	// https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
	confirmPatience    = 30 * time.Second
	confirmInterval    = 250 * time.Millisecond
	confirmIntervalCap = 4 * time.Second
)

// Direct is the [Registrar] that calls EC2 itself, for clusters without the agent.
type Direct struct {
	ec2    EC2
	locate Locator

	mu       sync.Mutex
	known    map[eni.MAC]place
	assigned map[netip.Addr]time.Time // what this registrar assigned in the last [readsBehind]
}

// place is an ENI and its subnet.
type place struct {
	eni    eni.Interface
	subnet eni.Subnet
}

// NewDirect makes a registrar.
func NewDirect(ec2 EC2, locate Locator) *Direct {
	return &Direct{ec2: ec2, locate: locate, known: map[eni.MAC]place{}, assigned: map[netip.Addr]time.Time{}}
}

// lately reports whether the address was assigned by us a short time ago.
func (d *Direct) lately(a netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.assigned[a]
	return ok && time.Since(at) < readsBehind
}

// note remembers what was assigned.
func (d *Direct) note(results map[netip.Addr]Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.assigned, func(_ netip.Addr, at time.Time) bool { return time.Since(at) >= readsBehind })
	for a, r := range results {
		if r.New {
			d.assigned[a] = time.Now()
		}
	}
}

// place finds the ENI of a pod's interface. Who has which MAC does not change while an ENI lives, so it is asked once, and again after
// it made an address impossible.
func (d *Direct) place(ctx context.Context, i attachment.Interface) (place, error) {
	d.mu.Lock()
	p, ok := d.known[i.MAC]
	d.mu.Unlock()
	if ok {
		return p, nil
	}
	e, err := d.locate.Locate(ctx, i.MAC)
	if err != nil {
		return place{}, fmt.Errorf("find the ENI of %s by its MAC %s: %w", i.Name, i.MAC, err)
	}
	subnets, err := d.ec2.Subnets(ctx, []eni.SubnetID{e.SubnetID})
	if err != nil {
		return place{}, fmt.Errorf("read subnet %s of %s: %w", e.SubnetID, e.ID, err)
	}
	if len(subnets) != 1 {
		return place{}, fmt.Errorf("subnet %s of %s: %w", e.SubnetID, e.ID, eni.ErrNotFound)
	}
	p = place{e, subnets[0]}
	d.mu.Lock()
	d.known[i.MAC] = p
	d.mu.Unlock()
	return p, nil
}

// forget has the ENI and its subnet asked for again.
func (d *Direct) forget(mac eni.MAC) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, mac)
}

// Register implements [Registrar]. Several addresses take one call for each family; when EC2 refuses a batch for one of them,
// the others are sent again at once.
func (d *Direct) Register(ctx context.Context, i attachment.Interface, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]Result {
	results := map[netip.Addr]Result{}
	p, err := d.place(ctx, i)
	if err != nil {
		return all(results, addrs, err)
	}
	var possible []netip.Addr
	for _, a := range addrs {
		if err := p.refuses(a); err != nil {
			results[a] = Result{Err: err}
			d.forget(i.MAC) // it may be mended: a subnet gets another block
		} else {
			possible = append(possible, a)
		}
	}
	var both sync.WaitGroup
	var mu sync.Mutex
	for _, f := range []family{d.ipv4(p), d.ipv6(p)} {
		mine := f.of(possible)
		if len(mine) == 0 {
			continue
		}
		both.Go(func() {
			got := f.register(ctx, mine, conflict)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(results, got)
		})
	}
	both.Wait()
	d.note(results)
	return results
}

// all gives every address that has no result yet the same error.
func all(results map[netip.Addr]Result, addrs []netip.Addr, err error) map[netip.Addr]Result {
	for _, a := range addrs {
		if _, ok := results[a]; !ok {
			results[a] = Result{Err: err}
		}
	}
	return results
}

// refuses says why the ENI can never hold the address.
func (p place) refuses(a netip.Addr) error {
	subnets := p.subnet.IPv6
	if a.Is4() {
		subnets = []netip.Prefix{p.subnet.IPv4}
	}
	within := slices.IndexFunc(subnets, func(s netip.Prefix) bool { return s.IsValid() && s.Contains(a) })
	switch {
	case within < 0:
		return fmt.Errorf("%w: %s is not in subnet %s %v of %s: give the pod an address of the ENI's subnet", ErrRefused, a, p.subnet.ID, subnets, p.eni.ID)
	case eni.ReservedByVPC(subnets[within], a):
		return fmt.Errorf("%w: %s is one of the five addresses of subnet %s that the VPC keeps for itself", ErrRefused, a, p.subnet.ID)
	case a == p.eni.Primary:
		return fmt.Errorf("%w: %s is the primary address of %s, the worker's own: keep it out of the pods' range", ErrRefused, a, p.eni.ID)
	}
	return nil
}

// Release implements [Registrar].
func (d *Direct) Release(ctx context.Context, i attachment.Interface, addrs []netip.Addr) error {
	p, err := d.place(ctx, i)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range []family{d.ipv4(p), d.ipv6(p)} {
		if mine := f.of(addrs); len(mine) > 0 {
			errs = append(errs, f.release(ctx, mine))
		}
	}
	return errors.Join(errs...)
}

// Standing implements [Registrar]. EC2 is asked only for what the locator does not show.
func (d *Direct) Standing(ctx context.Context, i attachment.Interface, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	p, err := d.place(ctx, i)
	if err != nil {
		return nil, err
	}
	held, err := d.locate.Held(ctx, i.MAC)
	if err != nil {
		held = nil // EC2 knows as well
	}
	standings := map[netip.Addr]attachment.Standing{}
	var asked []netip.Addr
	for _, a := range addrs {
		if slices.Contains(held, a) {
			standings[a] = attachment.Here
		} else {
			asked = append(asked, a)
		}
	}
	if len(asked) == 0 {
		return standings, nil
	}
	owners, err := d.ec2.Owners(ctx, p.subnet.ID, asked)
	if err != nil {
		return nil, err
	}
	for _, a := range asked {
		switch owner, owned := owners[a]; {
		case owner == p.eni.ID:
			standings[a] = attachment.Here
		case owned:
			standings[a] = attachment.Elsewhere
		default:
			standings[a] = attachment.Nobody
		}
	}
	return standings, nil
}
