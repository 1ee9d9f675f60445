// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Slot is a place in an instance for an ENI.
type Slot struct{ Card, Index int }

// String is the value of [TagSlot].
func (s Slot) String() string { return fmt.Sprintf("%d:%d", s.Card, s.Index) }

func slotOf(d eni.Device) Slot { return Slot{d.NetworkCard, d.DeviceIndex} }

// Facts are what EC2 says of a worker and of what its ENIs need.
type Facts struct {
	Now     time.Time
	Worker  eni.Worker
	Layout  eni.Layout
	Subnets []eni.Subnet
	Groups  []eni.Group
	// Ours are the ENIs with our tags for this worker, attached or not.
	Ours []eni.Device
	// Held are the subnets out of which we choose addresses.
	Held map[eni.SubnetID]Held
}

// Target is one ENI that the worker is to have.
type Target struct {
	Slot
	Interface
	In eni.Subnet
}

// Action is what a [Step] does.
type Action string

// The actions.
const (
	Create              Action = "create"
	SourceDestCheck     Action = "set source/destination check of"
	Attach              Action = "attach"
	DeleteOnTermination Action = "set delete-on-termination of"
	Remove              Action = "delete"
)

// Step is one call of EC2.
type Step struct {
	Do     Action
	Target Target
	Device eni.Device // what it is done to; the zero Device for [Create]
}

// Plan is what is still to be done for a worker.
type Plan struct {
	Targets []Target // all ENIs that it is to have, in the order of the configuration
	Steps   []Step   // in order; each presumes the ones before it
	Waits   []string // what must end by itself before there can be more steps
	// Full says that nothing but room in a subnet is lacking. The last of it may have gone to an ENI that another run has made for this
	// worker, and that EC2 does not show as ours yet.
	Full bool
}

// Done reports whether the worker has what it is to have.
func (p Plan) Done() bool { return len(p.Steps) == 0 && len(p.Waits) == 0 }

// NewPlan compares what a worker is to have with what is there. When something cannot be had it returns all reasons that the facts
// tell, and no steps: what would be made before the impossible step would have to be unmade. ENIs that are in place are not
// questioned, whatever the configuration says of them now.
func NewPlan(cfg Config, f Facts) (Plan, []string) {
	targets, reasons := f.targets(cfg)
	p := Plan{Targets: targets}
	mine := f.mine(targets)
	var missing []Target
	for _, t := range targets {
		d, ok := mine[t.Slot]
		if !ok || !d.Attached() {
			missing = append(missing, t)
		}
		p.steps(t, d, ok)
	}
	for _, d := range f.Ours {
		if d.Attached() || slices.ContainsFunc(targets, func(t Target) bool { return mine[t.Slot].ID == d.ID }) {
			continue
		}
		p.Steps = append(p.Steps, Step{Do: Remove, Device: d})
	}
	// All are created before the first is attached: EC2 needs a moment to know each of them.
	slices.SortStableFunc(p.Steps, func(a, b Step) int {
		switch first := a.Do == Create; {
		case first == (b.Do == Create):
			return 0
		case first:
			return -1
		}
		return 1
	})
	more, room, waits := f.obstacles(missing, mine)
	reasons = append(reasons, more...)
	if full := len(reasons) == 0; len(reasons)+len(room) > 0 {
		return Plan{Targets: targets, Full: full}, append(reasons, room...)
	}
	p.Waits = waits
	return p, nil
}

// steps appends what one target still needs.
func (p *Plan) steps(t Target, d eni.Device, exists bool) {
	step := func(do Action) { p.Steps = append(p.Steps, Step{Do: do, Target: t, Device: d}) }
	if !exists {
		step(Create)
		return // the rest follows when it is there
	}
	if d.SourceDestCheck != t.SourceDestCheck {
		step(SourceDestCheck)
	}
	if !d.Attached() {
		step(Attach)
		return
	}
	if d.DeleteOnTermination != t.DeleteOnTermination {
		step(DeleteOnTermination)
	}
}

// plainCards are the cards that are not for EFA alone.
func (f Facts) plainCards() (cards []int) {
	for card, c := range f.Layout.Cards {
		launched := slices.ContainsFunc(f.Worker.Devices, func(d eni.Device) bool { return d.NetworkCard == card && d.Type == eni.TypeEFAOnly })
		if !c.EFAOnly() && !launched {
			cards = append(cards, card)
		}
	}
	return cards
}

// mine chooses our ENI for each slot. Where runs that knew nothing of one another have made several, all choose the same: the one
// that is attached, else the one of the lowest ID.
func (f Facts) mine(targets []Target) map[Slot]eni.Device {
	mine := map[Slot]eni.Device{}
	for _, d := range slices.SortedFunc(slices.Values(f.Ours), func(a, b eni.Device) int { return cmp.Compare(a.ID, b.ID) }) {
		for _, t := range targets {
			if d.Tags[TagSlot] != t.Slot.String() || d.AttachmentStatus == eni.StatusDetaching {
				continue
			}
			here := d.Attached() && d.InstanceID == f.Worker.ID && slotOf(d) == t.Slot
			free := !d.Attached() && d.SubnetID == t.Subnet
			if _, ok := mine[t.Slot]; here || free && !ok {
				mine[t.Slot] = d
			}
		}
	}
	return mine
}
