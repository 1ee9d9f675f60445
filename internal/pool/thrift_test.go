// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// The Amazon VPC CNI takes and gives back addresses on its own ENIs all day long, which is none of our business.
func TestOthersENIsCostNoReads(t *testing.T) {
	inLab(t, dual, func(t *testing.T, w *world, n *node) {
		n.mustAdd(n.pod("a"), any1())
		time.Sleep(5 * time.Minute)
		before := w.calls("DescribeNetworkInterfaces", "")
		for i := range 30 {
			a := netip.MustParseAddr(fmt.Sprintf("10.10.12.%d", 100+i))
			if _, err := w.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: w.lab.ENIs["worker-1"][0], Addresses: []netip.Addr{a}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if err := w.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: w.lab.ENIs["worker-1"][0], Addresses: []netip.Addr{a}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if got := w.calls("DescribeNetworkInterfaces", "") - before; got > 3 {
			t.Errorf("%d reads in an hour", got)
		}
	})
}

// When space comes back to a full reservation, the next pod gets it within seconds.
func TestFullReservationRecoversWithinSeconds(t *testing.T) {
	inLab(t, strings.Replace(dual, "10.10.1.64/26}", "10.10.1.64/28}", 1), func(t *testing.T, w *world, n *node) {
		q := attachment.Query{Ranges: ranges("10.10.1.64-10.10.1.79")}
		var all []netip.Addr
		for i := range 16 {
			all = append(all, netip.AddrFrom4([4]byte{10, 10, 1, byte(64 + i)}))
		}
		w.assign("worker-2", all[:9]...)
		e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{
			SubnetID: string(n.Status().ENIs[1].Subnet.ID), AddressRequest: vpc.AddressRequest{Primary: netip.MustParseAddr("10.10.1.20"), Secondary: all[9:]},
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		_, err = n.addAll(n.pod("a"), q)
		if r := refusal(t, err); !strings.Contains(r.Text, "reservation full") || !strings.Contains(r.Text, "widen ranges") {
			t.Fatalf("refused with %q", r.Text)
		}
		time.Sleep(5 * time.Second)
		if err := w.lab.Cloud.DeleteNetworkInterface(time.Now(), e.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second) // reads are a second behind, and the word of the last look is good for ten
		if _, err := n.addAll(n.pod("b"), q); err != nil {
			t.Errorf("space came back: %v", err)
		}
	})
}

// A large reservation that is full costs a look at a part of it, not a read of all.
func TestFullLargeReservationIsNotReadWhole(t *testing.T) {
	yaml := `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: primary, cidr: 10.10.0.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.128.0/17, az: us-west-2a, reservations: [{cidr: 10.10.192.0/18}]}
instances:
- name: worker-1
  enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
ec2: {latency: 80ms, propagation: {route: 1s, imds: 2s, describe: 1s}}
`
	inLab(t, yaml, func(t *testing.T, w *world, n *node) {
		subnet := string(n.Status().ENIs[1].Subnet.ID)
		next, end := netip.MustParseAddr("10.10.192.0"), netip.MustParseAddr("10.11.0.0")
		for next.Less(end) {
			in := vpc.CreateNetworkInterfaceInput{SubnetID: subnet, AddressRequest: vpc.AddressRequest{Primary: next}}
			for next = next.Next(); next.Less(end) && len(in.Secondary) < 49; next = next.Next() {
				if next != netip.MustParseAddr("10.10.255.255") {
					in.Secondary = append(in.Secondary, next)
				}
			}
			if _, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), in); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		before := w.calls("DescribeNetworkInterfaces", "")
		began := time.Now()
		_, err := n.addAll(n.pod("a"), any1())
		if r := refusal(t, err); !strings.Contains(r.Text, "reservation full: none of the 1536 addresses looked at in") {
			t.Errorf("refused with %q", r.Text)
		}
		if got := w.calls("DescribeNetworkInterfaces", "") - before; got > 10 || time.Since(began) > 2*time.Second {
			t.Errorf("%d reads, %s", got, time.Since(began))
		}
	})
}

// The reply to a request by count is lost and the next request succeeds: what the first one brought is found, and nobody's
// for no longer than reads are behind.
func TestLostReplyByCountIsFoundInTime(t *testing.T) {
	for name, q := range map[string]attachment.Query{
		"subnet": {Source: attachment.SourceSubnet}, "ipv6 subnet": {Source: attachment.SourceSubnet, Families: []string{attachment.IPv6}},
		"prefix": {Source: attachment.SourcePrefix},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, dual, func(t *testing.T, w *world, n *node) {
				if err := w.lab.Front.SetFaults([]front.Fault{
					{Action: "AssignPrivateIpAddresses", Nth: 1, Kind: front.LostReply},
					{Action: "AssignIpv6Addresses", Nth: 1, Kind: front.LostReply},
				}); err != nil {
					t.Fatal(err)
				}
				if _, err := n.addAll(n.pod("a"), q); err != nil {
					t.Fatal(err)
				}
				time.Sleep(30 * time.Second)
				w.agreeAll(n)
				time.Sleep(30 * time.Minute)
				w.agreeAll(n)
				for _, e := range n.Status().ENIs {
					for _, p := range e.Prefixes {
						if p.State.String() != "free" {
							t.Errorf("%s is %s", p.Prefix, p.State)
						}
					}
				}
				if got := n.count("foreign"); got > 0 {
					t.Errorf("%d addresses are nobody's", got)
				}
			})
		})
	}
}

// A reservation of addresses that the VPC keeps for itself has none to give, and is not searched for ever.
func TestReservationOfTheRoutersAddresses(t *testing.T) {
	inLab(t, strings.Replace(dual, `"2001:db8:10:1:1::/80"`, `"2001:db8:10:1::/126"`, 1), func(t *testing.T, _ *world, n *node) {
		_, err := n.addAll(n.pod("a"), attachment.Query{Families: []string{attachment.IPv6}})
		if r := refusal(t, err); r.Reason != pool.Exhausted || !strings.Contains(r.Text, "reservation full") {
			t.Errorf("refused with %q", r.Text)
		}
	})
}

// A long IPv6 range is drawn from as a whole: workers that share it do not meet in its first part.
func TestLongIPv6Range(t *testing.T) {
	inLab(t, dual, func(t *testing.T, _ *world, n *node) {
		r := ranges("2001:db8:10:1:1::-2001:db8:10:1:1:ffff:ffff:ffff")
		a, err := n.addAll(n.pod("a"), attachment.Query{Families: []string{attachment.IPv6}, Ranges: r})
		if err != nil || !r[0].Contains(a[0]) {
			t.Fatalf("got %v, %v", a, err)
		}
		far := 0
		for a := range n.states() {
			if netip.MustParseAddr("2001:db8:10:1:1:0:1:ffff").Less(a) {
				far++
			}
		}
		if far == 0 {
			t.Error("all are of the first 131,072 addresses")
		}
	})
}

// The tag on an IPv6 reservation invites like that on an IPv4 one.
func TestRolePoolInvitesEachFamily(t *testing.T) {
	tagged := `{cidr: "2001:db8:10:1:1::/80", tags: {multus-vpc.io/role: pool}}`
	inLab(t, strings.Replace(dual, `{cidr: "2001:db8:10:1:1::/80"}`, tagged, 1), func(t *testing.T, _ *world, n *node) {
		eventually(t, time.Minute, "IPv6 stock and no other", func() bool {
			for a := range n.states() {
				if a.Is4() {
					t.Fatalf("%s was taken uninvited", a)
				}
			}
			return n.count("free") == 4
		})
	})
}

// Ranges of one family say nothing of the other.
func TestRangesOfOneFamily(t *testing.T) {
	inLab(t, dual, func(t *testing.T, _ *world, n *node) {
		both := []string{attachment.IPv4, attachment.IPv6}
		for id, r := range map[string]string{"a": "10.10.1.70-10.10.1.79", "b": "2001:db8:10:1:1::100-2001:db8:10:1:1::10f"} {
			addrs, err := n.addAll(n.pod(id), attachment.Query{Families: both, Ranges: ranges(r)})
			if err != nil {
				t.Errorf("ranges %s: %v", r, err)
			} else if in := ranges(r)[0]; !in.Contains(addrs[0]) && !in.Contains(addrs[1]) {
				t.Errorf("ranges %s: %v", r, addrs)
			}
		}
	})
}
