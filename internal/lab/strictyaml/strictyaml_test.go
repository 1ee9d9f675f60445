// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package strictyaml

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type document struct {
	Name   string            `json:"name"`
	Wait   time.Duration     `json:"wait"`
	Addr   netip.Addr        `json:"addr"`
	CIDR   *netip.Prefix     `json:"cidr"`
	Count  int               `json:"count"`
	Share  float64           `json:"share"`
	Seed   uint64            `json:"seed"`
	On     bool              `json:"enabled"`
	Tags   map[string]string `json:"tags"`
	Parts  []part            `json:"parts"`
	Limits limits            `json:"limits"`
}

type part struct {
	Name  string       `json:"name"`
	Addrs []netip.Addr `json:"addrs"`
}

type limits struct {
	Default *part           `json:"default"`
	Rest    map[string]part `json:",inline"`
}

const everyKind = `
---
# a comment
name: a
wait: 80ms
addr: 10.0.0.1
cidr: 10.0.0.0/24
count: 3
share: 0.25
seed: 7
enabled: true
tags: {multus: "1"}
parts: [{name: p, addrs: ["fd00::1"]}]
limits: {default: {name: d}, other: {name: o}}
`

func TestDecodeReadsEveryKindOfField(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.0.0/24")
	want := document{
		Name: "a", Wait: 80 * time.Millisecond, Addr: netip.MustParseAddr("10.0.0.1"), CIDR: &cidr, Count: 3,
		Share: 0.25, Seed: 7, On: true, Tags: map[string]string{"multus": "1"},
		Parts:  []part{{Name: "p", Addrs: []netip.Addr{netip.MustParseAddr("fd00::1")}}},
		Limits: limits{Default: &part{Name: "d"}, Rest: map[string]part{"other": {Name: "o"}}},
	}
	var got document
	var p Problems
	Decode([]byte(everyKind), &got, "", &p)
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeReportsEveryProblemWithItsPath(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"unknown keys": {
			"nam: x\nparts: [{}, {adrs: []}]",
			"parts[1].adrs: unknown key (known here: name, addrs)\n" +
				"nam: unknown key (known here: name, wait, addr, cidr, count, share, seed, enabled, tags, parts, limits)",
		},
		"unquoted string":       {"tags: {a: true, b: 1}", "tags.a: must be a string, not true (put it in quotes)\ntags.b: must be a string, not 1 (put it in quotes)"},
		"wrong kinds":           {"count: 1.5\nseed: -1\nshare: x\nenabled: 1\nname: []", "name: must be a string, not a list (put it in quotes)\ncount: must be a whole number, not 1.5\nshare: must be a number, not \"x\"\nseed: must be a whole number of 0 or more, not -1\nenabled: must be true or false, not 1"},
		"wrong shapes":          {"parts: {}\ntags: []\nlimits: 1", "tags: must be a mapping, not a list\nparts: must be a list, not a mapping\nlimits: must be a mapping, not 1"},
		"bad texts":             {"wait: 5\naddr: 10.0.0\ncidr: 7", "wait: \"5\" is not a duration such as 80ms or 1.5s\naddr: \"10.0.0\" is not a valid IP address\ncidr: must be a string, not 7"},
		"empty address":         {`addr: ""`, `addr: "" is not a valid IP address`},
		"empty list item":       {"parts: [null]", "parts[0]: is empty"},
		"inside an inlined map": {"limits: {other: {nme: x}}", "limits.other.nme: unknown key (known here: name, addrs)"},
		"empty":                 {"# nothing\n", "the document is empty"},
		"two documents":         {"name: a\n---\nname: b", "more than one YAML document"},
		"duplicate key":         {"name: a\nname: b", "yaml: unmarshal errors:\n  line 2: key \"name\" already set in map"},
		"not a mapping":         {"- 1", "must be a mapping, not a list"},
	} {
		t.Run(name, func(t *testing.T) {
			var p Problems
			Decode([]byte(tc.in), &document{}, "", &p)
			err := p.Err()
			if err == nil {
				t.Fatal("no problem reported")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAProblemBelowAnotherIsDropped(t *testing.T) {
	var p Problems
	p.Addf("a[0].b", "first")
	p.Addf("a[0].b", "again")
	p.Addf("a[0].b.c", "below")
	p.Addf("a[0].bc", "beside")
	p.Addf("a[0]", "above")
	var err *Error
	if !errors.As(p.Err(), &err) {
		t.Fatalf("got %v", p.Err())
	}
	want := []Problem{{"a[0].b", "first"}, {"a[0].bc", "beside"}, {"a[0]", "above"}}
	if diff := cmp.Diff(want, err.Problems); diff != "" {
		t.Error(diff)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(everyKind))
	f.Add([]byte(`{"name": "a", "parts": [null, {}], "x": 1}`))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p, again Problems
		Decode(data, &document{}, "root", &p)
		Decode(data, &document{}, "root", &again)
		if diff := cmp.Diff(p.list, again.list); diff != "" {
			t.Errorf("two readings differ: %s", diff)
		}
	})
}
