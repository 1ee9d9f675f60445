// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

type resultSeed struct {
	raw, version string
	ips          int // -1 for what is refused
}

// resultSeeds are results of IPAM plugins and of plugins before us in a chain, in the versions that they may have.
func resultSeeds() []resultSeed {
	return []resultSeed{
		{`{"cniVersion":"1.0.0","ips":[{"address":"10.10.1.70/24","gateway":"10.10.1.1"}],"routes":[{"dst":"0.0.0.0/0"}]}`, "1.0.0", 1},
		{`{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.10.1.70/24"},{"version":"6","address":"2001:db8::1/64"}],"dns":{}}`, "0.3.1", 2},
		{`{"cniVersion":"1.1.0","interfaces":[{"name":"net1","mac":"02:00:00:00:00:01","mtu":1500,"sandbox":"/a"}],"ips":[{"interface":0,"address":"10.0.0.1/32"}],` +
			`"routes":[{"dst":"10.0.0.0/8","gw":"10.0.0.9","mtu":1400,"advmss":1360,"priority":1,"table":7,"scope":0}],"dns":{"nameservers":["10.0.0.2"]}}`, "1.1.0", 1},
		{`{"cniVersion":"0.4.0"}`, "0.4.0", 0},
		{`{}`, "0.4.0", -1},
		{`{"cniVersion":"1.0.0"}`, "1.0.0", 0},
		{`{"cniVersion":"1.0.0","ips":[{}]}`, "1.0.0", -1},
		{`{"cniVersion":"1.0.0","ips":[{"address":"10.10.1.70"}]}`, "1.0.0", -1},
		{`{"cniVersion":"1.0.0","ips":[{"address":"::ffff:10.10.1.70/120"}]}`, "1.0.0", -1},
		{`{"cniVersion":"1.0.0","routes":[{"dst":"::ffff:10.0.0.0/104"}]}`, "1.0.0", -1},
		{`{"cniVersion":"1.0.0","ips":[null]}`, "1.0.0", -1},
		{`{"cniVersion":"1.0.0","interfaces":[null]}`, "1.0.0", -1},
		{`{"cniVersion":"1.0.0","routes":[null]}`, "1.0.0", -1},
		{`{"cniVersion":"0.3.1","ips":[null],"routes":[null]}`, "0.3.1", -1},
		{`{"cniVersion":"1.0.0","routes":[{}]}`, "1.0.0", -1},
		{`null`, "1.0.0", -1},
		{`[]`, "1.0.0", -1},
		{`{}`, "9.9.9", -1},
	}
}

func TestSeedsOfResults(t *testing.T) {
	for _, seed := range resultSeeds() {
		got, err := ReadResult([]byte(seed.raw), seed.version)
		if (err != nil) != (seed.ips < 0) || err == nil && len(got.IPs) != seed.ips {
			t.Errorf("%s %s: %+v, %v", seed.version, seed.raw, got, err)
		}
	}
}

// FuzzReadResult: whatever another plugin printed is refused, or has valid addresses and destinations and reads the same
// when we print it.
func FuzzReadResult(f *testing.F) {
	for _, seed := range resultSeeds() {
		f.Add([]byte(seed.raw), seed.version)
	}
	f.Fuzz(func(t *testing.T, raw []byte, version string) {
		got, err := ReadResult(raw, version)
		if err != nil {
			return
		}
		for _, ip := range got.IPs {
			if !ip.Prefix.IsValid() {
				t.Errorf("address %v", ip.Prefix)
			}
		}
		for _, r := range got.Routes {
			if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() {
				t.Errorf("destination %v", r.Dst)
			}
		}
		var out bytes.Buffer
		if err = got.PrintTo(&out, "1.1.0"); err != nil {
			t.Fatal(err)
		}
		again, err := ReadResult(out.Bytes(), "1.1.0")
		if err != nil {
			t.Fatalf("%s is read, and refused when it is printed as %s: %v", raw, &out, err)
		}
		if diff := cmp.Diff(got, again, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("result (-read +printed and read):\n%s", diff)
		}
	})
}
