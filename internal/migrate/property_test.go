// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package migrate_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/migrate"
)

// source is a configuration that somebody might have, and the addresses that its plugin would give.
type source struct {
	ipam   map[string]any
	gives  []attachment.Range
	spares []attachment.Range
}

// network is a CIDR of either family, and the range in it that pods are to use.
func network(t *rapid.T) (netip.Prefix, attachment.Range) {
	base, least := netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c"), 0}), 20
	if rapid.Bool().Draw(t, "v6") {
		base, least = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, rapid.Byte().Draw(t, "b"), 15: 0}), 64
	}
	p := netip.PrefixFrom(base, rapid.IntRange(least, base.BitLen()-4).Draw(t, "bits")).Masked()
	from := p.Addr()
	for range rapid.IntRange(0, 7).Draw(t, "from") {
		from = from.Next()
	}
	to := from
	for range rapid.IntRange(0, 8).Draw(t, "to") {
		to = to.Next()
	}
	return p, attachment.Range{From: from, To: to}
}

func whereabouts(t *rapid.T) source {
	s := source{ipam: map[string]any{"type": "whereabouts"}}
	var sets []map[string]any
	for i := range rapid.IntRange(1, 3).Draw(t, "ranges") {
		p, r := network(t)
		one := map[string]any{"range": p.String(), "range_start": r.From.String(), "range_end": r.To.String()}
		if rapid.Bool().Draw(t, "short") {
			one = map[string]any{"range": fmt.Sprintf("%s-%s/%d", r.From, r.To, p.Bits())}
		}
		if rapid.Bool().Draw(t, "exclude") {
			one["exclude"] = []string{netip.PrefixFrom(r.From, r.From.BitLen()).String()}
			s.spares = append(s.spares, attachment.Range{From: r.From, To: r.From})
		}
		s.gives = append(s.gives, r)
		if i == 0 && rapid.Bool().Draw(t, "old") {
			for k, v := range one {
				s.ipam[k] = v
			}
			continue
		}
		sets = append(sets, one)
	}
	if len(sets) > 0 {
		s.ipam["ipRanges"] = sets
	}
	return s
}

func hostLocal(t *rapid.T) source {
	s := source{}
	var sets [][]map[string]any
	for range rapid.IntRange(1, 2).Draw(t, "sets") {
		var set []map[string]any
		for range rapid.IntRange(1, 2).Draw(t, "ranges") {
			p, r := network(t)
			set = append(set, map[string]any{"subnet": p.String(), "rangeStart": r.From.String(), "rangeEnd": r.To.String()})
			s.gives = append(s.gives, r)
		}
		sets = append(sets, set)
	}
	s.ipam = map[string]any{"type": "host-local", "ranges": sets, "dataDir": "/run/x"}
	return s
}

// TestRangesAreCarriedOver: whatever comes out is accepted by the plugin, gives addresses from the same ranges and of the same
// families, and spares the same ones.
func TestRangesAreCarriedOver(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SampledFrom([]func(*rapid.T) source{whereabouts, hostLocal}).Draw(t, "plugin")(t)
		config := map[string]any{"cniVersion": "1.0.0", "type": "ipvlan", "master": rapid.SampledFrom([]string{"eth1", "ens6", "x0", ""}).Draw(t, "master"), "ipam": s.ipam}
		if rapid.Bool().Draw(t, "chain") {
			config = map[string]any{"name": "n", "plugins": []any{config, map[string]any{"type": "tuning"}}}
		}
		in, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		r, err := migrate.Config(in, "net", migrate.Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, in)
		}
		c := accepted(t, r.Config)
		if !slices.Equal(c.IPAM.Ranges, s.gives) || !slices.Equal(c.IPAM.Exclude, s.spares) {
			t.Fatalf("gives %v without %v, want %v without %v", c.IPAM.Ranges, c.IPAM.Exclude, s.gives, s.spares)
		}
		for _, f := range []struct {
			name string
			is   func(netip.Addr) bool
		}{{attachment.IPv4, netip.Addr.Is4}, {attachment.IPv6, netip.Addr.Is6}} {
			want := slices.ContainsFunc(s.gives, func(r attachment.Range) bool { return f.is(r.From) })
			if got := slices.Contains(c.IPAM.Families, f.name); got != want {
				t.Fatalf("families %v for %v", c.IPAM.Families, s.gives)
			}
		}
	})
}

// FuzzDocument: no document makes it panic, and what it prints is a NAD that the plugin takes.
func FuzzDocument(f *testing.F) {
	for _, config := range []string{
		ipvlan(`{"type": "whereabouts", "range": "10.10.1.80-10.10.1.82/24", "exclude": ["10.10.1.81/32"], "routes": [{"dst": "0.0.0.0/0"}]}`),
		ipvlan(`{"type": "host-local", "ranges": [[{"subnet": "10.10.1.0/26"}], [{"subnet": "2001:db8:1::/64"}]]}`),
		ipvlan(`{"type": "static", "addresses": [{"address": "10.10.1.80/24", "gateway": "10.10.1.1"}]}`),
		`{"cniVersion": "0.4.0", "plugins": [` + ipvlan(`{"type": "whereabouts"}`) + `, {"type": "sbr"}]}`,
		onENI1(`{"type": "vpcipam"}`),
	} {
		quoted, err := json.Marshal(config)
		if err != nil {
			f.Fatal(err)
		}
		nad := `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "n", "uid": "1"}, "spec": {"config": ` + string(quoted) + `}}`
		f.Add(nad, false)
		f.Add(`{"kind": "List", "items": [`+nad+`, {"kind": "Pod"}, null, 5]}`, true)
	}
	f.Fuzz(func(t *testing.T, doc string, keep bool) {
		for _, one := range migrate.Document(json.RawMessage(doc), migrate.Options{KeepIPAM: keep}) {
			if one.Object == nil {
				if one.Err == nil && len(one.Notes) == 0 {
					t.Errorf("nothing is said of %s", one.Name)
				}
				continue
			}
			var nad struct {
				Spec struct {
					Config string `json:"config"`
				} `json:"spec"`
			}
			if err := json.Unmarshal(one.Object, &nad); err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(one.Notes, func(n string) bool { return n == "is for multus-vpc already, and left as it is" }) {
				continue // whoever wrote it has to answer for it
			}
			if one.Name == "" { // without a name of the NAD, the configuration has none either
				continue
			}
			accepted(t, []byte(nad.Spec.Config))
		}
	})
}
