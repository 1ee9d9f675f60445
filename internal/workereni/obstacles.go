// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"fmt"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// settleTime is how old an attachment must be to count as somebody else's: a younger one may be ours, shown by one Describe call
// before another one shows it with its tags. EC2 names seconds as usual, and minutes as possible.
// https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
const settleTime = 30 * time.Second

// obstacles are the reasons why targets that are not attached yet cannot be, those of them that are a lack of room in a subnet, and
// what they must wait for. mine are the ENIs that exist.
func (f Facts) obstacles(missing []Target, mine map[Slot]eni.Device) (reasons, room, waits []string) {
	say := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	perCard := map[int]int{}
	perSubnet := map[eni.SubnetID]int{}
	checked := map[eni.SubnetID]bool{}
	for _, t := range missing {
		perCard[t.Slot.Card]++
		why, wait := f.occupied(t)
		reasons, waits = append(reasons, why...), append(waits, wait...)
		switch cards := len(f.Layout.Cards); {
		case t.Slot.Card >= cards:
			say("%s has no network card %d (it has %d)", f.Worker.Type, t.Slot.Card, cards)
		case f.Layout.Cards[t.Slot.Card].EFAOnly():
			say("network card %d of %s is for EFA only", t.Slot.Card, f.Worker.Type)
		}
		if _, exists := mine[t.Slot]; exists {
			continue
		}
		perSubnet[t.Subnet] += addressesOf(t)
		reasons = append(reasons, f.againstGroups(t)...)
		reasons = append(reasons, f.againstAddresses(t)...)
		if held, known := f.Held[t.Subnet]; known && (t.Addressing != DHCP || t.Stock > 0) && len(held.candidates(t, 1, nil)) == 0 {
			room = append(room, wordFull(t))
		}
	}
	for _, t := range missing {
		if need := perSubnet[t.Subnet]; need > t.In.Available && !checked[t.Subnet] {
			checked[t.Subnet] = true
			room = append(room, wordShort(t, need))
		}
	}
	full, leaving := f.overLimits(missing, perCard)
	return append(reasons, full...), room, append(waits, leaving...)
}

func wordShort(t Target, need int) string {
	return fmt.Sprintf("subnet %s is full: %d addresses are needed and %d are free", t.Subnet, need, t.In.Available)
}

func wordFull(t Target) string {
	return fmt.Sprintf("subnet %s is full: no address is free for addressing %s", t.Subnet, t.Addressing)
}

// addressesOf is how many IPv4 addresses creating the target must find.
func addressesOf(t Target) int {
	if !t.In.IPv4.IsValid() {
		return 0
	}
	return 1
}

// occupied looks for ENIs that are not ours where the target is to go.
func (f Facts) occupied(t Target) (reasons, waits []string) {
	for _, d := range f.Worker.Devices {
		if slotOf(d) != t.Slot {
			continue
		}
		ours := slices.ContainsFunc(f.Ours, func(o eni.Device) bool { return o.ID == d.ID })
		if ours || d.AttachmentStatus == eni.StatusDetaching || f.Now.Sub(d.AttachedAt) < settleTime {
			waits = append(waits, fmt.Sprintf("card %d index %d has %s, which EC2 does not show as ours yet, or which is leaving", t.Slot.Card, t.Slot.Index, d.ID))
			continue
		}
		reasons = append(reasons, fmt.Sprintf("card %d index %d has %s, which is not ours", t.Slot.Card, t.Slot.Index, d.ID))
	}
	return reasons, waits
}

// overLimits compares the number of ENIs with what the type allows, in all and for each card. An ENI where one of the missing is to go
// is not counted besides it: it is that one, shown by one Describe call and not yet by the other, or another reason says whose it is.
// Room that one is leaving is waited for.
func (f Facts) overLimits(missing []Target, perCard map[int]int) (reasons, waits []string) {
	attached, leaving, all, going := map[int]int{}, map[int]int{}, 0, 0
	for _, d := range f.Worker.Devices {
		if slices.ContainsFunc(missing, func(t Target) bool { return t.Slot == slotOf(d) }) {
			continue
		}
		attached[d.NetworkCard]++
		all++
		if d.AttachmentStatus == eni.StatusDetaching {
			leaving[d.NetworkCard]++
			going++
		}
	}
	tell := func(over, going int, text string) {
		switch {
		case over > going:
			reasons = append(reasons, text)
		case over > 0:
			waits = append(waits, text)
		}
	}
	if want := len(missing); want > 0 {
		tell(all+want-f.Layout.Interfaces, going, wordLimit(f.Worker.Type, f.Layout.Interfaces, all, want))
	}
	if len(f.Layout.Cards) < 2 {
		return reasons, waits
	}
	for card, c := range f.Layout.Cards {
		if want := perCard[card]; want > 0 {
			of := fmt.Sprintf("network card %d of %s", card, f.Worker.Type)
			tell(attached[card]+want-c.Interfaces, leaving[card], wordLimit(of, c.Interfaces, attached[card], want))
		}
	}
	return reasons, waits
}

func wordLimit(of string, allows, attached, wanted int) string {
	return fmt.Sprintf("%s allows %d ENIs: %d are attached and %d are wanted", of, allows, attached, wanted)
}

// againstGroups checks that the security groups exist, in the subnet's VPC.
func (f Facts) againstGroups(t Target) (reasons []string) {
	for _, id := range t.Groups {
		at := slices.IndexFunc(f.Groups, func(g eni.Group) bool { return g.ID == id })
		switch {
		case at < 0:
			reasons = append(reasons, fmt.Sprintf("security group %s does not exist", id))
		case f.Groups[at].VPC != t.In.VPC:
			reasons = append(reasons, fmt.Sprintf("security group %s is in %s and subnet %s in %s", id, f.Groups[at].VPC, t.Subnet, t.In.VPC))
		}
	}
	return reasons
}

// againstAddresses checks that there are addresses of the kind that the target takes.
func (f Facts) againstAddresses(t Target) (reasons []string) {
	say := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if slots := f.Layout.SecondarySlots(); t.Stock > slots {
		say("a stock of %d does not fit: an ENI of %s holds %d secondary addresses", t.Stock, f.Worker.Type, slots)
	}
	if !t.In.IPv4.IsValid() {
		if t.Addressing != DHCP || t.Stock > 0 {
			say("subnet %s has no IPv4 range to choose addresses from", t.Subnet)
		}
		return reasons
	}
	for _, a := range t.Addresses {
		if !t.In.IPv4.Contains(a) || eni.ReservedByVPC(t.In.IPv4, a) {
			say("address %s is not one that an ENI in subnet %s (%s) can have", a, t.Subnet, t.In.IPv4)
		}
	}
	return reasons
}
