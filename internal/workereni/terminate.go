// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"context"
	"fmt"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Terminate takes away the ENIs of a worker that ends, as far as they would be left behind: those that are not attached, and those
// that EC2 does not delete with the instance. The others serve what still runs there until EC2 deletes them. It retries until ctx
// ends, and then the error matches [ErrUnfinished].
func (f *Flow) Terminate(ctx context.Context, worker eni.InstanceID) error {
	err := f.clear(ctx, worker, func(d eni.Device) bool { return !d.Attached() || !d.DeleteOnTermination }, unseen{})
	if err != nil {
		return fmt.Errorf("take the ENIs of %s: %w", worker, err)
	}
	return nil
}

// Orphan is an ENI that a sweep looked at.
type Orphan struct {
	eni.Device
	Kept string // why it was left alone; empty when it was deleted
	Err  error  // why it could not be deleted
}

// Sweep deletes ENIs of the configuration's owner that are not attached and whose worker is gone, and was launched longer ago than
// age: EC2 may take a while to know a new instance. It returns what is not attached, and what became of it.
func (f *Flow) Sweep(ctx context.Context, age time.Duration) ([]Orphan, error) {
	all, err := f.ec2.DevicesTagged(ctx, map[string]string{TagOwner: f.cfg.Owner})
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	var found []Orphan
	var ids []eni.InstanceID
	for _, d := range all {
		if !d.Attached() && d.Status == eni.StatusAvailable {
			found = append(found, Orphan{Device: d})
			ids = append(ids, eni.InstanceID(d.Tags[TagInstance]))
		}
	}
	workers, err := f.ec2.Workers(ctx, unique(ids))
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	living := map[string]string{} // state by instance
	for _, w := range workers {
		if !w.Gone() {
			living[string(w.ID)] = w.State
		}
	}
	for i := range found {
		o := &found[i]
		launched, err := time.Parse(time.RFC3339, o.Tags[TagLaunched])
		switch state := living[o.Tags[TagInstance]]; {
		case o.Tags[TagInstance] == "":
			o.Kept = "it does not say which worker it is for"
		case state != "":
			o.Kept = fmt.Sprintf("its worker %s is %s", o.Tags[TagInstance], state)
		case err != nil:
			o.Kept = "it does not say when its worker was launched"
		case time.Since(launched) < age:
			o.Kept = fmt.Sprintf("its worker was launched %s ago", time.Since(launched).Round(time.Second))
		default:
			o.Err = f.free(ctx, o.Device)
		}
	}
	return found, nil
}

// free deletes one orphan. One that cannot go now must not keep the others.
func (f *Flow) free(ctx context.Context, o eni.Device) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	return f.clear(ctx, eni.InstanceID(o.Tags[TagInstance]), func(d eni.Device) bool { return d.ID == o.ID && !d.Attached() }, unseen{})
}

func unique(ids []eni.InstanceID) (out []eni.InstanceID) {
	seen := map[eni.InstanceID]bool{"": true}
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}
