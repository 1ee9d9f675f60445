// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package imds

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

func addrList(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// world is a worker of a multi-card type with an IPv6 address on one ENI and two cards.
func world(t *testing.T, kind string) *scenario.Lab {
	t.Helper()
	card1 := []scenario.ENI{{Subnet: "multus", Addresses: addrList("10.10.1.30"), NetworkCard: 1}}
	if kind == "m5.2xlarge" {
		card1 = nil
	}
	lab, err := scenario.Build(&scenario.Scenario{
		VPC: scenario.VPC{CIDR: netip.MustParsePrefix("10.10.0.0/16"), IPv6: netip.MustParsePrefix("2001:db8:0:100::/56")},
		Subnets: []scenario.Subnet{
			{Name: "primary", CIDR: netip.MustParsePrefix("10.10.12.0/24"), AZ: "us-west-2a"},
			{Name: "multus", CIDR: netip.MustParsePrefix("10.10.1.0/24"), IPv6: netip.MustParsePrefix("2001:db8:0:101::/64"), AZ: "us-west-2a"},
		},
		Instances: []scenario.Instance{{Name: "w", Type: kind, ENIs: append([]scenario.ENI{
			{Subnet: "primary", Addresses: addrList("10.10.12.10")},
			{
				Subnet: "multus", Addresses: addrList("10.10.1.20", "10.10.1.70", "10.10.1.71"), IPv6Addresses: addrList("2001:db8:0:101::20"),
				Tags: map[string]string{eni.TagNoManage: "true"},
			},
		}, card1...)}},
		EC2: scenario.EC2{Propagation: scenario.Propagation{IMDS: 2 * time.Second, Describe: time.Second}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// client is a Client whose requests pass through each.
func client(rt http.RoundTripper, through ...func(*http.Request) *http.Response) *Client {
	return New(Config{SDK: aws.Config{HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		for _, f := range through {
			if resp := f(r); resp != nil {
				return resp, nil
			}
		}
		return rt.RoundTrip(r)
	})}}})
}

func answer(r *http.Request, status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

// without hides the keys that end in one of the suffixes.
func without(suffixes ...string) func(*http.Request) *http.Response {
	return func(r *http.Request) *http.Response {
		if slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(r.URL.Path, s) }) {
			return answer(r, http.StatusNotFound, "")
		}
		return nil
	}
}

func byIndex(t *testing.T, c *Client) []eni.Interface {
	t.Helper()
	got, err := c.Interfaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b eni.Interface) int {
		return cmp.Or(cmp.Compare(a.NetworkCard, b.NetworkCard), cmp.Compare(a.DeviceIndex, b.DeviceIndex))
	})
	return got
}

var equateAddrs = gocmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestInstance(t *testing.T) {
	lab := world(t, "m5.2xlarge")
	got, err := client(lab.IMDS("w")).Instance(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := eni.Instance{ID: eni.InstanceID(lab.Instances["w"]), Type: "m5.2xlarge", AZ: "us-west-2a", Region: "us-west-2"}
	if got != want {
		t.Errorf("Instance = %+v, want %+v", got, want)
	}
}

func TestInterfacesAreTheInstancesENIs(t *testing.T) {
	for kind, cards := range map[string]int{"m5.2xlarge": 1, "p4d.24xlarge": 2} {
		t.Run(kind, func(t *testing.T) {
			lab := world(t, kind)
			got := byIndex(t, client(lab.IMDS("w")))
			id, ids := eni.InstanceID(lab.Instances["w"]), lab.ENIs["w"]
			want := []eni.Interface{
				{ID: eni.ID(ids[0]), InstanceID: id, SubnetID: eni.SubnetID(lab.Subnets["primary"]), Primary: netip.MustParseAddr("10.10.12.10")},
				{
					ID: eni.ID(ids[1]), InstanceID: id, DeviceIndex: 1, SubnetID: eni.SubnetID(lab.Subnets["multus"]),
					Primary: netip.MustParseAddr("10.10.1.20"), Secondary: addrList("10.10.1.70", "10.10.1.71"), IPv6: addrList("2001:db8:0:101::20"),
				},
			}
			if cards == 2 {
				want = append(want, eni.Interface{
					ID: eni.ID(ids[2]), InstanceID: id, NetworkCard: 1, DeviceIndex: 1, SubnetID: eni.SubnetID(lab.Subnets["multus"]),
					Primary: netip.MustParseAddr("10.10.1.30"),
				})
			}
			macs, err := client(lab.IMDS("w")).MACs(t.Context())
			if err != nil || len(macs) != len(got) || slices.ContainsFunc(got, func(i eni.Interface) bool { return !slices.Contains(macs, i.MAC) }) {
				t.Errorf("MACs = %q, %v", macs, err)
			}
			for i := range got { // MACs are random, but must be canonical
				if got[i].MAC == "" || got[i].MAC != eni.ParseMAC(string(got[i].MAC)) {
					t.Errorf("MAC %q", got[i].MAC)
				}
				got[i].MAC = ""
				if len(got[i].Secondary) == 0 {
					got[i].Secondary = nil
				}
			}
			if diff := gocmp.Diff(want, got, equateAddrs); diff != "" {
				t.Errorf("Interfaces (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPrefixesAreShown(t *testing.T) {
	lab := world(t, "m5.2xlarge")
	got := byIndex(t, client(lab.IMDS("w"), func(r *http.Request) *http.Response {
		switch {
		case strings.HasSuffix(r.URL.Path, "/ipv4-prefix"):
			return answer(r, http.StatusOK, "10.10.1.128/28\n10.10.1.144/28\n")
		case strings.HasSuffix(r.URL.Path, "/ipv6-prefix"):
			return answer(r, http.StatusOK, "2001:db8:0:101:1::/80")
		}
		return nil
	}))
	want := []netip.Prefix{netip.MustParsePrefix("10.10.1.128/28"), netip.MustParsePrefix("10.10.1.144/28"), netip.MustParsePrefix("2001:db8:0:101:1::/80")}
	if !slices.Equal(got[1].Prefixes, want) {
		t.Errorf("Prefixes = %v, want %v", got[1].Prefixes, want)
	}
}

// TestENIOfWhichOnlySomeKeysAreThereIsLeftOut: the listing shows an ENI before all its keys exist, and after they went.
func TestENIOfWhichOnlySomeKeysAreThereIsLeftOut(t *testing.T) {
	lab := world(t, "m5.2xlarge")
	mac := string(byIndex(t, client(lab.IMDS("w")))[1].MAC)
	for name, hidden := range map[string][]string{
		"all":           {mac + "/interface-id", mac + "/device-number", mac + "/subnet-id", mac + "/local-ipv4s", mac + "/ipv6s"},
		"interface ID":  {mac + "/interface-id"},
		"device number": {mac + "/device-number"},
		"subnet":        {mac + "/subnet-id"},
		"addresses":     {mac + "/local-ipv4s", mac + "/ipv6s"},
	} {
		t.Run(name, func(t *testing.T) {
			got := byIndex(t, client(lab.IMDS("w"), without(hidden...)))
			if len(got) != 1 || !got[0].IsPrimary() {
				t.Errorf("Interfaces = %+v, want the primary alone", got)
			}
		})
	}
	t.Run("not when it has IPv6 only", func(t *testing.T) {
		got := byIndex(t, client(lab.IMDS("w"), without(mac+"/local-ipv4s")))
		if len(got) != 2 || got[1].Primary.IsValid() || len(got[1].IPv6) != 1 {
			t.Errorf("Interfaces = %+v", got)
		}
	})
}

func TestOtherFailuresAreErrors(t *testing.T) {
	lab := world(t, "m5.2xlarge")
	mac := byIndex(t, client(lab.IMDS("w")))[1].MAC
	for name, broken := range map[string]func(*http.Request) *http.Response{
		"refused": func(r *http.Request) *http.Response {
			if strings.HasSuffix(r.URL.Path, "/local-ipv4s") {
				return answer(r, http.StatusForbidden, "")
			}
			return nil
		},
		"no address": func(r *http.Request) *http.Response {
			if strings.HasSuffix(r.URL.Path, "/local-ipv4s") {
				return answer(r, http.StatusOK, "<html>")
			}
			return nil
		},
		"no number": func(r *http.Request) *http.Response {
			if strings.HasSuffix(r.URL.Path, "/device-number") {
				return answer(r, http.StatusOK, "first")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(lab.IMDS("w"), broken)
			if got, err := c.Interfaces(t.Context()); err == nil || errors.Is(err, eni.ErrNotFound) {
				t.Errorf("Interfaces = %v, %v", got, err)
			}
			if name == "no number" {
				return
			}
			if got, err := c.Addresses(t.Context(), mac); err == nil || errors.Is(err, eni.ErrNotFound) {
				t.Errorf("Addresses = %v, %v", got, err)
			}
		})
	}
}

func TestAddressesFollowWhatIsAssigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := world(t, "m5.2xlarge")
		c := client(lab.IMDS("w"))
		mac := byIndex(t, c)[1].MAC
		read := func(want ...string) {
			t.Helper()
			got, err := c.Addresses(t.Context(), mac)
			if err != nil || !slices.Equal(got, addrList(want...)) {
				t.Errorf("Addresses = %v, %v, want %v", got, err, want)
			}
		}
		read("10.10.1.20", "10.10.1.70", "10.10.1.71")
		if _, err := lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{
			NetworkInterfaceID: lab.ENIs["w"][1], Addresses: addrList("10.10.1.72"),
		}); err != nil {
			t.Fatal(err)
		}
		read("10.10.1.20", "10.10.1.70", "10.10.1.71") // the metadata lags
		<-time.After(3 * time.Second)
		read("10.10.1.20", "10.10.1.70", "10.10.1.71", "10.10.1.72")

		if _, err := c.Addresses(t.Context(), "0a:00:00:00:00:00"); !errors.Is(err, eni.ErrNotFound) {
			t.Errorf("of an ENI that is not there: %v, want ErrNotFound", err)
		}
	})
}

func TestOneTokenServesManyReads(t *testing.T) {
	lab := world(t, "m5.2xlarge")
	var tokens, reads atomic.Int32
	c := client(lab.IMDS("w"), func(r *http.Request) *http.Response {
		if r.Method == http.MethodPut {
			tokens.Add(1)
		} else {
			reads.Add(1)
		}
		return nil
	})
	for range 5 {
		byIndex(t, c)
	}
	if tokens.Load() != 1 || reads.Load() < 50 {
		t.Errorf("%d tokens for %d reads", tokens.Load(), reads.Load())
	}
}

func TestSilentServiceIsGivenUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{SDK: aws.Config{HTTPClient: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}}})
		begin := time.Now()
		if _, err := c.Instance(t.Context()); err == nil || time.Since(begin) > readTimeout {
			t.Errorf("Instance: %v after %v", err, time.Since(begin))
		}
		begin = time.Now()
		if _, err := c.Interfaces(t.Context()); err == nil || time.Since(begin) > readTimeout {
			t.Errorf("Interfaces: %v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Addresses(ctx, "0a:00:00:00:00:00"); !errors.Is(err, context.Canceled) {
			t.Errorf("Addresses with a cancelled context: %v", err)
		}
	})
}
