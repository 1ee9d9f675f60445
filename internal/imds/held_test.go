// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package imds

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// delegate gives the worker's second ENI one prefix of each family, and says which.
func delegate(t *testing.T, lab *scenario.Lab) []netip.Prefix {
	t.Helper()
	id := lab.ENIs["w"][1]
	v4, err := lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: id, PrefixCount: 1})
	if err != nil {
		t.Fatal(err)
	}
	v6, err := lab.Cloud.AssignIPv6Addresses(time.Now(), vpc.AssignIPv6AddressesInput{NetworkInterfaceID: id, PrefixCount: 1})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(v4.Prefixes, v6.Prefixes)
}

// requests counts the reads that pass through it.
func requests(n *int) func(*http.Request) *http.Response {
	return func(r *http.Request) *http.Response {
		if r.Method == http.MethodGet {
			*n++
		}
		return nil
	}
}

func TestHeldIsEverythingThatTheENIHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := world(t, "p4d.24xlarge")
		all := byIndex(t, client(lab.IMDS("w")))
		macOf := func(address string) eni.MAC {
			i := slices.IndexFunc(all, func(i eni.Interface) bool { return i.Primary == netip.MustParseAddr(address) })
			return all[i].MAC
		}
		held := func(mac eni.MAC, requestsWant int, prefixes []netip.Prefix, addrs ...string) {
			t.Helper()
			var n int
			gotAddrs, gotPrefixes, err := client(lab.IMDS("w"), requests(&n)).Held(t.Context(), mac)
			if err != nil || !slices.Equal(gotAddrs, addrList(addrs...)) || !slices.Equal(gotPrefixes, prefixes) {
				t.Errorf("Held = %v, %v, %v, want %v and %v", gotAddrs, gotPrefixes, err, addrs, prefixes)
			}
			if n != requestsWant {
				t.Errorf("%d requests, want %d", n, requestsWant)
			}
		}
		held(macOf("10.10.1.30"), 2, nil, "10.10.1.30")
		multus := []string{"10.10.1.20", "10.10.1.70", "10.10.1.71", "2001:db8:0:101::20"}
		held(macOf("10.10.1.20"), 3, nil, multus...)
		prefixes := delegate(t, lab)
		held(macOf("10.10.1.20"), 3, nil, multus...) // the metadata lags
		<-time.After(3 * time.Second)
		held(macOf("10.10.1.20"), 5, prefixes, multus...)
	})
}

// delegatedWorld is a worker whose second ENI, of this MAC, holds what the metadata can show: these prefixes, three IPv4
// addresses and an IPv6 address. It needs a synctest bubble.
func delegatedWorld(t *testing.T) (*scenario.Lab, string, []netip.Prefix) {
	t.Helper()
	lab := world(t, "m5.2xlarge")
	prefixes := delegate(t, lab)
	<-time.After(3 * time.Second)
	return lab, string(byIndex(t, client(lab.IMDS("w")))[1].MAC), prefixes
}

// at answers requests whose path ends so, a directory's with and without its slash.
func at(end string, status int, body string) func(*http.Request) *http.Response {
	return func(r *http.Request) *http.Response {
		if strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), end) {
			return answer(r, status, body)
		}
		return nil
	}
}

func TestHeldOfAnENIThatIsNotWhollyThere(t *testing.T) {
	type through func(mac string) func(*http.Request) *http.Response
	listing := func(keys string) through {
		return func(mac string) func(*http.Request) *http.Response { return at(mac, http.StatusOK, keys) }
	}
	gone := func(keys ...string) through {
		return func(string) func(*http.Request) *http.Response { return without(keys...) }
	}
	for name, tc := range map[string]struct {
		through  through
		addrs    string // those of the ENI; "" for ErrNotFound
		prefixes int    // how many of the ENI's two
	}{
		"IPv6 only":                     {listing("interface-id\nipv6s\n"), "6", 0},
		"directories end in slashes":    {listing("ipv4-associations/\nlocal-ipv4s\n"), "4", 0},
		"not a key listed":              {listing(""), "", 0},
		"no kind of address listed":     {listing("device-number\ninterface-id\nipv4-prefix\n"), "", 0},
		"IPv6 went meanwhile":           {gone("/ipv6s"), "4", 2},
		"prefixes went meanwhile":       {gone("/ipv4-prefix", "/ipv6-prefix"), "4+6", 0},
		"IPv6 prefixes went meanwhile":  {gone("/ipv6-prefix"), "4+6", 1},
		"the ENI went meanwhile":        {gone("/local-ipv4s"), "", 0},
		"the ENI went, with all it had": {gone("/local-ipv4s", "/ipv6s", "/ipv4-prefix", "/ipv6-prefix"), "", 0},
		"the ENI is gone": {func(mac string) func(*http.Request) *http.Response {
			return at(mac, http.StatusNotFound, "")
		}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lab, mac, prefixes := delegatedWorld(t)
				want := map[string][]netip.Addr{
					"4": addrList("10.10.1.20", "10.10.1.70", "10.10.1.71"), "6": addrList("2001:db8:0:101::20"),
				}
				want["4+6"] = slices.Concat(want["4"], want["6"])
				gotAddrs, gotPrefixes, err := client(lab.IMDS("w"), tc.through(mac)).Held(t.Context(), eni.MAC(mac))
				if !slices.Equal(gotAddrs, want[tc.addrs]) || !slices.Equal(gotPrefixes, prefixes[:tc.prefixes]) || (err == nil) != (tc.addrs != "") {
					t.Errorf("Held = %v, %v, %v, want %v and %v", gotAddrs, gotPrefixes, err, want[tc.addrs], prefixes[:tc.prefixes])
				}
				if err != nil && (!errors.Is(err, eni.ErrNotFound) || !strings.Contains(err.Error(), mac)) {
					t.Errorf("Held: %v, want ErrNotFound that names the MAC", err)
				}
			})
		})
	}
}

func TestHeldOfAStranger(t *testing.T) {
	lab := world(t, "m5.2xlarge")
	for _, mac := range []eni.MAC{"0a:00:00:00:00:00", ""} {
		if addrs, _, err := client(lab.IMDS("w")).Held(t.Context(), mac); !errors.Is(err, eni.ErrNotFound) {
			t.Errorf("Held(%q) = %v, %v, want ErrNotFound", mac, addrs, err)
		}
	}
}

func TestHeldIsAllOrAnError(t *testing.T) {
	for name, tc := range map[string]struct {
		key    string
		status int
	}{
		"listing refused":          {"", http.StatusForbidden},
		"IPv4 refused":             {"/local-ipv4s", http.StatusForbidden},
		"IPv6 refused":             {"/ipv6s", http.StatusForbidden},
		"IPv4 prefixes refused":    {"/ipv4-prefix", http.StatusForbidden},
		"IPv6 prefixes refused":    {"/ipv6-prefix", http.StatusForbidden},
		"IPv4 is no address":       {"/local-ipv4s", http.StatusOK},
		"IPv6 is no address":       {"/ipv6s", http.StatusOK},
		"IPv4 prefix is no prefix": {"/ipv4-prefix", http.StatusOK},
		"IPv6 prefix is no prefix": {"/ipv6-prefix", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lab, mac, _ := delegatedWorld(t)
				addrs, prefixes, err := client(lab.IMDS("w"), at(mac+tc.key, tc.status, "<html>")).Held(t.Context(), eni.MAC(mac))
				if err == nil || errors.Is(err, eni.ErrNotFound) || addrs != nil || prefixes != nil || !strings.Contains(err.Error(), mac+tc.key) {
					t.Errorf("Held = %v, %v, %v, want an error that names %s and nothing else", addrs, prefixes, err, mac+tc.key)
				}
			})
		})
	}
}
