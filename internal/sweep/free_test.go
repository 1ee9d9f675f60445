// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sweep_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/sweep"
)

// freed are what a sweep of the empty cluster takes away.
var freed = []string{"10.10.1.128", "10.10.1.144", "10.10.1.80", "10.10.1.81", "10.10.1.82", "10.10.2.80", "2001:db8:10:1:5::80"}

// TestFaultsOfEC2: whatever happens to a request, the report says what has become of each address.
func TestFaultsOfEC2(t *testing.T) {
	t.Parallel()
	const first = "{action: UnassignPrivateIpAddresses, nth: 1, count: 1, "
	for name, tc := range map[string]struct {
		faults string
		failed []string // the rest is freed
		reason string
		taken  []string // of those that failed
	}{
		"none":                                {},
		"throttled":                           {faults: first + "kind: error-before, code: RequestLimitExceeded}"},
		"a read is throttled":                 {faults: "{action: DescribeNetworkInterfaces, nth: 1, count: 2, kind: error-before, code: RequestLimitExceeded}"},
		"a read fails":                        {faults: "{action: DescribeNetworkInterfaces, nth: 1, count: 3, kind: 5xx}"},
		"a lost reply":                        {faults: first + "kind: lost-reply}"},
		"a lost reply of IPv6":                {faults: "{action: UnassignIpv6Addresses, nth: 1, count: 1, kind: lost-reply}"},
		"a fault of the server before it did": {faults: "{action: UnassignPrivateIpAddresses, nth: 1, count: 1, kind: 5xx}"},
		"an error after it did":               {faults: first + "kind: error-after, code: InternalError}"},
		"no permission": {
			faults: "{action: UnassignPrivateIpAddresses, nth: 1, count: 1, kind: error-before, code: UnauthorizedOperation}",
			failed: []string{"10.10.1.128", "10.10.1.144", "10.10.1.80", "10.10.1.81"}, reason: "not authorised by IAM",
		},
		"lost replies, and EC2 cannot be read": {
			faults: first + "kind: lost-reply}, {action: DescribeNetworkInterfaces, nth: 3, count: 99, kind: error-before, code: UnauthorizedOperation}",
			failed: []string{"10.10.1.128", "10.10.1.144", "10.10.1.80", "10.10.1.81"}, reason: "outcome unknown",
			taken: []string{"10.10.1.128", "10.10.1.144", "10.10.1.80", "10.10.1.81"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, "ec2: {propagation: {describe: 1s}, faults: ["+tc.faults+"]}", func(t *testing.T, w *world) {
				r, err := w.run(sweep.Options{Free: true})
				if err != nil {
					t.Fatal(err)
				}
				var away []string
				for _, a := range freed {
					if !slices.Contains(tc.failed, a) || slices.Contains(tc.taken, a) {
						away = append(away, a)
					}
				}
				for _, f := range r.Findings {
					want := sweep.Kept
					switch a := f.Address.String(); {
					case slices.Contains(tc.failed, a):
						want = sweep.Failed
					case slices.Contains(freed, a):
						want = sweep.Freed
					}
					if f.Verdict != want || want == sweep.Failed && !strings.Contains(f.Reason, tc.reason) {
						t.Errorf("%s %s: %s; want %s, %s", f.Address, f.Verdict, f.Reason, want, tc.reason)
					}
				}
				w.onENIs(without(away...)...)
			})
		})
	}
}

// TestEC2CannotBeAsked: then nothing is changed.
func TestEC2CannotBeAsked(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{
		"{action: DescribeNetworkInterfaces, nth: 1, count: 1, kind: error-before, code: UnauthorizedOperation}",
		"{action: DescribeNetworkInterfaces, nth: 2, count: 99, kind: 5xx}",
		"{action: GetSubnetCidrReservations, nth: 1, count: 1, kind: error-before, code: UnauthorizedOperation}",
		"{action: GetSubnetCidrReservations, nth: 1, count: 999, kind: error-before, code: RequestLimitExceeded}",
	} {
		inWorld(t, "ec2: {faults: ["+fault+"]}", func(t *testing.T, w *world) {
			if r, err := w.run(sweep.Options{Free: true}); err == nil {
				t.Errorf("%s: no error, %+v", fault, r)
			}
			w.onENIs(all()...)
		})
	}
}

// ec2 is the lab's EC2 with somebody who acts between our requests.
type ec2 struct {
	sweep.EC2
	before func(id eni.ID, addrs []netip.Addr) // of each unassign
}

func (e ec2) Unassign(ctx context.Context, id eni.ID, addrs []netip.Addr) error {
	e.before(id, addrs)
	return e.EC2.Unassign(ctx, id, addrs)
}

// TestOthersActWhileItFrees: an address that was given back meanwhile does not hold up the rest, one that has moved stays where
// it is, and a pod that comes while other ENIs are swept keeps its address.
func TestOthersActWhileItFrees(t *testing.T) {
	t.Parallel()
	for _, slow := range []string{"", "ec2: {latency: 6s}"} { // when it is, each request is after another look
		inWorld(t, slow, func(t *testing.T, w *world) {
			real, acted := w.EC2.(assigner), false
			w.EC2 = ec2{w.EC2, func(id eni.ID, _ []netip.Addr) {
				if acted || id != w.eni("worker-1", 1) {
					return
				}
				acted = true
				must(t, real.Unassign(t.Context(), id, addrs("10.10.1.80")))
				must(t, real.Assign(t.Context(), w.eni("theirs", 1), addrs("10.10.1.81"), true))
			}}
			r, err := w.run(sweep.Options{Free: true})
			must(t, err)
			want := []string{"10.10.1.80 gone: was given back meanwhile", "10.10.1.81 gone: was given back meanwhile"}
			for _, a := range without("10.10.1.80", "10.10.1.81", "10.10.12.80", "10.10.1.112", "2001:db8:10:1::80", "10.10.1.84", "10.10.1.86") {
				want = append(want, a+" freed: no pod has it")
			}
			w.want(r, want...)
			w.onENIs("10.10.12.80", "10.10.1.112", "2001:db8:10:1::80", "10.10.1.84", "10.10.1.86", "10.10.1.81")
		})
	}
	inWorld(t, "ec2: {latency: 4s}", func(t *testing.T, w *world) {
		last := w.eni("worker-2", 2)
		w.EC2 = ec2{w.EC2, func(eni.ID, []netip.Addr) {
			w.api.pods = []cluster.Pod{pod("late", "node-2", "10.10.2.80", "10.10.1.82")}
		}}
		r, err := w.run(sweep.Options{Free: true, Keep: []attachment.Range{{From: addrs("10.10.1.82")[0], To: addrs("10.10.1.82")[0]}}})
		must(t, err)
		for _, f := range r.Findings {
			if f.ENI == last && (f.Verdict != sweep.Kept || f.Reason != "is no orphan any more") {
				t.Errorf("%s %s: %s", f.Address, f.Verdict, f.Reason)
			}
		}
		if got := r.Count(sweep.Freed); got != 5 {
			t.Errorf("%d freed, want the 5 of worker-1", got)
		}
	})
}

// TestPodComesWhileRequestsTakeTheirTime: each request is about what is an orphan when it leaves, however often EC2 throttles it and
// whatever the one before took. The pod comes with the first request.
func TestPodComesWhileRequestsTakeTheirTime(t *testing.T) {
	t.Parallel()
	const throttled = "{action: UnassignPrivateIpAddresses, nth: 1, count: 1, kind: error-before, code: RequestLimitExceeded}"
	for name, tc := range map[string]struct{ faults, has string }{
		"throttled":        {throttled, "10.10.1.80"},
		"IPv6 comes after": {"", "2001:db8:10:1:5::80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, "ec2: {latency: 6s, faults: ["+tc.faults+"]}", func(t *testing.T, w *world) {
				w.EC2 = ec2{w.EC2, func(eni.ID, []netip.Addr) { w.api.pods = []cluster.Pod{pod("late", "node-1", tc.has)} }}
				r, err := w.run(sweep.Options{Free: true})
				must(t, err)
				want := []string{tc.has + " kept: is no orphan any more"}
				for _, a := range freed {
					if a != tc.has {
						want = append(want, a+" freed: no pod has it")
					}
				}
				w.want(r, want...)
			})
		})
	}
}

// TestNothingIsFreedByAnOldLook: when EC2 throttles a request and cannot be looked at again after, the sweep ends.
func TestNothingIsFreedByAnOldLook(t *testing.T) {
	t.Parallel()
	const throttled = "{action: UnassignPrivateIpAddresses, nth: 1, count: 99, kind: error-before, code: RequestLimitExceeded}"
	inWorld(t, "ec2: {latency: 6s, faults: ["+throttled+"]}", func(t *testing.T, w *world) {
		w.api.before = func(n int) error {
			if n > 2 {
				return errors.New("the API is down")
			}
			return nil
		}
		r, err := w.run(sweep.Options{Free: true})
		if err == nil || !strings.Contains(err.Error(), "look again before the next request: the API is down") {
			t.Error(err)
		}
		if n := r.Count(sweep.Orphan); n != len(freed) {
			t.Errorf("%d orphans, want %d", n, len(freed))
		}
		w.onENIs(all()...)
	})
}

// TestENIsWithoutAnInstance are swept when the name of the cluster says that they are ours, stock included.
func TestENIsWithoutAnInstance(t *testing.T) {
	t.Parallel()
	inWorld(t, "", func(t *testing.T, w *world) {
		id := string(w.eni("worker-1", 1))
		e, _ := w.lab.Cloud.View(time.Now()).ENI(id)
		if err := w.lab.Cloud.DetachNetworkInterface(time.Now(), e.Attachment.ID); err != nil {
			t.Fatal(err)
		}
		r, err := w.run(sweep.Options{})
		must(t, err)
		for _, f := range r.Findings {
			if string(f.ENI) == id && f.Reason != "its ENI is on no instance; --cluster would say whose it is" {
				t.Errorf("%s %s: %s", f.Address, f.Verdict, f.Reason)
			}
		}
		r, err = w.run(sweep.Options{Free: true, Cluster: "core"})
		must(t, err)
		const reason = " freed: no pod has it, and its ENI is on no instance"
		w.want(r, "10.10.1.112"+reason, "10.10.1.128"+reason, "10.10.1.144"+reason, "10.10.1.80"+reason, "10.10.1.81"+reason,
			"2001:db8:10:1:5::80"+reason, "2001:db8:10:1::80"+reason, "10.10.1.82 freed: no pod has it", "10.10.2.80 freed: no pod has it")
	})
}

// TestManyAtOnce: one request for an ENI and family, however many addresses there are.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, "", func(t *testing.T, w *world) {
		_, err := w.run(sweep.Options{Free: true})
		must(t, err)
		got := map[string]int{}
		for _, c := range w.lab.Front.Calls() {
			got[c.Action] += c.Count
		}
		if want := "map[DescribeNetworkInterfaces:2 GetSubnetCidrReservations:4 UnassignIpv6Addresses:1 UnassignPrivateIpAddresses:3]"; fmt.Sprint(got) != want {
			t.Errorf("calls %v, want %s", got, want)
		}
	})
}

type assigner interface {
	Assign(context.Context, eni.ID, []netip.Addr, bool) error
	Unassign(context.Context, eni.ID, []netip.Addr) error
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
