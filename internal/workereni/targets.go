// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// targets are the interfaces of the worker's availability zone, each in its slot, in the order of the configuration.
func (f Facts) targets(cfg Config) (targets []Target, reasons []string) {
	var zones []string
	var from []int // by target, the interface of the configuration
	for n, i := range cfg.Interfaces {
		subnet, elsewhere, why := f.place(i)
		switch {
		case why != "":
			reasons = append(reasons, why)
			continue
		case subnet.ID == "":
			zones = append(zones, elsewhere...)
			continue
		}
		i.Subnet = subnet.ID
		cards := []int{i.Card}
		if i.EveryCard {
			cards = f.plainCards()
		}
		for _, card := range cards {
			targets, from = append(targets, Target{Slot: Slot{card, i.Index}, Interface: i, In: subnet}), append(from, n)
		}
	}
	if len(targets) == 0 && len(reasons) == 0 {
		slices.Sort(zones)
		reasons = append(reasons, fmt.Sprintf("no subnet of the configuration lies in the worker's availability zone %s (they lie in %s)",
			f.Worker.AZ, strings.Join(slices.Compact(zones), ", ")))
	}
	targets, twice := f.number(targets, from)
	return targets, append(reasons, twice...)
}

// place finds the interface's subnet in the worker's availability zone. Without one there, elsewhere are the zones that it has subnets in.
func (f Facts) place(i Interface) (here eni.Subnet, elsewhere []string, why string) {
	var found []string
	for _, s := range f.Subnets {
		switch {
		case i.Subnet != "" && s.ID != i.Subnet, i.Subnet == "" && !(s.VPC == f.Worker.VPC && carries(s.Tags, i.SubnetTags)):
		case s.AZ != f.Worker.AZ:
			elsewhere = append(elsewhere, s.AZ)
		default:
			here = s
			found = append(found, string(s.ID))
		}
	}
	if len(found) > 1 || len(found)+len(elsewhere) == 0 {
		return eni.Subnet{}, nil, f.wordSubnets(i, found)
	}
	return here, elsewhere, ""
}

// wordSubnets says that the interface's subnet is not one.
func (f Facts) wordSubnets(i Interface, found []string) string {
	tags := strings.TrimPrefix(fmt.Sprint(i.SubnetTags), "map")
	switch {
	case len(found) > 1:
		slices.Sort(found)
		return fmt.Sprintf("subnets %s of %s all have the tags %s: one is wanted", strings.Join(found, ", "), f.Worker.AZ, tags)
	case i.Subnet != "":
		return fmt.Sprintf("subnet %s does not exist", i.Subnet)
	}
	return fmt.Sprintf("no subnet of %s has the tags %s", f.Worker.VPC, tags)
}

// carries reports whether all of the tags are among those of something.
func carries(has, all map[string]string) bool {
	for k, v := range all {
		if got, ok := has[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// number gives each target its device index, and leaves out those whose slot another one wants.
func (f Facts) number(targets []Target, from []int) (numbered []Target, reasons []string) {
	used := map[Slot]int{}
	next := map[int]int{}
	for n := range targets {
		t := &targets[n]
		if t.Last {
			continue
		}
		if t.Slot.Index == 0 {
			t.Slot.Index = max(next[t.Slot.Card], 1)
		}
		next[t.Slot.Card] = max(next[t.Slot.Card], t.Slot.Index+1)
		if other, twice := used[t.Slot]; twice {
			reasons = append(reasons, fmt.Sprintf("interfaces %d and %d of the configuration both want card %d index %d", other, from[n], t.Slot.Card, t.Slot.Index))
			t.Slot = Slot{} // no ENI that is not the primary one has it
			continue
		}
		used[t.Slot] = from[n]
	}
	f.numberLast(targets, used)
	return slices.DeleteFunc(targets, func(t Target) bool { return t.Slot == Slot{} }), reasons
}

// numberLast gives the targets of the last index theirs: the slots that our ENIs have in their subnets and on their cards, and then the
// highest ones that nobody has. So the answer stays the same when others come and go.
func (f Facts) numberLast(targets []Target, used map[Slot]int) {
	type place struct {
		subnet eni.SubnetID
		card   int
	}
	var open []place // of each target of the last index
	settled := map[place][]Slot{}
	for _, t := range targets {
		if t.Last {
			open = append(open, place{t.Subnet, t.Slot.Card})
		}
	}
	for _, attached := range []bool{true, false} { // one that is meant for a slot must not drive out one that is in it
		open = slices.DeleteFunc(open, func(p place) bool {
			s, ok := f.settled(p.subnet, p.card, attached, used)
			if ok {
				settled[p], used[s] = append(settled[p], s), 0
			}
			return ok
		})
	}
	for n := range targets {
		t := &targets[n]
		if !t.Last {
			continue
		}
		p := place{t.Subnet, t.Slot.Card}
		if slots := settled[p]; len(slots) > 0 {
			slices.SortFunc(slots, highestFirst)
			t.Slot, settled[p] = slots[0], slots[1:]
			continue
		}
		t.Slot = f.highest(t.Slot.Card, used)
		used[t.Slot] = 0
	}
}

func highestFirst(a, b Slot) int { return cmp.Compare(b.Index, a.Index) }

// settled is the highest slot on a card that one of our ENIs in the subnet has, or that one which is not attached was made for.
func (f Facts) settled(subnet eni.SubnetID, card int, attached bool, used map[Slot]int) (Slot, bool) {
	var slots []Slot
	for _, d := range f.Ours {
		slot, tagged := slotTagged(d)
		_, taken := used[slot]
		if !tagged || taken || slot.Card != card || d.SubnetID != subnet || d.AttachmentStatus == eni.StatusDetaching || d.Attached() != attached {
			continue
		}
		if attached && d.InstanceID == f.Worker.ID && slotOf(d) == slot || !attached && !f.has(slot) {
			slots = append(slots, slot)
		}
	}
	if len(slots) == 0 {
		return Slot{}, false
	}
	return slices.MinFunc(slots, highestFirst), true
}

// highest is the highest slot of the card that nobody has. Without one it is a slot behind them: that the limit is reached is told with
// the other limits.
func (f Facts) highest(card int, used map[Slot]int) Slot {
	size := 2
	if card < len(f.Layout.Cards) {
		size = f.Layout.Cards[card].Interfaces
	}
	free := func(index int) bool {
		_, taken := used[Slot{card, index}]
		return !taken && !f.has(Slot{card, index})
	}
	index := size - 1
	for index > 0 && !free(index) {
		index--
	}
	if index <= 0 {
		for index = max(size, 1); !free(index); {
			index++
		}
	}
	return Slot{card, index}
}

// has reports whether an ENI is attached there. A young one that is not known as ours may turn out to be it: see [settleTime].
func (f Facts) has(s Slot) bool {
	return slices.ContainsFunc(f.Worker.Devices, func(d eni.Device) bool {
		ours := slices.ContainsFunc(f.Ours, func(o eni.Device) bool { return o.ID == d.ID && o.Attached() })
		return slotOf(d) == s && d.AttachmentStatus != eni.StatusDetaching && (ours || f.Now.Sub(d.AttachedAt) >= settleTime)
	})
}

// slotTagged is the slot that one of our ENIs was made for.
func slotTagged(d eni.Device) (s Slot, ok bool) {
	_, err := fmt.Sscanf(d.Tags[TagSlot], "%d:%d", &s.Card, &s.Index)
	return s, err == nil && d.Tags[TagSlot] == s.String() && s.Card >= 0 && s.Index > 0
}
