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

// In the world, 10.10.1.64 to .255 is reserved as explicit, so that EC2 chooses among 10.10.1.4 to .63. Of the blocks there,
// 10.10.1.32/28 and 10.10.1.48/28 have no address in use.

func countOf(v6 bool, n int) call {
	return func(ctx context.Context, w *world) error {
		_, err := w.client.AssignCount(ctx, w.eni("w-1"), v6, n)
		return err
	}
}

func prefixesOf(v6 bool, n int) call {
	return func(ctx context.Context, w *world) error {
		_, err := w.client.AssignPrefixes(ctx, w.eni("w-1"), v6, n)
		return err
	}
}

func unassignPrefixes(names ...string) call {
	return func(ctx context.Context, w *world) error {
		var prefixes []netip.Prefix
		for _, name := range names {
			prefixes = append(prefixes, netip.MustParsePrefix(name))
		}
		return w.client.UnassignPrefixes(ctx, w.eni("w-1"), prefixes)
	}
}

func TestAssignCount(t *testing.T) {
	for name, tc := range map[string]struct {
		v6     bool
		in     netip.Prefix
		action string
	}{
		"IPv4": {false, netip.MustParsePrefix("10.10.1.0/26"), "AssignPrivateIpAddresses ok"},
		"IPv6": {true, netip.MustParsePrefix("2001:db8:0:101::/64"), "AssignIpv6Addresses ok"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, scenario.EC2{})
			first, err := w.client.AssignCount(t.Context(), w.eni("w-1"), tc.v6, 3)
			if err != nil || len(first) != 3 {
				t.Fatalf("AssignCount = %v, %v", first, err)
			}
			second, err := w.client.AssignCount(t.Context(), w.eni("w-1"), tc.v6, 1)
			if err != nil || len(second) != 1 {
				t.Fatalf("AssignCount again = %v, %v", second, err)
			}
			all := slices.Concat(first, second)
			w.wantHoldsAll(t, w.eni("w-1"), texts(all)...)
			w.wantOutcomes(t, tc.action, tc.action)
			for _, a := range all {
				if !tc.in.Contains(a) {
					t.Errorf("%s is not in %s", a, tc.in)
				}
			}
			got, err := w.client.Interfaces(t.Context(), []eni.ID{w.eni("w-1")})
			if err != nil || len(got) != 1 || slices.ContainsFunc(all, func(a netip.Addr) bool { return !got[0].Holds(a) }) {
				t.Errorf("Interfaces = %+v, %v, want one that holds %v", got, err, all)
			}
		})
	}
}

func TestPrefixesComeAndGo(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	ctx, w1 := t.Context(), w.eni("w-1")
	v4, err := w.client.AssignPrefixes(ctx, w1, false, 2)
	if err != nil {
		t.Fatal(err)
	}
	v6, err := w.client.AssignPrefixes(ctx, w1, true, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(v4); !slices.Equal(got, []string{"10.10.1.32/28", "10.10.1.48/28"}) {
		t.Errorf("IPv4 prefixes %v", got)
	}
	if reserved := netip.MustParsePrefix("2001:db8:0:101:1::/80"); len(v6) != 2 || v6[0] != reserved || v6[1].Bits() != 80 {
		t.Errorf("IPv6 prefixes %v, want %s first", v6, reserved)
	}
	all := slices.Concat(v4, v6)
	w.wantOutcomes(t, "AssignPrivateIpAddresses ok", "AssignIpv6Addresses ok")

	got, err := w.client.Interfaces(ctx, []eni.ID{w1})
	if err != nil || len(got) != 1 {
		t.Fatalf("Interfaces = %v, %v", got, err)
	}
	wantEqual(t, all, got[0].Prefixes)
	got, err = w.client.InterfacesOf(ctx, eni.InstanceID(w.Instances["w-1"]))
	if err != nil || !slices.ContainsFunc(got, func(i eni.Interface) bool { return i.ID == w1 && slices.Equal(i.Prefixes, all) }) {
		t.Errorf("InterfacesOf = %+v, %v, want one with %v", got, err, all)
	}
	// An address inside a prefix has no owner of its own.
	owners, err := w.client.Owners(ctx, w.subnet("multus"), []netip.Addr{v4[0].Addr(), v6[0].Addr().Next()})
	if err != nil || len(owners) != 0 {
		t.Errorf("Owners = %v, %v", owners, err)
	}
	w.outcomes()

	if err := w.client.UnassignPrefixes(ctx, w1, []netip.Prefix{v6[0], v4[1], v6[1]}); err != nil {
		t.Errorf("UnassignPrefixes: %v", err)
	}
	w.wantHoldsAll(t, w1, v4[0].String())
	w.wantOutcomes(t, "UnassignPrivateIpAddresses ok", "UnassignIpv6Addresses ok")
	if err := w.client.UnassignPrefixes(ctx, w1, v4[:1]); err != nil {
		t.Errorf("UnassignPrefixes of one family: %v", err)
	}
	w.wantHoldsAll(t, w1)
	w.wantOutcomes(t, "UnassignPrivateIpAddresses ok")
}

func TestNothingToChooseIsNoCall(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	for _, n := range []int{0, -1} {
		addrs, err := w.client.AssignCount(t.Context(), w.eni("w-1"), false, n)
		prefixes, err2 := w.client.AssignPrefixes(t.Context(), w.eni("w-1"), true, n)
		if len(addrs)+len(prefixes) != 0 || err != nil || err2 != nil {
			t.Errorf("%d: %v, %v, %v, %v", n, addrs, err, prefixes, err2)
		}
	}
	if err := w.client.UnassignPrefixes(t.Context(), w.eni("w-1"), nil); err != nil {
		t.Errorf("UnassignPrefixes of nothing: %v", err)
	}
	if err := w.client.UnassignPrefixes(t.Context(), w.eni("w-1"), []netip.Prefix{netip.MustParsePrefix("10.10.1.32/28"), {}}); err == nil {
		t.Error("unassigned the zero Prefix")
	}
	w.wantOutcomes(t)
}

// TestErrorsOfEC2WhenItChooses has every answer that a request by count may get, and what it means.
func TestErrorsOfEC2WhenItChooses(t *testing.T) {
	const assign, assign6, unassign6 = "AssignPrivateIpAddresses", "AssignIpv6Addresses", "UnassignIpv6Addresses"
	noTokens := scenario.EC2{Throttle: front.Throttle{Default: front.Classes{Write: front.NewBucket(0, 0)}}}
	// Of the 58 addresses, w-2 takes 46: all that its ENI has slots for.
	most := func(ctx context.Context, w *world) error {
		_, err := w.client.AssignCount(ctx, w.eni("w-2"), false, 46)
		return err
	}
	stranger := func(ctx context.Context, w *world) error {
		_, err := w.client.AssignCount(ctx, "eni-0123456789abcdef0", true, 1)
		return err
	}
	noIPv6 := func(ctx context.Context, w *world) error {
		_, err := w.client.AssignPrefixes(ctx, eni.ID(w.ENIs["w-1"][0]), true, 1)
		return err
	}
	wantOutcomes(t, map[string]outcome{
		"ENI does not exist":  {do: stranger, want: eni.ErrNotFound, code: "InvalidNetworkInterfaceID.NotFound"},
		"subnet without IPv6": {do: noIPv6, code: "InvalidParameterValue"},

		"count: slots full":       {do: countOf(false, 15), want: eni.ErrSlotsFull, code: "PrivateIpAddressLimitExceeded"},
		"count: IPv6 slots full":  {do: countOf(true, 16), want: eni.ErrSlotsFull, code: "PrivateIpAddressLimitExceeded"},
		"count: more than int32":  {do: countOf(false, 1<<40), want: eni.ErrSlotsFull, code: "PrivateIpAddressLimitExceeded"},
		"count: subnet full":      {do: after(most, countOf(false, 13)), want: eni.ErrSubnetFull, code: "InsufficientFreeAddressesInSubnet"},
		"count: throttled":        {ec2: noTokens, do: countOf(true, 3), want: eni.ErrThrottled, code: "RequestLimitExceeded"},
		"count: not authorised":   {ec2: fault(assign, front.ErrorBefore, "UnauthorizedOperation"), do: countOf(false, 3), want: eni.ErrUnauthorized, code: "UnauthorizedOperation"},
		"count: lost reply":       {ec2: fault(assign, front.LostReply, ""), do: countOf(false, 3), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply, applied: 3},
		"count: IPv6 lost reply":  {ec2: fault(assign6, front.LostReply, ""), do: countOf(true, 3), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply, applied: 3},
		"count: internal error":   {ec2: fault(assign6, front.ErrorBefore, "InternalError"), do: countOf(true, 3), want: eni.ErrOutcomeUnknown, code: "InternalError"},
		"count: slow":             {ec2: fault(assign, front.Slow, ""), do: countOf(false, 3), want: eni.ErrOutcomeUnknown, code: OutcomeTimeout, applied: 3},
		"count: cancelled before": {do: cancelledAfter(0, countOf(false, 3)), code: OutcomeNotSent},

		"prefixes: no whole block":     {do: prefixesOf(false, 3), want: eni.ErrNoPrefix, code: "InsufficientCidrBlocks"},
		"prefixes: IPv6 slots full":    {do: prefixesOf(true, 16), want: eni.ErrSlotsFull, code: "PrivateIpAddressLimitExceeded"},
		"prefixes: slots full":         {do: prefixesOf(false, 15), want: eni.ErrSlotsFull, code: "PrivateIpAddressLimitExceeded"},
		"prefixes: not of Nitro":       {ec2: fault(assign, front.ErrorBefore, "UnsupportedOperation"), do: prefixesOf(false, 1), code: "UnsupportedOperation"},
		"prefixes: lost reply":         {ec2: fault(assign, front.LostReply, ""), do: prefixesOf(false, 2), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply, applied: 2},
		"prefixes: IPv6 lost reply":    {ec2: fault(assign6, front.LostReply, ""), do: prefixesOf(true, 2), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply, applied: 2},
		"prefixes: cancelled half-way": {ec2: scenario.EC2{Latency: time.Second}, do: cancelledAfter(800*time.Millisecond, prefixesOf(true, 2)), want: eni.ErrOutcomeUnknown, code: OutcomeCancelled, applied: 2},

		"unassign: not there":      {do: unassignPrefixes("10.10.1.32/28"), want: eni.ErrNotAssigned, code: "InvalidParameterValue"},
		"unassign: IPv6 not there": {do: unassignPrefixes("2001:db8:0:101:1::/80"), want: eni.ErrNotAssigned, code: "InvalidParameterValue"},
		"unassign: IPv4 is not there, IPv6 is left alone": {
			do: after(prefixesOf(true, 1), unassignPrefixes("2001:db8:0:101:1::/80", "10.10.1.32/28")), want: eni.ErrNotAssigned, code: "InvalidParameterValue", applied: 1,
		},
		"unassign: IPv4 gone, IPv6 lost reply": {
			ec2: fault(unassign6, front.LostReply, ""), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply,
			do: after(prefixesOf(true, 1), prefixesOf(false, 1), unassignPrefixes("2001:db8:0:101:1::/80", "10.10.1.32/28")),
		},
		"unassign: IPv4 gone, IPv6 throttled": {
			ec2: fault(unassign6, front.ErrorBefore, "RequestLimitExceeded"), want: eni.ErrThrottled, code: "RequestLimitExceeded", applied: 1,
			do: after(prefixesOf(true, 1), prefixesOf(false, 1), unassignPrefixes("2001:db8:0:101:1::/80", "10.10.1.32/28")),
		},
	})
}

// TestAnswersByCountNameAll: only the answer says what EC2 chose, so one that names another number, or what cannot be read,
// leaves the outcome unknown. What it named is given with the error.
func TestAnswersByCountNameAll(t *testing.T) {
	v4 := func(items string) string {
		return `<AssignPrivateIpAddressesResponse>` + items + `</AssignPrivateIpAddressesResponse>`
	}
	address := func(a string) string {
		return `<assignedPrivateIpAddressesSet><item><privateIpAddress>` + a + `</privateIpAddress></item></assignedPrivateIpAddressesSet>`
	}
	for name, answer := range map[string]string{
		"none":              v4(""),
		"one":               v4(address("10.10.1.40")),
		"no address":        v4(address("10.10.1")),
		"prefixes for it":   v4(`<assignedIpv4PrefixSet><item><ipv4Prefix>10.10.1.32/28</ipv4Prefix></item></assignedIpv4PrefixSet>`),
		"an answer cut off": v4("")[:20],
		"a proxy's page":    "<html>it works</html>",
		"an empty answer":   "",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, scenario.EC2{}, answering(200, answer))
			got, err := w.client.AssignCount(t.Context(), w.eni("w-1"), false, 2)
			if !errors.Is(err, eni.ErrOutcomeUnknown) || !strings.HasPrefix(err.Error(), "assign 2 IPv4 addresses to eni-") {
				t.Errorf("AssignCount = %v, %v, want ErrOutcomeUnknown", got, err)
			}
			if one := name == "one"; (len(got) == 1) != one {
				t.Errorf("AssignCount = %v", got)
			}
		})
	}
	t.Run("one prefix of two", func(t *testing.T) {
		w := newWorld(t, scenario.EC2{}, answering(200, `<AssignIpv6AddressesResponse><assignedIpv6PrefixSet><item>2001:db8:0:101:1::/80</item></assignedIpv6PrefixSet></AssignIpv6AddressesResponse>`))
		got, err := w.client.AssignPrefixes(t.Context(), w.eni("w-1"), true, 2)
		if !errors.Is(err, eni.ErrOutcomeUnknown) || len(got) != 1 || !strings.HasPrefix(err.Error(), "assign 2 IPv6 prefixes to eni-") {
			t.Errorf("AssignPrefixes = %v, %v, want one and ErrOutcomeUnknown", got, err)
		}
	})
	t.Run("one unassigned prefix of two", func(t *testing.T) {
		w := newWorld(t, scenario.EC2{}, answering(200, `<UnassignIpv6AddressesResponse><unassignedIpv6PrefixSet><item>2001:db8:0:101:1::/80</item></unassignedIpv6PrefixSet></UnassignIpv6AddressesResponse>`))
		if err := unassignPrefixes("2001:db8:0:101:1::/80", "2001:db8:0:101:2::/80")(t.Context(), w); !errors.Is(err, eni.ErrOutcomeUnknown) {
			t.Errorf("UnassignPrefixes: %v, want ErrOutcomeUnknown", err)
		}
	})
}
