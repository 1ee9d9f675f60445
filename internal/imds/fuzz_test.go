// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package imds

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// listSeeds are what keys with lists may say, and whether each is a list of addresses or of prefixes.
func listSeeds() map[string]string {
	return map[string]string{
		"10.10.1.20":                                "addresses",
		"10.10.1.20\n10.10.1.70\n10.10.1.71\n":      "addresses",
		"2001:db8:0:101::20\n2001:DB8::1":           "addresses",
		"fe80::1%eth0":                              "addresses",
		"10.10.1.128/28\n10.10.1.144/28":            "prefixes",
		"2001:db8:0:101:1::/80\r\n":                 "prefixes",
		"10.10.1.20\n10.10.1.128/28":                "neither",
		"10.10.1.256":                               "neither",
		"010.10.1.20":                               "neither",
		"10.10.1.128/33":                            "neither",
		"<html><body>404 - Not Found</body></html>": "neither",
	}
}

// FuzzLists: what is accepted prints and reads as the same again, value for value as the text has it; what is not accepted
// gives nothing and an error that says where.
func FuzzLists(f *testing.F) {
	if len(listSeeds()) == 0 {
		f.Fatal("no seeds")
	}
	for text := range listSeeds() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		holdsLists(t, text, netip.ParseAddr)
		holdsLists(t, text, netip.ParsePrefix)
	})
}

func holdsLists[T interface {
	comparable
	fmt.Stringer
	IsValid() bool
}](t *testing.T, text string, parse func(string) (T, error),
) {
	t.Helper()
	const path = "network/interfaces/macs/0a:00:00:00:00:01/key"
	got, err := parseAll(path, strings.Fields(text), parse)
	if err != nil {
		if got != nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q gives %v, %v", text, got, err)
		}
		return
	}
	if len(got) != len(strings.Fields(text)) {
		t.Errorf("%q gives %v", text, got)
	}
	printed := make([]string, len(got))
	for i, v := range got {
		if !v.IsValid() {
			t.Errorf("%q gives the invalid %v", text, v)
		}
		printed[i] = v.String()
	}
	if again, err := parseAll(path, printed, parse); err != nil || !slices.Equal(again, got) {
		t.Errorf("%q gives %v, which reads as %v, %v", text, got, again, err)
	}
}

func TestSeedsOfListsAreOfEveryKind(t *testing.T) {
	seen := map[string]int{}
	for text, want := range listSeeds() {
		kind := "neither"
		if _, err := parseAll("key", strings.Fields(text), netip.ParseAddr); err == nil {
			kind = "addresses"
		} else if _, err = parseAll("key", strings.Fields(text), netip.ParsePrefix); err == nil {
			kind = "prefixes"
		}
		if kind != want {
			t.Errorf("%q reads as %s, want %s", text, kind, want)
		}
		seen[kind]++
	}
	if len(seen) != 3 {
		t.Errorf("the seeds are of %v, want addresses, prefixes and neither", seen)
	}
}

type heldSeed struct {
	keys, ipv4, ipv6, ipv4Prefix, ipv6Prefix string
	want                                     int // addresses and prefixes; 0 for an error
}

// heldSeeds are what the service may say in the listing of an ENI's keys and in the keys.
func heldSeeds() []heldSeed {
	return []heldSeed{
		{keys: "local-ipv4s\n", ipv4: "10.10.1.20\n10.10.1.70", want: 2},
		{keys: "ipv6s\n", ipv6: "2001:db8:0:101::20", want: 1},
		{
			keys: "ipv4-prefix\nipv6-prefix\nipv6s\nlocal-ipv4s", ipv4: "10.10.1.20", ipv6: "2001:db8:0:101::20",
			ipv4Prefix: "10.10.1.128/28", ipv6Prefix: "2001:db8:0:101:1::/80", want: 4,
		},
		{keys: "local-ipv4s\nipv6s\n", ipv6: "2001:db8:0:101::20"},
		{ipv4: "10.10.1.20"},
		{keys: "local-ipv4s", ipv4: "<html>"},
	}
}

// service answers with what the seed says.
func (s heldSeed) service() *Client {
	return client(nil, func(r *http.Request) *http.Response {
		if r.Method == http.MethodPut {
			resp := answer(r, http.StatusOK, "token")
			resp.Header.Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			return resp
		}
		for suffix, body := range map[string]string{
			"/local-ipv4s": s.ipv4, "/ipv6s": s.ipv6, "/ipv4-prefix": s.ipv4Prefix, "/ipv6-prefix": s.ipv6Prefix,
		} {
			if strings.HasSuffix(r.URL.Path, suffix) {
				return answer(r, http.StatusOK, body)
			}
		}
		return answer(r, http.StatusOK, s.keys)
	})
}

func TestSeedsOfHeld(t *testing.T) {
	for _, seed := range heldSeeds() {
		addrs, prefixes, err := seed.service().Held(t.Context(), "0a:00:00:00:00:01")
		if got := len(addrs) + len(prefixes); got != seed.want || (err != nil) != (seed.want == 0) {
			t.Errorf("%+v: %v, %v, %v", seed, addrs, prefixes, err)
		}
	}
}

// FuzzHeld: whatever the service says in any of the keys, Held ends, and gives addresses exactly when it gives no error.
func FuzzHeld(f *testing.F) {
	if len(heldSeeds()) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range heldSeeds() {
		f.Add(s.keys, s.ipv4, s.ipv6, s.ipv4Prefix, s.ipv6Prefix)
	}
	f.Fuzz(func(t *testing.T, keys, ipv4, ipv6, ipv4Prefix, ipv6Prefix string) {
		addrs, prefixes, err := heldSeed{keys, ipv4, ipv6, ipv4Prefix, ipv6Prefix, 0}.service().Held(t.Context(), "0a:00:00:00:00:01")
		if (len(addrs) > 0) != (err == nil) || (err != nil && len(prefixes) > 0) {
			t.Errorf("Held = %v, %v, %v", addrs, prefixes, err)
		}
		for _, a := range addrs {
			if !says(ipv4+"\n"+ipv6, a, netip.ParseAddr) {
				t.Errorf("%v is in neither %q nor %q", a, ipv4, ipv6)
			}
		}
		for _, p := range prefixes {
			if !says(ipv4Prefix+"\n"+ipv6Prefix, p, netip.ParsePrefix) {
				t.Errorf("%v is in neither %q nor %q", p, ipv4Prefix, ipv6Prefix)
			}
		}
	})
}

func says[T comparable](text string, want T, parse func(string) (T, error)) bool {
	return slices.ContainsFunc(strings.Fields(text), func(s string) bool {
		got, err := parse(s)
		return err == nil && got == want
	})
}
