// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// The model knows nothing of how the VPC keeps its state: it looks at every ENI after every call.

// invariants fail the property when an address has two owners, a limit is passed or a reserved address is held.
func invariants(t *rapid.T, w *world, v vpc.View) {
	held := map[netip.Addr]string{}
	prefixes := map[netip.Prefix]string{}
	for _, e := range v.AllENIs() {
		for _, a := range e.Addresses() {
			if other, twice := held[a]; twice {
				t.Fatalf("%s is on %s and %s", a, other, e.ID)
			}
			held[a] = e.ID
			if slices.Contains([]string{"10.10.1.0", "10.10.1.1", "10.10.1.2", "10.10.1.3", "10.10.1.255"}, a.String()) {
				t.Fatalf("%s holds the reserved %s", e.ID, a)
			}
		}
		for _, p := range e.AllPrefixes() {
			if other, twice := prefixes[p]; twice {
				t.Fatalf("%s is on %s and %s", p, other, e.ID)
			}
			prefixes[p] = e.ID
		}
		if e.Attachment == nil {
			continue
		}
		i, _ := v.Instance(e.Attachment.InstanceID)
		limits, _ := vpc.LookupInstanceType(i.Type)
		if len(e.IPv4())+len(e.Prefixes) > limits.IPv4PerInterface || len(e.IPv6)+len(e.IPv6Prefixes) > limits.IPv6PerInterface() {
			t.Fatalf("%s has more than its %s allows: %+v", e.ID, i.Type, e)
		}
	}
	for a := range held {
		for p, id := range prefixes {
			if p.Contains(a) {
				t.Fatalf("%s is on %s and in %s of %s", a, held[a], p, id)
			}
		}
	}
	for _, i := range v.Instances() {
		limits, _ := vpc.LookupInstanceType(i.Type)
		if n := len(v.ENIs(i.ID)); n > limits.Interfaces() {
			t.Fatalf("%s has %d ENIs", i.ID, n)
		}
	}
}

func TestNoScheduleOfCallsBreaksTheVPC(t *testing.T) {
	reserved := prefix("10.10.1.64/26")
	rapid.Check(t, func(rt *rapid.T) {
		cfg := vpc.Config{
			Seed:        rapid.Uint64().Draw(rt, "seed"),
			AssignOwned: rapid.SampledFrom([]string{vpc.AssignOwnedOK, vpc.AssignOwnedError}).Draw(rt, "assignOwned"),
			MixedBatch:  rapid.SampledFrom([]string{vpc.MixedBatchAtomic, vpc.MixedBatchPartial}).Draw(rt, "mixedBatch"),
			Propagation: vpc.Propagation{Route: time.Second, IMDS: 2 * time.Second, Describe: time.Second},
		}
		w := newWorld(t, cfg, 3, "t3.medium")
		now := t0
		named := rapid.Custom(func(rt *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 10, 1, rapid.Byte().Draw(rt, "host")})
		})
		eni := func(rt *rapid.T) string {
			all := w.View(now).AllENIs()
			if len(all) == 0 {
				rt.Skip("every ENI is gone")
			}
			return rapid.SampledFrom(all).Draw(rt, "eni").ID
		}
		// automatic checks that what EC2 chose avoids the reservation.
		automatic := func(rt *rapid.T, list []netip.Addr) {
			for _, a := range list {
				if reserved.Contains(a) {
					rt.Fatalf("EC2 chose %s inside the reservation", a)
				}
			}
		}
		// Errors are answers; only what EC2 has no word for is a fault of the lab.
		judge := func(rt *rapid.T, err error) {
			var e *vpc.APIError
			if err != nil && (!errors.As(err, &e) || e.Code == "InternalError") {
				rt.Fatal(err)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"assign named": func(rt *rapid.T) {
				_, err := w.AssignPrivateIPAddresses(now, vpc.AssignPrivateIPAddressesInput{
					NetworkInterfaceID: eni(rt), Addresses: rapid.SliceOfN(named, 1, 4).Draw(rt, "addresses"),
					AllowReassignment: rapid.Bool().Draw(rt, "reassign"),
				})
				judge(rt, err)
			},
			"assign by count": func(rt *rapid.T) {
				in := vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: eni(rt), Count: rapid.IntRange(1, 3).Draw(rt, "n")}
				if rapid.Bool().Draw(rt, "prefix") {
					in.PrefixCount, in.Count = in.Count, 0
				}
				out, err := w.AssignPrivateIPAddresses(now, in)
				judge(rt, err)
				automatic(rt, out.Addresses)
			},
			"assign IPv6": func(rt *rapid.T) {
				in := vpc.AssignIPv6AddressesInput{NetworkInterfaceID: eni(rt)}
				if rapid.Bool().Draw(rt, "prefix") {
					in.PrefixCount = 1
				} else {
					in.Addresses = []netip.Addr{addr("2001:db8:10:1::").Next().Next().Next().Next()}
				}
				_, err := w.AssignIPv6Addresses(now, in)
				judge(rt, err)
			},
			"unassign": func(rt *rapid.T) {
				e, _ := w.View(now).ENI(eni(rt))
				in := vpc.UnassignInput{NetworkInterfaceID: e.ID, Addresses: e.Secondary, Prefixes: e.Prefixes}
				judge(rt, w.UnassignPrivateIPAddresses(now, in))
			},
			"create": func(rt *rapid.T) {
				e, err := w.CreateNetworkInterface(now, vpc.CreateNetworkInterfaceInput{
					SubnetID: w.multus.ID, AddressRequest: vpc.AddressRequest{SecondaryCount: rapid.IntRange(0, 3).Draw(rt, "n")},
				})
				judge(rt, err)
				automatic(rt, e.IPv4())
			},
			"attach or detach": func(rt *rapid.T) {
				e, _ := w.View(now).ENI(eni(rt))
				if e.Attachment != nil {
					judge(rt, w.DetachNetworkInterface(now, e.Attachment.ID))
					return
				}
				_, err := w.AttachNetworkInterface(now, vpc.AttachNetworkInterfaceInput{
					NetworkInterfaceID: e.ID, InstanceID: rapid.SampledFrom(w.workers).Draw(rt, "instance").ID,
					DeviceIndex: rapid.IntRange(0, 3).Draw(rt, "index"),
				})
				judge(rt, err)
			},
			"delete": func(rt *rapid.T) { judge(rt, w.DeleteNetworkInterface(now, eni(rt))) },
			"run": func(rt *rapid.T) {
				l, err := w.RunInstances(now, vpc.RunInstancesInput{
					ImageID: "ami-1", InstanceType: "t3.medium", MinCount: 1, MaxCount: 2, SubnetID: w.multus.ID,
				})
				judge(rt, err)
				for _, e := range l.ENIs {
					automatic(rt, e.IPv4())
				}
				w.workers = append(w.workers, l.Instances...)
			},
			"terminate": func(rt *rapid.T) {
				if len(w.workers) > 1 {
					_, err := w.TerminateInstances(now, []string{rapid.SampledFrom(w.workers).Draw(rt, "instance").ID})
					judge(rt, err)
				}
			},
			"wait": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond)
			},
			"": func(rt *rapid.T) {
				invariants(rt, w, w.View(now))
				invariants(rt, w, w.View(now.Add(-cfg.Propagation.IMDS)))
			},
		})
	})
}

// A view of the past does not change, whatever happens later and however often history is pruned.
func TestViewsWithinTheLongestLagAreStable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lag := 5 * time.Second
		w := newWorld(t, vpc.Config{Propagation: vpc.Propagation{IMDS: lag}}, 2, "m5.2xlarge")
		var times []time.Time
		var seen []map[netip.Addr]string
		now := t0
		for range rapid.IntRange(1, 600).Draw(rt, "changes") {
			now = now.Add(50 * time.Millisecond)
			_, err := w.AssignPrivateIPAddresses(now, vpc.AssignPrivateIPAddressesInput{
				NetworkInterfaceID: w.enis[rapid.IntRange(0, 1).Draw(rt, "eni")].ID, AllowReassignment: true,
				Addresses: addrs("10.10.1.70"),
			})
			if err != nil {
				rt.Fatal(err)
			}
			times, seen = append(times, now), append(seen, w.View(now).Routes())
			for i := len(times) - 1; i >= 0 && now.Sub(times[i]) <= lag; i -= 17 {
				if got := w.View(times[i]).Routes()[addr("10.10.1.70")]; got != seen[i][addr("10.10.1.70")] {
					rt.Fatalf("%v ago the address was on %s, now it was on %s", now.Sub(times[i]), seen[i][addr("10.10.1.70")], got)
				}
			}
		}
	})
}
