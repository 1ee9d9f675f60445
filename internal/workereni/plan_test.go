// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// drawFacts are an instance of any layout with some ENIs of others, and ours in any state that a run may have left.
func drawFacts(t *rapid.T) (Config, Facts) {
	subnets := []eni.Subnet{
		{ID: "subnet-1", VPC: "vpc-1", AZ: "a", IPv4: netip.MustParsePrefix("10.0.1.0/24"), Available: 200},
		{ID: "subnet-2", VPC: "vpc-1", AZ: "a", IPv4: netip.MustParsePrefix("10.0.2.0/24"), Available: 200},
		{ID: "subnet-3", VPC: "vpc-1", AZ: "b", IPv4: netip.MustParsePrefix("10.0.3.0/24"), Available: 200},
	}
	for n := range subnets {
		subnets[n].Tags = map[string]string{"name": string(subnets[n].ID), "team": "core"}
	}
	cards, each := rapid.IntRange(1, 4).Draw(t, "cards"), rapid.IntRange(1, 4).Draw(t, "each")
	f := Facts{
		Now: time.Unix(1e9, 0), Subnets: subnets,
		Worker: eni.Worker{Instance: eni.Instance{ID: "i-1", Type: "x", AZ: "a"}, VPC: "vpc-1", State: "running"},
		Layout: eni.Layout{Limits: eni.Limits{Interfaces: cards * each, IPv4PerInterface: 10}},
	}
	for range cards {
		f.Layout.Cards = append(f.Layout.Cards, eni.Card{Interfaces: each})
	}
	f.Worker.Devices = append(f.Worker.Devices, eni.Device{Interface: eni.Interface{ID: "eni-primary", InstanceID: "i-1"}, Attachment: "a-primary"})
	cfg := Config{Owner: "o"}
	for range rapid.IntRange(1, 6).Draw(t, "interfaces") {
		i := Interface{
			Subnet: rapid.SampledFrom(subnets).Draw(t, "subnet").ID, Card: rapid.IntRange(0, 4).Draw(t, "card"),
			Index: rapid.IntRange(0, 3).Draw(t, "index"), Addressing: DHCP,
			SourceDestCheck: rapid.Bool().Draw(t, "check"), DeleteOnTermination: rapid.Bool().Draw(t, "dies"),
		}
		if rapid.Bool().Draw(t, "last") {
			i.Index, i.Last = 0, true
		}
		if rapid.Bool().Draw(t, "by tags") {
			i.SubnetTags = map[string]string{"name": string(i.Subnet)}
			i.Subnet = ""
		}
		cfg.Interfaces = append(cfg.Interfaces, i)
	}
	for n := range rapid.IntRange(0, 4).Draw(t, "left") {
		slot := Slot{rapid.IntRange(0, cards-1).Draw(t, "card"), rapid.IntRange(1, 3).Draw(t, "index")}
		d := eni.Device{Interface: eni.Interface{
			ID: eni.ID(fmt.Sprintf("eni-%d", n)), SubnetID: rapid.SampledFrom(subnets[:2]).Draw(t, "in").ID, Tags: map[string]string{TagSlot: slot.String()},
		}, Status: eni.StatusAvailable}
		on := 0
		for _, o := range f.Worker.Devices {
			if o.NetworkCard == slot.Card {
				on++
			}
		}
		free := on < each && !slices.ContainsFunc(f.Worker.Devices, func(o eni.Device) bool { return slotOf(o) == slot })
		if free && rapid.Bool().Draw(t, "attached") {
			d.Attachment, d.InstanceID, d.NetworkCard, d.DeviceIndex = eni.AttachmentID("a-"+string(d.ID)), "i-1", slot.Card, slot.Index
			f.Worker.Devices = append(f.Worker.Devices, d)
			if rapid.Bool().Draw(t, "foreign") {
				continue
			}
		}
		f.Ours = append(f.Ours, d)
	}
	return cfg, f
}

// apply does in the facts what a step does in EC2, which must not refuse it.
func apply(t *rapid.T, f Facts, s Step, serial int) Facts {
	f.Ours, f.Worker.Devices = slices.Clone(f.Ours), slices.Clone(f.Worker.Devices)
	at := slices.IndexFunc(f.Ours, func(d eni.Device) bool { return d.ID == s.Device.ID })
	if at < 0 && s.Do != Create {
		t.Fatalf("%s %s, which is not there", s.Do, s.Device.ID)
	}
	switch s.Do {
	case Create:
		f.Ours = append(f.Ours, eni.Device{
			Interface: eni.Interface{ID: eni.ID(fmt.Sprintf("eni-new-%d", serial)), SubnetID: s.Target.Subnet, Tags: map[string]string{TagSlot: s.Target.Slot.String()}},
			Status:    eni.StatusAvailable, SourceDestCheck: true,
		})
	case SourceDestCheck:
		f.Ours[at].SourceDestCheck = s.Target.SourceDestCheck
	case DeleteOnTermination:
		f.Ours[at].DeleteOnTermination = s.Target.DeleteOnTermination
	case Attach:
		d := &f.Ours[at]
		d.Attachment, d.InstanceID, d.NetworkCard, d.DeviceIndex = "a-"+eni.AttachmentID(d.ID), "i-1", s.Target.Slot.Card, s.Target.Slot.Index
		on := 0
		for _, o := range f.Worker.Devices {
			if slotOf(o) == s.Target.Slot {
				t.Fatalf("attached to %s, where %s is", s.Target.Slot, o.ID)
			}
			if o.NetworkCard == s.Target.Slot.Card {
				on++
			}
		}
		if s.Target.Slot.Card >= len(f.Layout.Cards) || on >= f.Layout.Cards[s.Target.Slot.Card].Interfaces || len(f.Worker.Devices) >= f.Layout.Interfaces {
			t.Fatalf("attached to %s beyond the limits", s.Target.Slot)
		}
		f.Worker.Devices = append(f.Worker.Devices, *d)
	case Remove:
		if f.Ours[at].Attached() {
			t.Fatalf("deleted %s, which is attached", s.Device.ID)
		}
		f.Ours = slices.Delete(f.Ours, at, at+1)
	}
	return f
}

// TestAPlanEnds: from whatever was left, the steps lead to exactly the ENIs of the configuration, or there are reasons and no step.
func TestAPlanEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, f := drawFacts(t)
		p, reasons := NewPlan(cfg, f)
		if len(reasons) > 0 {
			if len(p.Steps) > 0 {
				t.Fatalf("steps beside reasons: %v", p.Steps)
			}
			return
		}
		for n := 0; !p.Done(); n++ {
			if n > 50 || len(p.Waits) > 0 {
				t.Fatalf("no end: %v, waits %v", p.Steps, p.Waits)
			}
			f = apply(t, f, p.Steps[0], n)
			if p, reasons = NewPlan(cfg, f); len(reasons) > 0 {
				t.Fatalf("after %d steps: %v", n+1, reasons)
			}
		}
		for _, target := range p.Targets {
			if target.In.AZ != f.Worker.AZ {
				t.Errorf("%s is of another zone", target.Subnet)
			}
			d, ok := f.mine(p.Targets)[target.Slot]
			if !ok || !d.Attached() || slotOf(d) != target.Slot || d.SourceDestCheck != target.SourceDestCheck || d.DeleteOnTermination != target.DeleteOnTermination {
				t.Errorf("%s has %+v", target.Slot, d)
			}
		}
		for _, d := range f.Ours {
			if !d.Attached() {
				t.Errorf("%s is left over", d.ID)
			}
		}
	})
}

// TestPrimaryAddresses: never one that is held, reserved or the VPC's own, and in order.
func TestPrimaryAddresses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		subnet := netip.MustParsePrefix("10.0.1.0/26")
		var reservations []eni.Reservation
		for range rapid.IntRange(0, 3).Draw(t, "reservations") {
			cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(4 * rapid.IntRange(0, 15).Draw(t, "block"))}), rapid.IntRange(27, 30).Draw(t, "bits")).Masked()
			if slices.ContainsFunc(reservations, func(r eni.Reservation) bool { return r.CIDR.Overlaps(cidr) }) {
				continue // EC2 allows none that overlap
			}
			reservations = append(reservations, eni.Reservation{CIDR: cidr, Type: rapid.SampledFrom([]eni.ReservationType{eni.Explicit, eni.Prefix}).Draw(t, "type")})
		}
		var devices []eni.Device
		for range rapid.IntRange(0, 40).Draw(t, "devices") {
			devices = append(devices, eni.Device{Interface: eni.Interface{Primary: netip.AddrFrom4([4]byte{10, 0, 1, byte(rapid.IntRange(4, 62).Draw(t, "held"))})}})
		}
		h := NewHeld(reservations, devices)
		target := Target{Interface: Interface{Addressing: Start, Stock: 8}, In: eni.Subnet{IPv4: subnet}}
		free := h.candidates(target, 64, nil)
		for n, a := range free {
			if !subnet.Contains(a) || eni.ReservedByVPC(subnet, a) || h.has(a) || h.reserved(a) {
				t.Errorf("%s cannot be had", a)
			}
			if got, _ := h.primary(target, n, nil); got != a {
				t.Errorf("number %d is %s, want %s", n, got, a)
			}
		}
		if !slices.IsSortedFunc(free, netip.Addr.Compare) {
			t.Errorf("not in order: %v", free)
		}
		stock := h.stock("i-1", target, 8, nil)
		for i, a := range stock {
			if h.has(a) || !h.reserved(a) || eni.ReservedByVPC(subnet, a) || slices.Contains(stock[:i], a) {
				t.Errorf("%s is no stock", a)
			}
		}
	})
}

// TestWhoseAnOccupantIs: an ENI of ours may be attached, as EC2 shows, before EC2 shows its tags.
func TestWhoseAnOccupantIs(t *testing.T) {
	now := time.Unix(1e9, 0)
	for name, tt := range map[string]struct {
		occupant        eni.Device
		waits, reasoned bool
	}{
		"somebody else's": {eni.Device{AttachedAt: now.Add(-time.Hour)}, false, true},
		"perhaps ours":    {eni.Device{AttachedAt: now.Add(-settleTime / 2)}, true, false},
		"leaving":         {eni.Device{AttachedAt: now.Add(-time.Hour), AttachmentStatus: eni.StatusDetaching}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := tt.occupant
			d.ID, d.DeviceIndex, d.Attachment = "eni-1", 1, "a-1"
			p, reasons := NewPlan(
				Config{Interfaces: []Interface{{Subnet: "subnet-1", Addressing: DHCP}}},
				Facts{
					Now: now, Worker: eni.Worker{Instance: eni.Instance{AZ: "a"}, Devices: []eni.Device{d}},
					Layout:  eni.Layout{Limits: eni.Limits{Interfaces: 4}, Cards: []eni.Card{{Interfaces: 4}}},
					Subnets: []eni.Subnet{{ID: "subnet-1", AZ: "a", IPv4: netip.MustParsePrefix("10.0.1.0/24"), Available: 9}},
				})
			if (len(p.Waits) > 0) != tt.waits || (len(reasons) > 0) != tt.reasoned {
				t.Errorf("waits %v, reasons %v", p.Waits, reasons)
			}
		})
	}
}
