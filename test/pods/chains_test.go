// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package pods

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// interference is what somebody does to a pod's interface behind its runtime's back.
type interference func(h netlinksafe.Handle, l netlink.Link) error

// TestCHECKAfterAChainNamesTheFirstDifference attaches pods by vpcipvlan, tuning and sbr, which changes the MTU and moves
// routes to another table. What is sent from the address goes its way all the same, and CHECK passes; after an
// interference it says what is wrong.
func TestCHECKAfterAChainNamesTheFirstDifference(t *testing.T) {
	g := up(t)
	peer := g.attach(t, "worker-2", 1)
	g.attach(t, "worker-1", 1) // what follows finds stock
	chain := func(t *testing.T) nic {
		t.Helper()
		keys := object{"routes": []any{object{"dst": vpcCIDR}}}
		return g.add(t, "worker-1", g.newPod(t), "net1",
			g.vpcipvlan("worker-1", object{"deviceIndex": 1}, keys), tuning(), object{"type": "sbr"})
	}
	i := chain(t)
	if err := i.check(t); err != nil {
		t.Errorf("CHECK after ADD: %v", err)
	}
	reach(t, patience, peer.pod, i.addrs[0])
	reachFrom(t, i.endpoints()[0], peer.addr)
	t.Run("after", func(t *testing.T) {
		for _, tt := range []struct {
			name string
			do   interference
			want string // with %s for the address
		}{
			{"a smaller MTU than tuning set", setMTU(tunedMTU - 100), "current value is 1300"},
			{"a larger MTU than the ENI's", setMTU(9100), "MTU of net1 is 9100, want at most 9001, that of master eth1"},
			{"a configured route deleted", deleteRoutes(vpcCIDR), "route 10.77.0.0/16 via 10.77.1.1 is missing in every table, want there"},
			{"the subnet's routes deleted", deleteRoutes("10.77.1.0/24"), "route 10.77.1.0/24 is missing in every table, want there"},
			{"the default routes deleted", deleteRoutes("0.0.0.0/0"), "route 0.0.0.0/0 via 10.77.1.1 is missing in every table, want there"},
			{"the source rules deleted", deleteRules, "from %s lookup"},
			{"the address deleted", deleteAddresses, "address of net1 is none, want %s/24"},
			{"the interface set down", func(h netlinksafe.Handle, l netlink.Link) error { return h.LinkSetDown(l) }, "interface net1 is down, want up"},
			{"the interface removed", func(h netlinksafe.Handle, l netlink.Link) error { return h.LinkDel(l) }, "interface net1 is missing, want there"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				i := chain(t)
				if err := interfere(i, tt.do); err != nil {
					t.Fatal(err)
				}
				want := strings.ReplaceAll(tt.want, "%s", i.addrs[0].String())
				if err := i.check(t); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("CHECK: %v, want %q", err, want)
				}
			})
		}
	})
}

func interfere(i nic, do interference) error {
	h, err := pod.Handle(i.pod.Netns)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(i.name)
	if err != nil {
		return fmt.Errorf("find %s: %w", i.name, err)
	}
	return do(h, l)
}

func setMTU(n int) interference {
	return func(h netlinksafe.Handle, l netlink.Link) error { return h.LinkSetMTU(l, n) }
}

// deleteRoutes takes a destination out of every table.
func deleteRoutes(dst string) interference {
	return func(h netlinksafe.Handle, _ netlink.Link) error {
		routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		for i := range routes {
			if routes[i].Dst.String() == dst {
				err = errors.Join(err, h.RouteDel(&routes[i]))
			}
		}
		return err
	}
}

// deleteRules takes all rules with a source away, whoever made them.
func deleteRules(h netlinksafe.Handle, _ netlink.Link) error {
	rules, err := h.RuleList(netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for i := range rules {
		if rules[i].Src != nil {
			err = errors.Join(err, h.RuleDel(&rules[i]))
		}
	}
	return err
}

func deleteAddresses(h netlinksafe.Handle, l netlink.Link) error {
	addrs, err := h.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for i := range addrs {
		err = errors.Join(err, h.AddrDel(l, &addrs[i]))
	}
	return err
}
