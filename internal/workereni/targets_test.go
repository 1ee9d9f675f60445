// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// worker is one with so many ENIs on its card, of which others have those indexes for long.
func worker(size int, others ...int) Facts {
	f := Facts{
		Now:    time.Unix(1e9, 0),
		Worker: eni.Worker{Instance: eni.Instance{ID: "i-1", AZ: "a"}, VPC: "vpc-1", State: "running"},
		Layout: eni.Layout{Limits: eni.Limits{Interfaces: size, IPv4PerInterface: 10}, Cards: []eni.Card{{Interfaces: size}}},
	}
	for n, zone := range []string{"a", "a", "b"} {
		f.Subnets = append(f.Subnets, eni.Subnet{
			ID: eni.SubnetID(fmt.Sprintf("subnet-%d", n)), VPC: "vpc-1", AZ: zone, IPv4: netip.MustParsePrefix("10.0.1.0/24"), Available: 200,
			Tags: map[string]string{"network": fmt.Sprint(n % 2), "team": "core"},
		})
	}
	for _, index := range append([]int{0}, others...) {
		f.Worker.Devices = append(f.Worker.Devices, eni.Device{
			Interface:  eni.Interface{ID: eni.ID(fmt.Sprintf("eni-other-%d", index)), InstanceID: "i-1", DeviceIndex: index},
			Attachment: "a", AttachedAt: f.Now.Add(-time.Hour),
		})
	}
	return f
}

// ours adds one of our ENIs, attached or not.
func (f Facts) ours(subnet eni.SubnetID, index int, attached bool) Facts {
	d := eni.Device{Interface: eni.Interface{
		ID: eni.ID(fmt.Sprintf("eni-%d", len(f.Ours))), SubnetID: subnet, Tags: map[string]string{TagSlot: Slot{0, index}.String()},
	}}
	if attached {
		d.Attachment, d.InstanceID, d.DeviceIndex, d.AttachedAt = "a", "i-1", index, f.Now.Add(-time.Hour)
		f.Worker.Devices = append(slices.Clone(f.Worker.Devices), d)
	}
	f.Ours = append(slices.Clone(f.Ours), d)
	return f
}

func TestTheLastFreeIndexes(t *testing.T) {
	last := func(subnet eni.SubnetID) Interface { return Interface{Subnet: subnet, Last: true, Addressing: DHCP} }
	young := worker(4, 3)
	young.Worker.Devices[1].AttachedAt = young.Now
	for name, tt := range map[string]struct {
		facts      Facts
		interfaces []Interface
		want       []string
	}{
		"from the end":                           {worker(4), []Interface{last("subnet-0"), last("subnet-1")}, []string{"0:3", "0:2"}},
		"the VPC CNI has the lowest":             {worker(4, 1), []Interface{last("subnet-0"), last("subnet-1")}, []string{"0:3", "0:2"}},
		"a trunk ENI has the highest":            {worker(4, 3), []Interface{last("subnet-0")}, []string{"0:2"}},
		"an index that is asked for comes first": {worker(4), []Interface{last("subnet-0"), {Subnet: "subnet-1", Index: 3}}, []string{"0:2", "0:3"}},
		"all are taken":                          {worker(3, 1, 2), []Interface{last("subnet-0")}, []string{"0:3"}},
		"perhaps ours":                           {young, []Interface{last("subnet-0")}, []string{"0:3"}},
		"it keeps its own when the higher one comes free": {
			worker(4).ours("subnet-0", 2, true), []Interface{last("subnet-0")}, []string{"0:2"},
		},
		"it keeps what it was made for": {
			worker(4).ours("subnet-0", 2, false), []Interface{last("subnet-0")}, []string{"0:2"},
		},
		"unless somebody was faster": {
			worker(4, 2).ours("subnet-0", 2, false), []Interface{last("subnet-0")}, []string{"0:3"},
		},
		"of two the attached one": {
			worker(4).ours("subnet-0", 3, false).ours("subnet-0", 1, true), []Interface{last("subnet-0")}, []string{"0:1"},
		},
		"two in one subnet stay apart": {
			worker(4).ours("subnet-0", 3, false).ours("subnet-0", 2, true), []Interface{last("subnet-0"), last("subnet-0")}, []string{"0:3", "0:2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			targets, reasons := tt.facts.targets(Config{Interfaces: tt.interfaces})
			var got []string
			for _, x := range targets {
				got = append(got, x.Slot.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || len(reasons) > 0 {
				t.Errorf("reasons %v, -want +got:\n%s", reasons, diff)
			}
		})
	}
	if _, reasons := NewPlan(Config{Interfaces: []Interface{last("subnet-0")}}, worker(3, 1, 2)); !strings.Contains(fmt.Sprint(reasons), "allows 3 ENIs") {
		t.Errorf("without a free index: %v", reasons)
	}
}

func TestSubnetsByTheirTags(t *testing.T) {
	by := func(pairs ...string) Interface {
		i := Interface{SubnetTags: map[string]string{}, Addressing: DHCP}
		for n := 0; n < len(pairs); n += 2 {
			i.SubnetTags[pairs[n]] = pairs[n+1]
		}
		return i
	}
	foreign := worker(4)
	foreign.Subnets = append(foreign.Subnets, eni.Subnet{ID: "subnet-9", VPC: "vpc-9", AZ: "a", Tags: map[string]string{"network": "0"}})
	for name, tt := range map[string]struct {
		facts Facts
		want  Interface
		here  eni.SubnetID
		says  string
	}{
		"the one of the zone":       {worker(4), by("network", "0"), "subnet-0", ""},
		"all of the tags":           {worker(4), by("network", "1", "team", "core"), "subnet-1", ""},
		"of the worker's VPC alone": {foreign, by("network", "0"), "subnet-0", ""},
		"none":                      {worker(4), by("network", "7"), "", "no subnet of vpc-1 has the tags [network:7]"},
		"several in the zone":       {worker(4), by("team", "core"), "", "subnets subnet-0, subnet-1 of a all have the tags [team:core]: one is wanted"},
	} {
		t.Run(name, func(t *testing.T) {
			targets, reasons := tt.facts.targets(Config{Interfaces: []Interface{tt.want}})
			if tt.says != "" {
				if len(reasons) != 1 || reasons[0] != tt.says {
					t.Errorf("reasons %q, want %q", reasons, tt.says)
				}
				return
			}
			if len(targets) != 1 || targets[0].Subnet != tt.here || targets[0].In.ID != tt.here {
				t.Errorf("targets %+v, reasons %v; want %s", targets, reasons, tt.here)
			}
		})
	}
	elsewhere := worker(4)
	elsewhere.Worker.AZ = "c"
	if _, reasons := elsewhere.targets(Config{Interfaces: []Interface{by("network", "0")}}); !strings.Contains(fmt.Sprint(reasons), "availability zone c (they lie in a, b)") {
		t.Errorf("in a zone without one: %v", reasons)
	}
}

// TestAPlanThatIsDoneStaysDone: whoever else's ENIs come and go.
func TestAPlanThatIsDoneStaysDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg, f := drawFacts(t)
		p, reasons := NewPlan(cfg, f)
		for n := 0; len(reasons) == 0 && !p.Done() && n < 50; n++ {
			f = apply(t, f, p.Steps[0], n)
			p, reasons = NewPlan(cfg, f)
		}
		if len(reasons) > 0 {
			return
		}
		f.Worker.Devices = slices.DeleteFunc(slices.Clone(f.Worker.Devices), func(d eni.Device) bool {
			ours := slices.ContainsFunc(f.Ours, func(o eni.Device) bool { return o.ID == d.ID })
			return d.DeviceIndex > 0 && !ours && rapid.Bool().Draw(t, "leaves")
		})
		if again, reasons := NewPlan(cfg, f); !again.Done() || len(reasons) > 0 {
			t.Fatalf("steps %v, reasons %v", again.Steps, reasons)
		}
	})
}
