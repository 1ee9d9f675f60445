// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	smithy "github.com/aws/smithy-go"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

func (w *world) createENI(t *testing.T, primary netip.Addr) {
	t.Helper()
	if _, err := w.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{
		SubnetID: w.Subnets["multus"], AddressRequest: vpc.AddressRequest{Primary: primary},
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAssignAndUnassign(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	ctx, w1, w2 := t.Context(), w.eni("w-1"), w.eni("w-2")
	for _, step := range []struct {
		name string
		do   error
	}{
		{"nothing", w.client.Assign(ctx, w1, nil, false)},
		{"nothing away", w.client.Unassign(ctx, w1, nil)},
		{"two", w.client.Assign(ctx, w1, addrs("10.10.1.64", "10.10.1.65"), false)},
		{"one with reassign", w.client.Assign(ctx, w1, addrs("10.10.1.80"), true)},
		{"one away", w.client.Unassign(ctx, w1, addrs("10.10.1.64"))},
	} {
		if step.do != nil {
			t.Errorf("%s: %v", step.name, step.do)
		}
	}
	w.wantHolds(t, w1, "10.10.1.65", "10.10.1.80")
	w.wantHolds(t, w2, "10.10.1.81", "10.10.1.82")
	w.wantOutcomes(t, "AssignPrivateIpAddresses ok", "AssignPrivateIpAddresses ok", "UnassignPrivateIpAddresses ok")

	for name, err := range map[string]error{
		"assign":   w.client.Assign(ctx, w1, addrs("2001:db8:0:101::40"), false),
		"unassign": w.client.Unassign(ctx, w2, addrs("2001:db8:0:101::30")),
	} {
		if err == nil {
			t.Errorf("%s of an IPv6 address succeeded", name)
		}
	}
	w.wantOutcomes(t)
}

func TestTakenAddressesAreNamed(t *testing.T) {
	for _, batch := range []string{vpc.MixedBatchAtomic, vpc.MixedBatchPartial} {
		t.Run(batch, func(t *testing.T) {
			w := newWorld(t, scenario.EC2{MixedBatch: batch})
			err := w.client.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.64", "10.10.1.80", "10.10.1.65", "10.10.1.82"), false)
			if !errors.Is(err, eni.ErrAddressInUse) || errors.Is(err, eni.ErrOutcomeUnknown) {
				t.Fatalf("Assign: %v, want ErrAddressInUse", err)
			}
			inUse, ok := errors.AsType[*eni.InUseError](err)
			if !ok || !slices.Equal(inUse.Addrs, addrs("10.10.1.80", "10.10.1.82")) {
				t.Errorf("the error names %v", inUse)
			}
			if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != "InvalidParameterValue" {
				t.Errorf("EC2's own error is lost: %v", err)
			}
			if s := err.Error(); !strings.HasPrefix(s, "assign 10.10.1.64, 10.10.1.80, 10.10.1.65, 10.10.1.82 to eni-") {
				t.Errorf("message %q", s)
			}
			w.wantOutcomes(t, "AssignPrivateIpAddresses InvalidParameterValue")
		})
	}
}

// TestErrorsOfEC2 has every answer that a write may get, and what it means.
func TestErrorsOfEC2(t *testing.T) {
	const assign, unassign = "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"
	one := addrs("10.10.1.64")
	take := func(a ...netip.Addr) call {
		return func(ctx context.Context, w *world) error { return w.client.Assign(ctx, w.eni("w-1"), a, false) }
	}
	give := func(ctx context.Context, w *world) error { return w.client.Unassign(ctx, w.eni("w-1"), one) }
	var many []netip.Addr
	for n := range 15 {
		many = append(many, netip.AddrFrom4([4]byte{10, 10, 1, byte(100 + n)}))
	}
	noTokens := scenario.EC2{Throttle: front.Throttle{Default: front.Classes{Write: front.NewBucket(0, 0)}}}
	wantOutcomes(t, map[string]outcome{
		"ENI does not exist": {do: func(ctx context.Context, w *world) error {
			return w.client.Assign(ctx, "eni-0123456789abcdef0", one, false)
		}, want: eni.ErrNotFound, code: "InvalidNetworkInterfaceID.NotFound"},
		"slots full":                     {do: take(many...), want: eni.ErrSlotsFull, code: "PrivateIpAddressLimitExceeded"},
		"not there":                      {do: give, want: eni.ErrNotAssigned, code: "InvalidParameterValue"},
		"outside the subnet":             {do: take(addrs("10.10.12.64")...), code: "InvalidParameterValue"},
		"reserved":                       {do: take(addrs("10.10.1.1")...), code: "InvalidParameterValue"},
		"throttled":                      {ec2: noTokens, do: take(one...), want: eni.ErrThrottled, code: "RequestLimitExceeded"},
		"throttled by another name":      {ec2: fault(assign, front.ErrorBefore, "ThrottlingException"), do: take(one...), want: eni.ErrThrottled, code: "ThrottlingException"},
		"not authorised":                 {ec2: fault(assign, front.ErrorBefore, "UnauthorizedOperation"), do: take(one...), want: eni.ErrUnauthorized, code: "UnauthorizedOperation"},
		"subnet full":                    {ec2: fault(assign, front.ErrorBefore, "InsufficientFreeAddressesInSubnet"), do: take(one...), want: eni.ErrSubnetFull, code: "InsufficientFreeAddressesInSubnet"},
		"a code that nobody knows":       {ec2: fault(assign, front.ErrorBefore, "Unheard.Of"), do: take(one...), code: "Unheard.Of"},
		"internal error, applied":        {ec2: fault(assign, front.ErrorAfter, "InternalError"), do: take(one...), want: eni.ErrOutcomeUnknown, code: "InternalError", applied: 1},
		"internal error, not applied":    {ec2: fault(assign, front.ErrorBefore, "InternalError"), do: take(one...), want: eni.ErrOutcomeUnknown, code: "InternalError"},
		"unavailable":                    {ec2: fault(assign, front.ServerError, "Unavailable"), do: take(one...), want: eni.ErrOutcomeUnknown, code: "Unavailable"},
		"lost reply":                     {ec2: fault(assign, front.LostReply, ""), do: take(one...), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply, applied: 1},
		"slow":                           {ec2: fault(assign, front.Slow, ""), do: take(one...), want: eni.ErrOutcomeUnknown, code: OutcomeTimeout, applied: 1},
		"cancelled while on the way":     {ec2: scenario.EC2{Latency: time.Second}, do: cancelledAfter(200*time.Millisecond, take(one...)), want: eni.ErrOutcomeUnknown, code: OutcomeCancelled},
		"cancelled on the way back":      {ec2: scenario.EC2{Latency: time.Second}, do: cancelledAfter(800*time.Millisecond, take(one...)), want: eni.ErrOutcomeUnknown, code: OutcomeCancelled, applied: 1},
		"cancelled before":               {do: cancelledAfter(0, take(one...)), code: OutcomeNotSent},
		"unassign: lost reply":           {ec2: fault(unassign, front.LostReply, ""), do: after(take(one...), give), want: eni.ErrOutcomeUnknown, code: OutcomeNoReply},
		"unassign: throttled":            {ec2: fault(unassign, front.ErrorBefore, "RequestLimitExceeded"), do: after(take(one...), give), want: eni.ErrThrottled, code: "RequestLimitExceeded", applied: 1},
		"unassign: internal, unassigned": {ec2: fault(unassign, front.ErrorAfter, "InternalError"), do: after(take(one...), give), want: eni.ErrOutcomeUnknown, code: "InternalError"},
	})
}

// wantOneRequestEach: nothing was retried behind the caller's back.
func (w *world) wantOneRequestEach(t *testing.T) {
	t.Helper()
	for _, c := range w.Front.Calls() {
		if c.Count != 1 {
			t.Errorf("%d requests %s %s", c.Count, c.Action, c.Result)
		}
	}
}

func TestConnectionsThatBreak(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	for name, tc := range map[string]struct {
		through func(http.RoundTripper) http.RoundTripper
		unknown bool
		outcome string
	}{
		"no connection":         {failing(refused), false, OutcomeNotSent},
		"reset while sending":   {failing(&net.OpError{Op: "write", Net: "tcp", Err: errors.New("reset")}), true, OutcomeNoReply},
		"reset while waiting":   {failing(io.ErrUnexpectedEOF), true, OutcomeNoReply},
		"answer is cut off":     {answering(200, `<AssignPrivateIpAddressesResponse><networkInterf`), true, OutcomeNoReply},
		"a proxy's 502":         {answering(502, "<html>bad gateway</html>"), true, "UnknownError"},
		"empty 503":             {answering(503, ""), true, "UnknownError"},
		"the answer names less": {answering(200, `<AssignPrivateIpAddressesResponse><assignedPrivateIpAddressesSet><item><privateIpAddress>10.10.1.64</privateIpAddress></item></assignedPrivateIpAddressesSet></AssignPrivateIpAddressesResponse>`), true, OutcomeOK},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, scenario.EC2{}, tc.through)
			err := w.client.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.64", "10.10.1.65"), false)
			if err == nil || errors.Is(err, eni.ErrOutcomeUnknown) != tc.unknown {
				t.Errorf("Assign: %v, want unknown %v", err, tc.unknown)
			}
			if got := w.outcomes(); len(got) != 1 || !strings.HasSuffix(got[0], " "+tc.outcome) {
				t.Errorf("calls %q, want one that ends in %q", got, tc.outcome)
			}
		})
	}
	t.Run("an answer that names nothing is taken at its word", func(t *testing.T) {
		w := newWorld(t, scenario.EC2{}, answering(200, `<AssignPrivateIpAddressesResponse><return>true</return></AssignPrivateIpAddressesResponse>`))
		if err := w.client.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.64"), false); err != nil {
			t.Errorf("Assign: %v", err)
		}
	})
}

// TestLostReplyOnASocketIsNotSentAgain: net/http repeats some requests by itself when a kept connection breaks.
func TestLostReplyOnASocketIsNotSentAgain(t *testing.T) {
	w := newWorld(t, scenario.EC2{Faults: []front.Fault{{Action: "AssignPrivateIpAddresses", Nth: 2, Kind: front.LostReply}}})
	server := httptest.NewServer(w.Front)
	defer server.Close()
	c := New(Config{SDK: aws.Config{
		Region: "us-west-2", BaseEndpoint: aws.String(server.URL), HTTPClient: server.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIALAB", secretKey, ""),
	}})
	if err := c.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.64"), false); err != nil {
		t.Fatal(err)
	}
	if err := c.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.65"), false); !errors.Is(err, eni.ErrOutcomeUnknown) {
		t.Errorf("Assign: %v, want ErrOutcomeUnknown", err)
	}
	w.wantHolds(t, w.eni("w-1"), "10.10.1.64", "10.10.1.65")
	w.wantOneRequestEach(t) // one ok, one lost
	server.Close()
	if err := c.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.66"), false); err == nil || errors.Is(err, eni.ErrOutcomeUnknown) {
		t.Errorf("with the endpoint gone: %v", err)
	}
}

// TestReadsHaveNoUnknownOutcome: there is nothing to read back.
func TestReadsHaveNoUnknownOutcome(t *testing.T) {
	const describe = "DescribeNetworkInterfaces"
	for name, tc := range map[string]struct {
		ec2  scenario.EC2
		want error
	}{
		"lost reply":     {ec2: fault(describe, front.LostReply, "")},
		"internal error": {ec2: fault(describe, front.ErrorBefore, "InternalError")},
		"unavailable":    {ec2: fault(describe, front.ServerError, "Unavailable")},
		"throttled":      {ec2: fault(describe, front.ErrorBefore, "RequestLimitExceeded"), want: eni.ErrThrottled},
		"not authorised": {ec2: fault(describe, front.ErrorBefore, "UnauthorizedOperation"), want: eni.ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.ec2)
			_, err := w.client.InterfacesOf(t.Context(), eni.InstanceID(w.Instances["w-1"]))
			if err == nil || errors.Is(err, eni.ErrOutcomeUnknown) || (tc.want != nil && !errors.Is(err, tc.want)) {
				t.Errorf("InterfacesOf: %v", err)
			}
			w.wantOneRequestEach(t)
			if _, err = w.client.InterfacesOf(t.Context(), eni.InstanceID(w.Instances["w-1"])); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}

func TestWithoutCredentialsNothingIsSent(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	var calls []Call
	c := New(Config{
		SDK: aws.Config{Region: "us-west-2", HTTPClient: &http.Client{Transport: w.EC2()}, Credentials: aws.CredentialsProviderFunc(
			func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, errors.New("no role") },
		)},
		Observe: func(c Call) { calls = append(calls, c) },
	})
	err := c.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.64"), false)
	if err == nil || errors.Is(err, eni.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "no role") {
		t.Errorf("Assign: %v", err)
	}
	if len(calls) != 1 || calls[0].Outcome != OutcomeNotSent || len(w.Front.Calls()) != 0 {
		t.Errorf("calls %+v, requests %v", calls, w.Front.Calls())
	}
}

func TestEveryCallIsObservedAndLoggedWithoutSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, scenario.EC2{Latency: 80 * time.Millisecond})
		if _, err := w.client.Limits(t.Context(), "m5.2xlarge"); err != nil {
			t.Error(err)
		}
		if err := w.client.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.64"), false); err != nil {
			t.Error(err)
		}
		if err := w.client.Assign(t.Context(), w.eni("w-1"), addrs("10.10.1.80"), false); err == nil {
			t.Error("no error")
		}
		want := []Call{
			{Action: "DescribeInstanceTypes", Duration: 80 * time.Millisecond, Outcome: "ok"},
			{Action: "AssignPrivateIpAddresses", Duration: 80 * time.Millisecond, Outcome: "ok"},
			{Action: "AssignPrivateIpAddresses", Duration: 80 * time.Millisecond, Outcome: "InvalidParameterValue"},
		}
		wantEqual(t, want, w.calls)
		log := w.log.String()
		lines := strings.Split(strings.TrimSpace(log), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], `"DEBUG"`) || !strings.Contains(lines[1], `"INFO"`) || !strings.Contains(lines[2], "move is not allowed") {
			t.Errorf("log:\n%s", log)
		}
		if !strings.Contains(lines[2], `"requestID":"`) {
			t.Errorf("no request ID to give to AWS support: %s", lines[2])
		}
		for _, secret := range []string{secretKey, sessionToken, "Signature"} {
			if strings.Contains(log, secret) {
				t.Errorf("the log has %s", secret)
			}
		}
	})
}
