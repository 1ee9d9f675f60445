// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package selection

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseReadsBothForms(t *testing.T) {
	tests := map[string]struct {
		annotation string
		want       []Network
	}{
		"none":            {"", nil},
		"blank":           {" \n", nil},
		"one name":        {"ipvlan-multus", []Network{{"", "ipvlan-multus", "net1"}}},
		"two with spaces": {" multus/ipvlan-1 , ipvlan-2 ", []Network{{"multus", "ipvlan-1", "net1"}, {"", "ipvlan-2", "net2"}}},
		"a named one":     {"multus/ipvlan-1@n3, ipvlan-2", []Network{{"multus", "ipvlan-1", "n3"}, {"", "ipvlan-2", "net2"}}},
		"JSON": {
			`[{"name":"a"},{"name":"b","namespace":"x","interface":"n6","ips":["10.10.1.80/24"]}]`,
			[]Network{{"", "a", "net1"}, {"x", "b", "n6"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(tt.annotation)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseRefusesWhatMultusWould(t *testing.T) {
	for _, bad := range []string{"a,,b", "a@", "a b", "A", "[{}]", `{"name":"a"}`, "[", "a@a-name-that-is-too-long", "x/y/z", "/a"} {
		if got, err := Parse(bad); err == nil || !strings.Contains(err.Error(), "networks annotation") {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a", "x/a@n1,b", `[{"name":"a","interface":"n1"}]`, "[{}]", "a@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		networks, err := Parse(s)
		if err != nil && len(networks) > 0 {
			t.Errorf("%q: %q and %v", s, networks, err)
		}
		for _, n := range networks {
			if n.Name == "" || n.Interface == "" {
				t.Errorf("%q selects %+v", s, n)
			}
		}
	})
}
