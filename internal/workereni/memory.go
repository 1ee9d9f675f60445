// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// memoryTime is how long what this run did counts although EC2 does not show it.
const memoryTime = time.Minute

// memory is an ENI as this run left it.
type memory struct {
	eni.Device
	at                         time.Time
	created, attached, removed bool
	setCheck, setEnd           bool // source/destination check, delete-on-termination
}

// remember notes what a call did to an ENI.
func (r *run) remember(d eni.Device, change func(*memory)) {
	m, ok := r.known[d.ID]
	if !ok {
		m = memory{Device: d}
		r.done = append(r.done, d.ID)
	}
	m.at = time.Now()
	change(&m)
	r.known[d.ID] = m
}

// merge puts what this run did over what EC2 shows.
func (r *run) merge(f Facts) Facts {
	ours := make([]eni.Device, 0, len(f.Ours))
	for _, d := range f.Ours {
		m, ok := r.known[d.ID]
		if !ok || f.Now.Sub(m.at) > memoryTime {
			ours = append(ours, d)
			continue
		}
		if m.removed {
			continue
		}
		if m.attached && !d.Attached() {
			d.Attachment, d.InstanceID, d.NetworkCard, d.DeviceIndex = m.Attachment, m.InstanceID, m.NetworkCard, m.DeviceIndex
		}
		if m.setEnd {
			d.DeleteOnTermination = m.DeleteOnTermination
		}
		if m.setCheck {
			d.SourceDestCheck = m.SourceDestCheck
		}
		ours = append(ours, d)
	}
	for id, m := range r.known {
		same := func(d eni.Device) bool { return d.ID == id }
		if slices.ContainsFunc(f.Ours, same) || !m.created || m.removed {
			continue
		}
		at := slices.IndexFunc(f.Worker.Devices, same)
		if at >= 0 { // what EC2 shows of the instance is newer than what it shows of its ENIs
			ours = append(ours, m.as(f.Worker.Devices[at]))
		} else if f.Now.Sub(m.at) <= memoryTime {
			ours = append(ours, m.Device)
		}
	}
	f.Ours = ours
	return f
}

// as is the ENI as its instance shows it, but for what this run changed since.
func (m memory) as(shown eni.Device) eni.Device {
	d := m.Device
	if !m.attached {
		d.InstanceID, d.NetworkCard, d.DeviceIndex = shown.InstanceID, shown.NetworkCard, shown.DeviceIndex
		d.Attachment, d.AttachmentStatus, d.AttachedAt = shown.Attachment, shown.AttachmentStatus, shown.AttachedAt
	}
	if !m.setEnd {
		d.DeleteOnTermination = shown.DeleteOnTermination
	}
	if !m.setCheck {
		d.SourceDestCheck = shown.SourceDestCheck
	}
	return d
}
