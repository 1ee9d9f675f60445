// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ipam

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

var (
	addresses = rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "IPv4") {
			return netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b"), 1, 7})
		}
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: rapid.Byte().Draw(t, "b")})
	})
	optional = rapid.Ptr(rapid.IntRange(0, 7), true)
	words    = rapid.SampledFrom([]string{"", "net1", "a b", "é\"\n"})
)

func someResult(t *rapid.T) Result {
	address := func(t *rapid.T) IP {
		a := addresses.Draw(t, "address")
		ip := IP{Address{Prefix: netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))}, optional.Draw(t, "interface")}
		if rapid.Bool().Draw(t, "with a gateway") {
			ip.Gateway = addresses.Draw(t, "gateway")
		}
		return ip
	}
	route := func(t *rapid.T) netconf.Route {
		number := rapid.IntRange(0, 3)
		r := netconf.Route{
			Dst: address(t).Prefix.Masked(), MTU: number.Draw(t, "mtu"), AdvMSS: number.Draw(t, "advmss"),
			Priority: number.Draw(t, "priority"), Table: optional.Draw(t, "table"), Scope: optional.Draw(t, "scope"),
		}
		if rapid.Bool().Draw(t, "with a gateway") {
			r.Gateway = addresses.Draw(t, "gateway")
		}
		return r
	}
	return Result{
		Interfaces: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Interface {
			return Interface{Name: "net1", MTU: rapid.IntRange(0, 2).Draw(t, "mtu"), Sandbox: words.Draw(t, "sandbox"), PCIID: words.Draw(t, "pciID")}
		}), 0, 2).Draw(t, "interfaces"),
		IPs:    rapid.SliceOfN(rapid.Custom(address), 0, 3).Draw(t, "ips"),
		Routes: rapid.SliceOfN(rapid.Custom(route), 0, 3).Draw(t, "routes"),
		DNS: types.DNS{
			Domain: words.Draw(t, "domain"), Nameservers: rapid.SliceOfN(words, 0, 2).Draw(t, "nameservers"),
			Search: rapid.SliceOfN(words, 0, 2).Draw(t, "search"), Options: rapid.SliceOfN(words, 0, 2).Draw(t, "options"),
		},
	}
}

// library prints the result by the types of the CNI project.
func library(t *rapid.T, r Result, version string) []byte {
	from := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, DNS: r.DNS}
	ipNet := func(p netip.Prefix) net.IPNet {
		return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	for _, i := range r.Interfaces {
		from.Interfaces = append(from.Interfaces, &types100.Interface{Name: i.Name, Mac: string(i.MAC), Mtu: i.MTU, Sandbox: i.Sandbox, PciID: i.PCIID})
	}
	for _, ip := range r.IPs {
		from.IPs = append(from.IPs, &types100.IPConfig{Interface: ip.Interface, Address: ipNet(ip.Prefix), Gateway: ip.Gateway.AsSlice()})
	}
	for _, x := range r.Routes {
		from.Routes = append(from.Routes, &types.Route{
			Dst: ipNet(x.Dst), GW: x.Gateway.AsSlice(), MTU: x.MTU, AdvMSS: x.AdvMSS, Priority: x.Priority, Table: x.Table, Scope: x.Scope,
		})
	}
	versioned, err := from.GetAsVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := versioned.PrintTo(&text); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func TestResultsArePrintedAsTheLibraryPrintsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom([]string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}).Draw(t, "version")
		r := someResult(t)
		if version != "1.1.0" { // the library leaves it out of older results
			for i := range r.Interfaces {
				r.Interfaces[i].MTU, r.Interfaces[i].PCIID = 0, ""
			}
		}
		var text bytes.Buffer
		if err := r.PrintTo(&text, version); err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(text.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, text.Bytes())
		}
		if err := json.Unmarshal(library(t, r, version), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", version, diff)
		}
		again, err := ReadResult(text.Bytes(), version)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
			t.Fatalf("%s read again (-want +got):\n%s", version, diff)
		}
	})
}

func TestRoutesAreThoseOfTheInterfacesFamilies(t *testing.T) {
	four := Address{netip.MustParsePrefix("10.10.1.70/24"), netip.MustParseAddr("10.10.1.1")}
	six := Address{netip.MustParsePrefix("2001:db8::70/64"), netip.MustParseAddr("fe80:ec2::1")}
	both := []netconf.Route{{Dst: netip.MustParsePrefix("10.0.0.0/8")}, {Dst: netip.MustParsePrefix("2001:db8::/32")}}
	for _, tt := range []struct {
		name       string
		configured []netconf.Route
		mayBe      bool
		addresses  []Address
		want       string
	}{
		{"configured", both, true, []Address{four, six}, "10.0.0.0/8 2001:db8::/32"},
		{"IPv4 alone", both, true, []Address{four}, "10.0.0.0/8"},
		{"IPv6 alone", both, true, []Address{six}, "2001:db8::/32"},
		{"said that there are none", []netconf.Route{}, true, []Address{four}, ""},
		{"nothing said", nil, true, []Address{six, four}, "::/0 0.0.0.0/0"},
		{"nothing said, and not the first interface", nil, false, []Address{four}, ""},
	} {
		got := ""
		for _, r := range Routes(tt.configured, tt.mayBe, tt.addresses) {
			got += " " + r.Dst.String()
		}
		if got != "" {
			got = got[1:]
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
