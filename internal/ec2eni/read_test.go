// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

var equate = gocmp.Options{
	gocmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func wantEqual(t *testing.T, want, got any) {
	t.Helper()
	if diff := gocmp.Diff(want, got, equate); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLimitsAreTheInstanceTypes(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	for kind, want := range map[string]eni.Limits{
		"m5.2xlarge":   {Interfaces: 4, IPv4PerInterface: 15, IPv6PerInterface: 15},
		"p4d.24xlarge": {Interfaces: 60, IPv4PerInterface: 50, IPv6PerInterface: 50}, // 4 cards of 15
	} {
		got, err := w.client.Limits(t.Context(), kind)
		if err != nil || got != want {
			t.Errorf("Limits(%s) = %+v, %v, want %+v", kind, got, err, want)
		}
	}
	if _, err := w.client.Limits(t.Context(), "m5.tiny"); err == nil {
		t.Error("an instance type that does not exist has limits")
	}
}

func TestSubnets(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	ids := []eni.SubnetID{w.subnet("primary"), w.subnet("multus")}
	got, err := w.client.Subnets(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b eni.Subnet) int { return cmp.Compare(b.Tags["Name"], a.Tags["Name"]) })
	network := eni.VPCID(w.VPC)
	wantEqual(t, []eni.Subnet{
		{ID: ids[0], VPC: network, Available: 249, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.12.0/24"), Tags: map[string]string{"Name": "primary", "tier": "nodes"}},
		{
			ID: ids[1], VPC: network, Available: 246, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.1.0/24"),
			IPv6: []netip.Prefix{netip.MustParsePrefix("2001:db8:0:101::/64")}, Tags: map[string]string{"Name": "multus"},
		},
	}, got)
	if _, err := w.client.Subnets(t.Context(), append(ids, "subnet-0123456789abcdef0")); !errors.Is(err, eni.ErrNotFound) {
		t.Errorf("with one that does not exist: %v, want ErrNotFound", err)
	}
	w.outcomes()
	if got, err := w.client.Subnets(t.Context(), nil); len(got) != 0 || err != nil {
		t.Errorf("Subnets of nothing = %v, %v", got, err)
	}
	w.wantOutcomes(t)
}

func TestReservationsAreReadToTheLastPage(t *testing.T) {
	w := newWorld(t, scenario.EC2{}, pagesOf(5))
	got, err := w.client.Reservations(t.Context(), w.subnet("multus"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b eni.Reservation) int { return a.CIDR.Addr().Compare(b.CIDR.Addr()) })
	if len(got) != 13 {
		t.Fatalf("%d reservations, want 13", len(got))
	}
	for n, r := range got {
		if r.ID == "" {
			t.Error("no ID")
		}
		got[n].ID = ""
	}
	wantEqual(t, eni.Reservation{
		SubnetID: w.subnet("multus"), CIDR: netip.MustParsePrefix("10.10.1.80/28"), Type: eni.Explicit,
		Tags: map[string]string{eni.TagRole: eni.RolePool, "n": "1"},
	}, got[1])
	wantEqual(t, eni.Reservation{
		SubnetID: w.subnet("multus"), CIDR: netip.MustParsePrefix("2001:db8:0:101:1::/80"), Type: eni.Prefix, Tags: map[string]string{},
	}, got[12])
	w.wantOutcomes(t, slices.Repeat([]string{"GetSubnetCidrReservations ok"}, 3)...)

	if got, err = w.client.Reservations(t.Context(), w.subnet("primary")); err != nil || len(got) != 0 {
		t.Errorf("Reservations of the other subnet = %v, %v", got, err)
	}
	if _, err = w.client.Reservations(t.Context(), "subnet-0123456789abcdef0"); !errors.Is(err, eni.ErrNotFound) {
		t.Errorf("of a subnet that does not exist: %v, want ErrNotFound", err)
	}
}

func TestAPageThatLeadsToItselfIsAnError(t *testing.T) {
	w := newWorld(t, scenario.EC2{}, answering(200, `<GetSubnetCidrReservationsResponse><nextToken>again</nextToken></GetSubnetCidrReservationsResponse>`))
	if _, err := w.client.Reservations(t.Context(), w.subnet("multus")); err == nil {
		t.Error("no error")
	}
}

func TestInterfacesAreWhole(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	w2 := eni.Interface{
		ID: w.eni("w-2"), InstanceID: eni.InstanceID(w.Instances["w-2"]), NetworkCard: 1, DeviceIndex: 1, SubnetID: w.subnet("multus"),
		Primary: netip.MustParseAddr("10.10.1.30"), Secondary: addrs("10.10.1.80", "10.10.1.81", "10.10.1.82"),
		IPv6: addrs("2001:db8:0:101::30"), Tags: map[string]string{},
	}
	w1 := eni.Interface{
		ID: w.eni("w-1"), InstanceID: eni.InstanceID(w.Instances["w-1"]), DeviceIndex: 1, SubnetID: w.subnet("multus"),
		Primary: netip.MustParseAddr("10.10.1.20"), Tags: map[string]string{eni.TagNoManage: "true"},
	}
	sorted := func(got []eni.Interface, err error) []eni.Interface {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i].MAC == "" || got[i].MAC != eni.ParseMAC(string(got[i].MAC)) {
				t.Errorf("MAC %q", got[i].MAC)
			}
			got[i].MAC = ""
		}
		slices.SortFunc(got, func(a, b eni.Interface) int { return a.Primary.Compare(b.Primary) })
		return got
	}
	t.Run("by ID, absent ones left out", func(t *testing.T) {
		got := sorted(w.client.Interfaces(t.Context(), []eni.ID{w1.ID, "eni-0123456789abcdef0", w2.ID}))
		wantEqual(t, []eni.Interface{w1, w2}, got)
	})
	t.Run("of an instance", func(t *testing.T) {
		got := sorted(w.client.InterfacesOf(t.Context(), w2.InstanceID))
		if len(got) != 2 || !got[1].IsPrimary() {
			t.Fatalf("InterfacesOf = %+v", got)
		}
		wantEqual(t, w2, got[0])
	})
	t.Run("of no instance", func(t *testing.T) {
		if got := sorted(w.client.InterfacesOf(t.Context(), "i-0123456789abcdef0")); len(got) != 0 {
			t.Errorf("InterfacesOf = %+v", got)
		}
	})
	t.Run("none asked for, no call", func(t *testing.T) {
		w.outcomes()
		if got := sorted(w.client.Interfaces(t.Context(), nil)); len(got) != 0 {
			t.Errorf("Interfaces = %+v", got)
		}
		w.wantOutcomes(t)
	})
}

func TestPrefixesOfAnInterface(t *testing.T) {
	w := newWorld(t, scenario.EC2{}, answering(200, `<DescribeNetworkInterfacesResponse><networkInterfaceSet><item>
<networkInterfaceId>eni-1</networkInterfaceId><macAddress>0A:00:00:00:00:01</macAddress>
<ipv4PrefixSet><item><ipv4Prefix>10.10.1.128/28</ipv4Prefix></item></ipv4PrefixSet>
<ipv6PrefixSet><item><ipv6Prefix>2001:db8:0:101:1::/80</ipv6Prefix></item></ipv6PrefixSet>
</item></networkInterfaceSet></DescribeNetworkInterfacesResponse>`))
	got, err := w.client.Interfaces(t.Context(), []eni.ID{"eni-1"})
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, []eni.Interface{{
		ID: "eni-1", MAC: "0a:00:00:00:00:01", Tags: map[string]string{},
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.10.1.128/28"), netip.MustParsePrefix("2001:db8:0:101:1::/80")},
	}}, got)
}

func TestAnAnswerThatIsNoAddressIsAnError(t *testing.T) {
	w := newWorld(t, scenario.EC2{}, answering(200, `<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId>
<privateIpAddressesSet><item><privateIpAddress>10.10.1</privateIpAddress></item></privateIpAddressesSet></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>`))
	if got, err := w.client.Interfaces(t.Context(), []eni.ID{"eni-1"}); err == nil || !strings.Contains(err.Error(), "eni-1") {
		t.Errorf("Interfaces = %v, %v, want an error that names eni-1", got, err)
	}
}

func TestOwners(t *testing.T) {
	w := newWorld(t, scenario.EC2{})
	var all []netip.Addr
	for n := range 256 {
		all = append(all, netip.AddrFrom4([4]byte{10, 10, 1, byte(n)}))
	}
	all = append(all, addrs("2001:db8:0:101::30", "2001:db8:0:101::31")...)
	got, err := w.client.Owners(t.Context(), w.subnet("multus"), all)
	if err != nil {
		t.Fatal(err)
	}
	want := map[netip.Addr]eni.ID{netip.MustParseAddr("10.10.1.20"): w.eni("w-1")}
	for _, a := range addrs("10.10.1.30", "10.10.1.80", "10.10.1.81", "10.10.1.82", "2001:db8:0:101::30") {
		want[a] = w.eni("w-2")
	}
	wantEqual(t, want, got)
	w.wantOutcomes(t, slices.Repeat([]string{"DescribeNetworkInterfaces ok"}, 3)...) // 199 + 57 + 2

	got, err = w.client.Owners(t.Context(), w.subnet("primary"), addrs("10.10.1.20"))
	if err != nil || len(got) != 0 {
		t.Errorf("in the other subnet: %v, %v", got, err)
	}
	w.outcomes()
	if got, err = w.client.Owners(t.Context(), w.subnet("multus"), nil); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
	w.wantOutcomes(t)
}

func TestOwnersReadsAllPages(t *testing.T) {
	w := newWorld(t, scenario.EC2{}, pagesOf(5))
	// 12 more ENIs, so that the owners lie on several pages.
	var all []netip.Addr
	for n := range 12 {
		a := netip.AddrFrom4([4]byte{10, 10, 1, byte(200 + n)})
		all = append(all, a)
		w.createENI(t, a)
	}
	got, err := w.client.Owners(t.Context(), w.subnet("multus"), all)
	if err != nil || len(got) != 12 {
		t.Errorf("%d owners, %v, want 12", len(got), err)
	}
	w.wantOutcomes(t, slices.Repeat([]string{"DescribeNetworkInterfaces ok"}, 3)...)
}

func TestLongListsAreShortInMessages(t *testing.T) {
	for n, want := range []string{"", "0", "0, 1", "0, 1, 2", "0, 1, 2, 3", "0, 1, 2 and 2 more", "0, 1, 2 and 3 more"} {
		var names []string
		for i := range n {
			names = append(names, fmt.Sprint(i))
		}
		if got := some(names); got != want {
			t.Errorf("some(%d) = %q, want %q", n, got, want)
		}
	}
}
