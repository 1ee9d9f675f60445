// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

// world is an account of the lab with two workers, and a client of it. Address 10.10.1.N is the ENI's own for N = 20 (w-1)
// and 30 (w-2); w-2 holds 80 to 82.
type world struct {
	*scenario.Lab
	client *Client
	calls  []Call
	log    bytes.Buffer
}

const (
	secretKey    = "SECRET-KEY-IN-NO-LOG"
	sessionToken = "SESSION-TOKEN-IN-NO-LOG"
)

func newWorld(t *testing.T, ec2 scenario.EC2, through ...func(http.RoundTripper) http.RoundTripper) *world {
	t.Helper()
	var reservations []scenario.Reservation
	for n := range 12 {
		reservations = append(reservations, scenario.Reservation{
			CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10, 1, byte(64 + 16*n)}), 28), Tags: map[string]string{eni.TagRole: eni.RolePool, "n": fmt.Sprint(n)},
		})
	}
	reservations = append(reservations, scenario.Reservation{CIDR: netip.MustParsePrefix("2001:db8:0:101:1::/80"), Type: "prefix"})
	lab, err := scenario.Build(&scenario.Scenario{
		VPC: scenario.VPC{CIDR: netip.MustParsePrefix("10.10.0.0/16"), IPv6: netip.MustParsePrefix("2001:db8:0:100::/56")},
		Subnets: []scenario.Subnet{
			{Name: "primary", CIDR: netip.MustParsePrefix("10.10.12.0/24"), AZ: "us-west-2a", Tags: map[string]string{"tier": "nodes"}},
			{Name: "multus", CIDR: netip.MustParsePrefix("10.10.1.0/24"), IPv6: netip.MustParsePrefix("2001:db8:0:101::/64"), AZ: "us-west-2a", Reservations: reservations},
		},
		Instances: []scenario.Instance{
			{Name: "w-1", Type: "m5.2xlarge", ENIs: []scenario.ENI{
				{Subnet: "primary"},
				{Subnet: "multus", Addresses: addrs("10.10.1.20"), Tags: map[string]string{eni.TagNoManage: "true"}},
			}},
			{Name: "w-2", Type: "p4d.24xlarge", ENIs: []scenario.ENI{
				{Subnet: "primary"},
				{Subnet: "multus", Addresses: addrs("10.10.1.30", "10.10.1.80", "10.10.1.81", "10.10.1.82"), IPv6Addresses: addrs("2001:db8:0:101::30"), NetworkCard: 1},
			}},
		},
		EC2: ec2,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Lab: lab}
	rt := lab.EC2()
	for _, f := range through {
		rt = f(rt)
	}
	w.client = New(Config{
		SDK: aws.Config{
			Region: "us-west-2", HTTPClient: &http.Client{Transport: rt}, RetryMaxAttempts: 5,
			Credentials: credentials.NewStaticCredentialsProvider("AKIALAB", secretKey, sessionToken),
		},
		Log:          slog.New(slog.NewJSONHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Observe:      func(c Call) { w.calls = append(w.calls, c) },
		WriteTimeout: 3 * time.Second,
		ReadTimeout:  2 * time.Second,
	})
	return w
}

// eni is the multus ENI of the worker.
func (w *world) eni(worker string) eni.ID { return eni.ID(w.ENIs[worker][1]) }

func (w *world) subnet(name string) eni.SubnetID { return eni.SubnetID(w.Subnets[name]) }

// holds are the secondary addresses of the ENI, as the VPC has them now.
func (w *world) holds(id eni.ID) []netip.Addr {
	e, _ := w.Cloud.View(time.Now()).ENI(string(id))
	return slices.SortedFunc(slices.Values(e.Secondary), netip.Addr.Compare)
}

// holdsAll are the secondary and IPv6 addresses and the prefixes of the ENI, as the VPC has them now.
func (w *world) holdsAll(id eni.ID) []string {
	e, _ := w.Cloud.View(time.Now()).ENI(string(id))
	all := slices.Concat(texts(e.Secondary), texts(e.IPv6), texts(e.Prefixes), texts(e.IPv6Prefixes))
	slices.Sort(all)
	return all
}

func (w *world) wantHoldsAll(t *testing.T, id eni.ID, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := w.holdsAll(id); !slices.Equal(got, want) {
		t.Errorf("%s holds %v, want %v", id, got, want)
	}
}

func (w *world) wantHolds(t *testing.T, id eni.ID, want ...string) {
	t.Helper()
	if got := w.holds(id); !slices.Equal(got, addrs(want...)) {
		t.Errorf("%s holds %v, want %v", id, got, want)
	}
}

// outcomes of the calls since the last time, as "Action outcome".
func (w *world) outcomes() []string {
	var out []string
	for _, c := range w.calls {
		out = append(out, c.Action+" "+c.Outcome)
	}
	w.calls = nil
	return out
}

func (w *world) wantOutcomes(t *testing.T, want ...string) {
	t.Helper()
	if got := w.outcomes(); !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func fault(action string, kind front.Kind, code string) scenario.EC2 {
	return scenario.EC2{Faults: []front.Fault{{Action: action, Nth: 1, Count: 1, Kind: kind, Code: code}}}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// pagesOf makes every page of EC2's answers that small.
func pagesOf(n int) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			form, err := url.ParseQuery(string(body))
			if err != nil {
				return nil, err
			}
			if form.Has("MaxResults") {
				form.Set("MaxResults", fmt.Sprint(n))
			}
			r = r.Clone(r.Context())
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(form.Encode())), int64(len(form.Encode()))
			return next.RoundTrip(r)
		})
	}
}

// answering gives every request this answer.
func answering(status int, body string) func(http.RoundTripper) http.RoundTripper {
	return func(http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
		})
	}
}

// failing gives every request this error of the connection.
func failing(err error) func(http.RoundTripper) http.RoundTripper {
	return func(http.RoundTripper) http.RoundTripper {
		return transport(func(*http.Request) (*http.Response, error) { return nil, err })
	}
}
