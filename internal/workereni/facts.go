// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// read collects what EC2 says of the worker, as far as it is not known or has to be looked at again. What does not change during a
// run is read once.
func (r *run) read(ctx context.Context) (err error) {
	if r.worker.ID == "" {
		if r.worker, err = r.find(ctx); err != nil {
			return err
		}
	}
	if r.worker.Gone() {
		return fmt.Errorf("%w: %s is %s", ErrGone, r.q.Instance, r.worker.State)
	}
	if _, shown := r.worker.Primary(); !shown { // it says when the worker was launched, and what else is attached
		r.forget(true)
		return fmt.Errorf("%w: EC2 does not show the primary ENI of %s yet", errLater, r.q.Instance)
	}
	if !r.looked {
		if r.ours, err = r.ec2.DevicesTagged(ctx, r.cfg.identity(r.q.Instance)); err != nil {
			return err
		}
		r.looked, r.seen = true, time.Now()
	}
	if err := r.readOnce(ctx, r.worker); err != nil {
		return err
	}
	return r.readHeld(ctx)
}

// find reads the worker. EC2 may know it only later, or, an hour or so after it has ended, no more.
func (r *run) find(ctx context.Context) (eni.Worker, error) {
	workers, err := r.ec2.Workers(ctx, []eni.InstanceID{r.q.Instance})
	switch {
	case err != nil:
		return eni.Worker{}, err
	case len(workers) > 0:
		r.absent = time.Time{}
		return workers[0], nil
	case r.absent.IsZero():
		r.absent = time.Now()
	case time.Since(r.absent) > memoryTime:
		return eni.Worker{}, fmt.Errorf("%w: EC2 knows no %s", ErrGone, r.q.Instance)
	}
	return eni.Worker{}, fmt.Errorf("instance %s: %w", r.q.Instance, eni.ErrNotFound)
}

// facts are what read has collected.
func (r *run) facts() Facts {
	ours := slices.DeleteFunc(slices.Clone(r.ours), func(d eni.Device) bool { return r.passedOver[d.ID] })
	return Facts{Now: time.Now(), Worker: r.worker, Layout: r.layout, Subnets: r.subnets, Groups: r.groups, Ours: ours, Held: r.held}
}

// forget has the next pass look again: at our ENIs, and after a surprise at the worker as well.
func (r *run) forget(surprise bool) {
	r.looked = false
	if surprise {
		r.worker = eni.Worker{}
	}
}

func (r *run) readOnce(ctx context.Context, w eni.Worker) (err error) {
	if r.settled {
		return nil
	}
	if r.layout, err = r.ec2.Layout(ctx, w.Type); err != nil {
		return err
	}
	if r.subnets, err = r.readSubnets(ctx, w); err != nil {
		return err
	}
	if groups := r.cfg.groups(); len(groups) > 0 {
		if r.groups, err = r.ec2.Groups(ctx, groups); err != nil {
			return err
		}
	}
	r.settled = true
	return nil
}

// readSubnets reads the subnets that the configuration names, and those that it means by their tags.
func (r *run) readSubnets(ctx context.Context, w eni.Worker) (all []eni.Subnet, err error) {
	if ids := r.cfg.subnets(); len(ids) > 0 {
		if all, err = r.ec2.SubnetsFound(ctx, ids); err != nil {
			return nil, err
		}
	}
	for n, i := range r.cfg.Interfaces {
		same := func(o Interface) bool { return maps.Equal(o.SubnetTags, i.SubnetTags) }
		if len(i.SubnetTags) == 0 || slices.ContainsFunc(r.cfg.Interfaces[:n], same) {
			continue
		}
		found, err := r.ec2.SubnetsTagged(ctx, w.VPC, i.SubnetTags)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			if !slices.ContainsFunc(all, func(o eni.Subnet) bool { return o.ID == s.ID }) {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// readHeld reads the subnets out of which addresses are still to be chosen.
func (r *run) readHeld(ctx context.Context) (err error) {
	merged := r.merge(r.facts())
	targets, _ := merged.targets(r.cfg)
	mine := merged.mine(targets)
	for _, t := range targets {
		_, exists := mine[t.Slot]
		if _, known := r.held[t.Subnet]; known || exists || t.Addressing == DHCP && t.Stock == 0 || !t.In.IPv4.IsValid() {
			continue
		}
		reservations, known := r.reservations[t.Subnet]
		if !known {
			if reservations, err = r.ec2.Reservations(ctx, t.Subnet); err != nil {
				return err
			}
			r.reservations[t.Subnet] = reservations
		}
		devices, err := r.ec2.DevicesIn(ctx, t.Subnet)
		if err != nil {
			return err
		}
		r.held[t.Subnet] = NewHeld(reservations, devices)
	}
	return nil
}
