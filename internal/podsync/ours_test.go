// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// TestWhatALostReplyAssignedIsGivenBack: nobody told the syncer that it registered the addresses, and it gives them back all the same.
func TestWhatALostReplyAssignedIsGivenBack(t *testing.T) {
	for _, addrs := range [][]string{
		{"10.10.1.80/24"}, {"10.10.1.80/24", "10.10.1.81/24"}, {"2001:db8:10:1::80/64"}, {"2001:db8:10:1::80/64", "2001:db8:10:1::81/64"},
	} {
		for _, ec2 := range []string{"", "ec2: {assignOwned: error}", "ec2: {propagation: {route: 300ms, imds: 1s, describe: 1s}}"} {
			for _, fault := range []front.Fault{{Kind: front.LostReply}, {Kind: front.ErrorAfter}, {Kind: front.Slow, Delay: time.Minute}} {
				t.Run(fmt.Sprint(addrs, ec2, fault.Kind), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, ec2)
						fault.Action, fault.Nth, fault.Count = assignAction(addrs[0]), 1, 1
						if err := w.lab.Front.SetFaults([]front.Fault{fault}); err != nil {
							t.Fatal(err)
						}
						p := w.pod("worker-1")
						p.add(addrs...)
						p.run(t)
						for _, a := range prefixes(addrs...) {
							eventually(t, 3*time.Minute, "registered", func() bool { return p.state(a.Addr()) == podsync.Registered })
						}
						p.stop()
						if err := p.Leave(t.Context()); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Second)
						for _, a := range prefixes(addrs...) {
							if o := w.owner(a.Addr()); o != "" {
								t.Errorf("%s is still on %s", a, o)
							}
						}
					})
				})
			}
		}
	}
}

// assignAction is the call that assigns the address.
func assignAction(prefix string) string {
	if netip.MustParsePrefix(prefix).Addr().Is6() {
		return "AssignIpv6Addresses"
	}
	return "AssignPrivateIpAddresses"
}

// TestWhatWasHereBeforeStays: that EC2 could not confirm for a while what another process had registered makes it nobody else's.
func TestWhatWasHereBeforeStays(t *testing.T) {
	for _, tt := range []struct{ addr, ec2 string }{{"10.10.1.80/24", "ec2: {assignOwned: error}"}, {"2001:db8:10:1::80/64", ""}} {
		t.Run(tt.addr, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.ec2)
				initContainer, sidecar := w.pod("worker-1"), w.pod("worker-1")
				initContainer.add(tt.addr)
				if err := initContainer.Until(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				if err := w.lab.Front.SetFaults([]front.Fault{
					{Action: "DescribeNetworkInterfaces", Nth: 2, Count: 20, Kind: front.ErrorBefore, Code: "RequestLimitExceeded"},
				}); err != nil {
					t.Fatal(err)
				}
				ip := netip.MustParsePrefix(tt.addr).Addr()
				sidecar.add(tt.addr)
				sidecar.run(t)
				eventually(t, time.Hour, "registered", func() bool { return sidecar.state(ip) == podsync.Registered })
				sidecar.stop()
				if err := sidecar.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				if w.owner(ip) == "" {
					t.Error("given back by a process that registered nothing")
				}
			})
		})
	}
}

// TestLeaveUsesItsGrace: EC2 that throttles for half of the grace is asked again in the other half.
func TestLeaveUsesItsGrace(t *testing.T) {
	const runs, grace = 100, 20 * time.Second
	lost := 0
	for range runs {
		synctest.Test(t, func(t *testing.T) {
			s := podsync.New(podsync.DefaultConfig(), &pod{interfaces: []attachment.Interface{
				{Name: "net1", Index: 3, Kind: attachment.KindIPVlan, Addresses: prefixes("10.10.1.80/24")},
			}}, throttled{time.Now().Add(grace / 2)})
			if err := s.Until(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), grace)
			defer cancel()
			if s.Leave(ctx) != nil {
				lost++
			}
		})
	}
	if lost > 0 {
		t.Errorf("not given back in %d of %d runs", lost, runs)
	}
}

// throttled is an EC2 that gives nothing back before some time.
type throttled struct{ until time.Time }

func (throttled) Register(_ context.Context, _ attachment.Interface, addrs []netip.Addr, _ attachment.OnConflict) map[netip.Addr]podsync.Result {
	results := map[netip.Addr]podsync.Result{}
	for _, a := range addrs {
		results[a] = podsync.Result{New: true}
	}
	return results
}

func (f throttled) Release(context.Context, attachment.Interface, []netip.Addr) error {
	if time.Now().Before(f.until) {
		return eni.ErrThrottled
	}
	return nil
}

func (throttled) Standing(context.Context, attachment.Interface, []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	return nil, nil
}
