// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

func takeIPv6(a ...netip.Addr) call {
	return func(ctx context.Context, w *world) error { return w.client.AssignIPv6(ctx, w.eni("w-1"), a) }
}

func giveIPv6(a ...netip.Addr) call {
	return func(ctx context.Context, w *world) error { return w.client.UnassignIPv6(ctx, w.eni("w-1"), a) }
}

func TestAssignAndUnassignIPv6(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	ctx, w1, w2 := t.Context(), w.eni("w-1"), w.eni("w-2")
	moved := addrs("2001:db8:0:101::30")
	for _, step := range []struct {
		name string
		do   error
	}{
		{"nothing", w.client.AssignIPv6(ctx, w1, nil)},
		{"nothing away", w.client.UnassignIPv6(ctx, w1, nil)},
		{"two", w.client.AssignIPv6(ctx, w1, addrs("2001:db8:0:101::40", "2001:db8:0:101::41"))},
		{"one away", w.client.UnassignIPv6(ctx, w1, addrs("2001:db8:0:101::41"))},
		{"another's, away from it first", errors.Join(w.client.UnassignIPv6(ctx, w2, moved), w.client.AssignIPv6(ctx, w1, moved))},
	} {
		if step.do != nil {
			t.Errorf("%s: %v", step.name, step.do)
		}
	}
	w.wantHoldsAll(t, w1, "2001:db8:0:101::40", "2001:db8:0:101::30")
	w.wantHoldsAll(t, w2, "10.10.1.80", "10.10.1.81", "10.10.1.82")
	w.wantOutcomes(t, "AssignIpv6Addresses ok", "UnassignIpv6Addresses ok", "UnassignIpv6Addresses ok", "AssignIpv6Addresses ok")

	owners, err := w.client.Owners(ctx, w.subnet("multus"), addrs("2001:db8:0:101::30", "2001:db8:0:101::41"))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, map[netip.Addr]eni.ID{moved[0]: w1}, owners)
	w.outcomes()

	for _, a := range []netip.Addr{
		netip.MustParseAddr("10.10.1.64"), netip.MustParseAddr("::ffff:10.10.1.64"), netip.MustParseAddr("fe80::1%eth1"), {},
	} {
		if err := w.client.AssignIPv6(ctx, w1, []netip.Addr{a}); err == nil {
			t.Errorf("assigned %s", a)
		}
		if err := w.client.UnassignIPv6(ctx, w1, []netip.Addr{a}); err == nil {
			t.Errorf("unassigned %s", a)
		}
	}
	w.wantOutcomes(t)
}

func TestTakenIPv6AddressesAreNamed(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	err := w.client.AssignIPv6(t.Context(), w.eni("w-1"), addrs("2001:db8:0:101::40", "2001:db8:0:101::30"))
	inUse, ok := errors.AsType[*eni.InUseError](err)
	if !ok || !slices.Equal(inUse.Addrs, addrs("2001:db8:0:101::30")) {
		t.Errorf("AssignIPv6: %v, want an InUseError of ::30", err)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "assign 2001:db8:0:101::40, 2001:db8:0:101::30 to eni-") {
		t.Errorf("message %v", err)
	}
	w.wantHoldsAll(t, w.eni("w-1"))
}

// TestUnpublishedWordsForTakenIPv6 has what EC2 might say, as it says so elsewhere.
func TestUnpublishedWordsForTakenIPv6(t *testing.T) {
	for name, tc := range map[string]struct {
		code, message string
		inUse         bool
	}{
		"the words of CreateNetworkInterface": {"InvalidParameterValue", "The specified address is already in use.", true},
		"the words of RunInstances":           {"InvalidParameterValue", "Address 2001:db8:0:101::30 is in use.", true},
		"other words":                         {"InvalidParameterValue", "[2001:db8:0:101::30] is already assigned.", true},
		"the code of CreateNetworkInterface":  {"InvalidIPAddress.InUse", "", true},
		"a code of the list of codes":         {"Resource.AlreadyAssigned", "", true},
		"words of which none says it":         {"InvalidParameterValue", "The address is not available.", false},
		"a code that does not say it":         {"InvalidAddress", "in vain", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, scenario.EC2{}, answering(400,
				`<Response><Errors><Error><Code>`+tc.code+`</Code><Message>`+tc.message+`</Message></Error></Errors><RequestID>r</RequestID></Response>`))
			err := w.client.AssignIPv6(t.Context(), w.eni("w-1"), addrs("2001:db8:0:101::30"))
			if err == nil || errors.Is(err, eni.ErrAddressInUse) != tc.inUse || errors.Is(err, eni.ErrOutcomeUnknown) {
				t.Errorf("AssignIPv6: %v, want in use %v", err, tc.inUse)
			}
		})
	}
}

// TestErrorsOfEC2AboutIPv6 has every answer that a write of IPv6 addresses may get, and what it means.
func TestErrorsOfEC2AboutIPv6(t *testing.T) {
	const assign, unassign = "AssignIpv6Addresses", "UnassignIpv6Addresses"
	one := addrs("2001:db8:0:101::40")
	var many []netip.Addr
	for next := one[0]; len(many) < 16; next = next.Next() {
		many = append(many, next)
	}
	noTokens := scenario.EC2{Throttle: front.Throttle{Default: front.Classes{Write: front.NewBucket(0, 0)}}}
	wantOutcomes(t, map[string]outcome{
		"ENI does not exist": {do: func(ctx context.Context, w *world) error {
			return w.client.AssignIPv6(ctx, "eni-0123456789abcdef0", one)
		}, want: eni.ErrNotFound, code: "InvalidNetworkInterfaceID.NotFound"},
		"subnet without IPv6": {do: func(ctx context.Context, w *world) error {
			return w.client.AssignIPv6(ctx, eni.ID(w.ENIs["w-1"][0]), one)
		}, code: "InvalidParameterValue"},
		"in use":                         {do: takeIPv6(addrs("2001:db8:0:101::30")...), want: eni.ErrAddressInUse, code: "InvalidParameterValue"},
		"slots full":                     {do: takeIPv6(many...), want: eni.ErrSlotsFull, code: "PrivateIpAddressLimitExceeded"},
		"outside the subnet":             {do: takeIPv6(addrs("2001:db8:0:102::40")...), code: "InvalidParameterValue"},
		"reserved":                       {do: takeIPv6(addrs("2001:db8:0:101::1")...), code: "InvalidParameterValue"},
		"throttled":                      {ec2: noTokens, do: takeIPv6(one...), want: eni.ErrThrottled, code: "RequestLimitExceeded"},
		"not authorised":                 {ec2: fault(assign, front.ErrorBefore, "UnauthorizedOperation"), do: takeIPv6(one...), want: eni.ErrUnauthorized, code: "UnauthorizedOperation"},
		"a code that nobody knows":       {ec2: fault(assign, front.ErrorBefore, "Unheard.Of"), do: takeIPv6(one...), code: "Unheard.Of"},
		"internal error, applied":        {ec2: fault(assign, front.ErrorAfter, "InternalError"), do: takeIPv6(one...), want: eni.ErrOutcomeUnknown, code: "InternalError", applied: 1},
		"internal error, not applied":    {ec2: fault(assign, front.ErrorBefore, "InternalError"), do: takeIPv6(one...), want: eni.ErrOutcomeUnknown, code: "InternalError"},
		"lost reply":                     {ec2: fault(assign, front.LostReply, ""), do: takeIPv6(one...), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply, applied: 1},
		"slow":                           {ec2: fault(assign, front.Slow, ""), do: takeIPv6(one...), want: eni.ErrOutcomeUnknown, code: OutcomeTimeout, applied: 1},
		"cancelled on the way back":      {ec2: scenario.EC2{Latency: time.Second}, do: cancelledAfter(800*time.Millisecond, takeIPv6(one...)), want: eni.ErrOutcomeUnknown, code: OutcomeCancelled, applied: 1},
		"cancelled before":               {do: cancelledAfter(0, takeIPv6(one...)), code: OutcomeNotSent},
		"unassign: not there":            {do: giveIPv6(one...), want: eni.ErrNotAssigned, code: "InvalidParameterValue"},
		"unassign: lost reply":           {ec2: fault(unassign, front.LostReply, ""), do: after(takeIPv6(one...), giveIPv6(one...)), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply},
		"unassign: throttled":            {ec2: fault(unassign, front.ErrorBefore, "RequestLimitExceeded"), do: after(takeIPv6(one...), giveIPv6(one...)), want: eni.ErrThrottled, code: "RequestLimitExceeded", applied: 1},
		"unassign: internal, unassigned": {ec2: fault(unassign, front.ErrorAfter, "InternalError"), do: after(takeIPv6(one...), giveIPv6(one...)), want: eni.ErrOutcomeUnknown, code: "InternalError"},
	})
}

// TestIPv6AnswersAreConfirmed: EC2 names what it did, so that an answer which lacks an address leaves its outcome unknown.
func TestIPv6AnswersAreConfirmed(t *testing.T) {
	const set = `<AssignIpv6AddressesResponse><assignedIpv6Addresses>%</assignedIpv6Addresses></AssignIpv6AddressesResponse>`
	for name, tc := range map[string]struct {
		answer  string
		unknown bool
	}{
		"all":                           {`<item>2001:db8:0:101::41</item><item>2001:db8:0:101::40</item>`, false},
		"all, written in another way":   {`<item>2001:0DB8:0000:0101::0040</item><item>2001:DB8:0:101::41</item>`, false},
		"none: it is taken at its word": {``, false},
		"one of two":                    {`<item>2001:db8:0:101::40</item>`, true},
		"one of two, and nonsense":      {`<item>2001:db8:0:101::40</item><item>41</item>`, true},
	} {
		t.Run(name, func(t *testing.T) {
			both := addrs("2001:db8:0:101::40", "2001:db8:0:101::41")
			assigned := strings.Replace(set, "%", tc.answer, 1)
			w := newWorld(t, scenario.EC2{}, answering(200, assigned))
			if err := w.client.AssignIPv6(t.Context(), w.eni("w-1"), both); errors.Is(err, eni.ErrOutcomeUnknown) != tc.unknown || (err != nil) != tc.unknown {
				t.Errorf("AssignIPv6: %v, want unknown %v", err, tc.unknown)
			}
			unassigned := strings.NewReplacer("assignedIpv6", "unassignedIpv6", "AssignIpv6", "UnassignIpv6").Replace(assigned)
			w = newWorld(t, scenario.EC2{}, answering(200, unassigned))
			if err := w.client.UnassignIPv6(t.Context(), w.eni("w-1"), both); errors.Is(err, eni.ErrOutcomeUnknown) != tc.unknown || (err != nil) != tc.unknown {
				t.Errorf("UnassignIPv6: %v, want unknown %v", err, tc.unknown)
			}
		})
	}
	t.Run("an answer cut off", func(t *testing.T) {
		w := newWorld(t, scenario.EC2{}, answering(200, set[:60]))
		if err := w.client.AssignIPv6(t.Context(), w.eni("w-1"), addrs("2001:db8:0:101::40")); !errors.Is(err, eni.ErrOutcomeUnknown) {
			t.Errorf("AssignIPv6: %v, want ErrOutcomeUnknown", err)
		}
	})
}
