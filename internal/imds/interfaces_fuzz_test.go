// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package imds

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// told is what a service says in the keys of every ENI.
type told struct{ macs, device, card, subnet, id, ipv4, ipv6, prefix string }

// service answers as the instance metadata would with those keys; an empty key is absent.
func (s told) service() *Client {
	return client(nil, func(r *http.Request) *http.Response {
		if r.Method == http.MethodPut {
			resp := answer(r, http.StatusOK, "token")
			resp.Header.Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "21600")
			return resp
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/instance-id"):
			return answer(r, http.StatusOK, "i-0a")
		case strings.HasSuffix(r.URL.Path, "/macs/"):
			return answer(r, http.StatusOK, s.macs)
		}
		for suffix, body := range map[string]string{
			"/device-number": s.device, "/network-card": s.card, "/subnet-id": s.subnet, "/interface-id": s.id,
			"/local-ipv4s": s.ipv4, "/ipv6s": s.ipv6, "/ipv4-prefix": s.prefix,
		} {
			if strings.HasSuffix(r.URL.Path, suffix) && body != "" {
				return answer(r, http.StatusOK, body)
			}
		}
		return answer(r, http.StatusNotFound, "404 - Not Found")
	})
}

// interfacesSeeds are services, and how many ENIs they show; -1 for an error.
func interfacesSeeds() map[told]int {
	whole := told{"0a:00:00:00:00:01/\n0a:00:00:00:00:02/", "1", "", "subnet-1", "eni-1", "10.10.1.20\n10.10.1.70", "2001:db8::1", "10.10.1.128/28"}
	with := func(change func(*told)) told {
		s := whole
		change(&s)
		return s
	}
	return map[told]int{
		whole:                               2,
		with(func(s *told) { s.macs = "" }): 0,
		with(func(s *told) { s.ipv4 = "" }): 2,
		with(func(s *told) { s.ipv4, s.ipv6 = "", "" }):                                  0, // being attached or detached
		with(func(s *told) { s.subnet = "" }):                                            0,
		with(func(s *told) { s.device = "" }):                                            0,
		with(func(s *told) { s.card = "1" }):                                             2,
		with(func(s *told) { s.device = "-1" }):                                          -1,
		with(func(s *told) { s.card = "one" }):                                           -1,
		with(func(s *told) { s.ipv4 = "<html>" }):                                        -1,
		with(func(s *told) { s.prefix = "10.10.1.128" }):                                 -1,
		with(func(s *told) { s.ipv4 = whole.prefix }):                                    -1,
		with(func(s *told) { s.device = "99999999999999999999" }):                        -1,
		with(func(s *told) { s.id = strings.Repeat("x", longest+1) }):                    -1,
		with(func(s *told) { s.macs = "0a:00:00:00:00:01/ " + strings.Repeat(" ", 99) }): 1,
	}
}

func TestSeedsOfInterfaces(t *testing.T) {
	for seed, want := range interfacesSeeds() {
		got, err := seed.service().Interfaces(t.Context())
		if (err != nil) != (want < 0) || err == nil && len(got) != want {
			t.Errorf("%.200v: %v, %v, want %d", seed, got, err, want)
		}
	}
}

// FuzzInterfaces: whatever the service says, Interfaces ends, and every ENI that it gives has what an ENI has, out of
// what the service said.
func FuzzInterfaces(f *testing.F) {
	for s := range interfacesSeeds() {
		f.Add(s.macs, s.device, s.card, s.subnet, s.id, s.ipv4, s.ipv6, s.prefix)
	}
	f.Fuzz(func(t *testing.T, macs, device, card, subnet, id, ipv4, ipv6, prefix string) {
		s := told{macs, device, card, subnet, id, ipv4, ipv6, prefix}
		got, err := s.service().Interfaces(t.Context())
		if err != nil {
			if got != nil {
				t.Errorf("%v and %v", got, err)
			}
			return
		}
		if len(got) > len(strings.Fields(macs)) {
			t.Errorf("%q gives %d ENIs", macs, len(got))
		}
		for _, i := range got {
			if i.ID == "" || i.SubnetID == "" || i.InstanceID != "i-0a" || i.DeviceIndex < 0 || i.NetworkCard < 0 || !i.Primary.IsValid() && len(i.IPv6) == 0 {
				t.Errorf("%+v", i)
			}
			if !slices.ContainsFunc(strings.Fields(macs), func(mac string) bool { return eni.ParseMAC(mac) == i.MAC }) {
				t.Errorf("MAC %q is not of %q", i.MAC, macs)
			}
			for _, p := range i.Prefixes {
				if !p.IsValid() {
					t.Errorf("%+v", i)
				}
			}
		}
	})
}
