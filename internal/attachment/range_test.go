// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package attachment

import (
	"net/netip"
	"testing"
)

func TestParseRange(t *testing.T) {
	tests := map[string]struct {
		in, want string
		inside   string
		outside  string
	}{
		"cidr":    {"10.10.1.64/28", "10.10.1.64-10.10.1.79", "10.10.1.79", "10.10.1.80"},
		"range":   {"10.10.1.70 - 10.10.1.72", "10.10.1.70-10.10.1.72", "10.10.1.70", "10.10.1.69"},
		"address": {"10.10.1.70", "10.10.1.70", "10.10.1.70", "10.10.1.71"},
		"ipv6":    {"fd00::/126", "fd00::-fd00::3", "fd00::2", "10.10.1.64"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := ParseRange(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if r.String() != tt.want || !r.Contains(netip.MustParseAddr(tt.inside)) || r.Contains(netip.MustParseAddr(tt.outside)) {
				t.Errorf("%q = %s", tt.in, r)
			}
		})
	}
	for _, bad := range []string{
		"", "10.10.1.65/28", "10.10.1.9-10.10.1.1", "10.10.1.1-fd00::1", "ten",
		"::ffff:10.10.1.64/124", "::ffff:10.10.1.70-::ffff:10.10.1.72", "::ffff:10.10.1.70", "fe80::1%eth0", "fe80::1%eth0-fe80::2%eth0", // contain no address that a pod has
	} {
		if r, err := ParseRange(bad); err == nil {
			t.Errorf("%q was read as %s", bad, r)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	seeds := []string{"10.10.1.64/28", "10.10.1.70-10.10.1.72", "fd00::1", "fd00::/64", "-", "10.0.0.0/33"}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			return
		}
		again, err := ParseRange(r.String())
		if err != nil || again != r || !r.Contains(r.From) || !r.Contains(r.To) {
			t.Errorf("%q = %s, read again as %s, %v", s, r, again, err)
		}
	})
}

func TestNthCountsThroughTheRanges(t *testing.T) {
	tests := []struct {
		name   string
		ranges []string
		n      uint64
		want   string // "" for none
	}{
		{"first", []string{"10.10.1.64/28"}, 0, "10.10.1.64"},
		{"last", []string{"10.10.1.64/28"}, 15, "10.10.1.79"},
		{"beyond", []string{"10.10.1.64/28"}, 16, ""},
		{"in the second", []string{"10.10.1.64/31", "10.10.2.9"}, 2, "10.10.2.9"},
		{"beyond both", []string{"10.10.1.64/31", "10.10.2.9"}, 3, ""},
		{"over a byte", []string{"10.10.1.250-10.10.2.9"}, 8, "10.10.2.2"},
		{"an int32 in IPv6", []string{"2001:db8::ffff:ffff:ffff:0/112"}, 1 << 15, "2001:db8::ffff:ffff:ffff:8000"},
		{"over 64 bits", []string{"2001:db8::ffff:ffff:ffff:ffff-2001:db8:0:1::5"}, 2, "2001:db8:0:1::1"},
		{"in more than can be counted", []string{"2001:db8::/32", "10.10.1.1"}, 1 << 31, "2001:db8::8000:0"},
		{"nowhere", nil, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ranges []Range
			for _, s := range tt.ranges {
				r, err := ParseRange(s)
				if err != nil {
					t.Fatal(err)
				}
				ranges = append(ranges, r)
			}
			a, ok := Nth(ranges, tt.n)
			if ok != (tt.want != "") || ok && a != netip.MustParseAddr(tt.want) {
				t.Errorf("got %s, %t; want %q", a, ok, tt.want)
			}
		})
	}
}
