// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// ready makes an ENI's link of that name in the worker and sets it up.
func ready(t *testing.T, name, mac string) attachment.Link {
	t.Helper()
	index := addVeth(t, name, mac)
	if err := Up(index, 0); err != nil {
		t.Error(err)
	}
	l, err := ByName(name)
	if err != nil {
		t.Error(err)
	}
	return l
}

// snapshot is everything of a namespace that an attachment could leave behind. The virtual machine has no iproute2.
func snapshot(t *testing.T, path string) string {
	t.Helper()
	p, err := enter(path)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer p.leave()
	links, err := p.h.LinkList()
	if err != nil {
		t.Error(err)
	}
	var lines []string
	for _, l := range links {
		lines = append(lines, fmt.Sprintf("link %d %s %s", l.Attrs().Index, l.Attrs().Name, l.Type()))
	}
	rules, err := p.h.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		t.Error(err)
	}
	for _, r := range rules {
		lines = append(lines, r.String())
	}
	routes, err := p.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Error(err)
	}
	for _, r := range routes {
		lines = append(lines, fmt.Sprintf("route table %d %s", r.Table, r))
	}
	return strings.Join(cmpSorted(lines), "\n")
}

// change does something to a link of the namespace.
func change(t *testing.T, path, name string, what func(netlinksafe.Handle, netlink.Link) error) {
	t.Helper()
	p, err := enter(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer p.leave()
	l, err := p.h.LinkByName(name)
	if err == nil {
		err = what(p.h, l)
	}
	if err != nil {
		t.Errorf("change %s: %v", name, err)
	}
}

func mtu(n int) func(netlinksafe.Handle, netlink.Link) error {
	return func(h netlinksafe.Handle, l netlink.Link) error { return h.LinkSetMTU(l, n) }
}

func mode(m netlink.IPVlanMode) func(netlinksafe.Handle, netlink.Link) error {
	return func(h netlinksafe.Handle, l netlink.Link) error {
		attrs := netlink.NewLinkAttrs() // nothing else may be asked of an ipvlan child
		attrs.Name, attrs.ParentIndex = l.Attrs().Name, l.Attrs().ParentIndex
		return h.LinkModify(&netlink.IPVlan{LinkAttrs: attrs, Mode: m})
	}
}

func down(h netlinksafe.Handle, l netlink.Link) error   { return h.LinkSetDown(l) }
func remove(h netlinksafe.Handle, l netlink.Link) error { return h.LinkDel(l) }

// kindOf is an interface's kind and mode.
func kindOf(t *testing.T, path, name string) (kind string) {
	t.Helper()
	change(t, path, name, func(_ netlinksafe.Handle, l netlink.Link) error {
		kind = l.Type()
		if child, ok := l.(*netlink.IPVlan); ok {
			kind += " " + modeOf(child)
		}
		return nil
	})
	return kind
}

func childOf(master attachment.Link, path, ifName, address string) Child {
	return Child{
		Key: keyOf("c1", ifName), Netns: path, Master: master, SourceRouting: true,
		Addresses: []Address{addr(address, "10.10.1.1")}, Routes: []netconf.Route{to("10.20.0.0/16")},
	}
}

func TestAddCheckDel(t *testing.T) {
	// "eth1" is also the worker's name: the interface must not clash with it.
	for _, ifName := range []string{"net1", "eth1", "eth0"} {
		t.Run(ifName, func(t *testing.T) {
			asWorker(t, func(t *testing.T) {
				master, path := ready(t, "eth1", "0a:00:00:00:00:01"), newNetns(t)
				before := snapshot(t, path)
				c := childOf(master, path, ifName, "10.10.1.70/24")
				made, err := Add(t.Context(), c)
				if err != nil {
					t.Error(err)
					return
				}
				if made.MAC != master.MAC || made.MTU != master.MTU || made.Index == 0 || len(made.Routes) != 4 || made.Routes[0].Table != nil {
					t.Errorf("made %+v", made)
				}
				if _, err := Add(t.Context(), c); !errors.Is(err, ErrExists) {
					t.Errorf("second Add: %v", err)
				}
				if got := kindOf(t, path, ifName); got != "ipvlan l2" {
					t.Errorf("interface is %s", got)
				}
				c.Routes = made.Routes
				if err := Check(c); err != nil {
					t.Errorf("Check: %v", err)
				}
				for range 2 {
					if err := Del(path, c.Key); err != nil {
						t.Error(err)
					}
				}
				if diff := cmp.Diff(before, snapshot(t, path)); diff != "" {
					t.Errorf("left behind (-before +after):\n%s", diff)
				}
			})
		})
	}
}

func TestCheckNamesTheFirstDifference(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		master, other, path := ready(t, "eth1", "0a:00:00:00:00:01"), ready(t, "eth2", "0a:00:00:00:00:02"), newNetns(t)
		c := childOf(master, path, "net1", "10.10.1.70/24")
		c.MTU = 1400
		if _, err := Add(t.Context(), c); err != nil {
			t.Error(err)
			return
		}
		want := func(says string) {
			t.Helper()
			err := Check(c)
			if _, ok := errors.AsType[*Difference](err); (says == "") != (err == nil) || (err != nil && (!ok || !strings.Contains(err.Error(), says))) {
				t.Errorf("got %v, want %q", err, says)
			}
		}
		want("")
		change(t, path, "net1", mtu(1300)) // tuning may
		want("")
		change(t, path, "net1", mtu(9000))
		want("MTU of net1 is 9000, want at most 1500, that of master eth1")
		change(t, path, "net1", mtu(1400))
		change(t, path, "net1", mode(netlink.IPVLAN_MODE_L3))
		want("mode of net1 is l3, want l2")
		change(t, path, "net1", mode(netlink.IPVLAN_MODE_L2))
		c.Master = other
		want("master of net1")
		c.Master = attachment.Link{}
		want("")
		if err := netlink.LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: master.Index}}); err != nil {
			t.Error(err)
		}
		want("master eth1 is down, want up")
		if err := Up(master.Index, 0); err != nil {
			t.Error(err)
		}
		change(t, path, "net1", down)
		want("interface net1 is down, want up")
		change(t, path, "net1", remove)
		want("interface net1 is missing")
		vethIn(t, enterTest(t, path), "net1")
		want("kind of net1 is veth, want ipvlan")
		c.Netns += "-none"
		want("is missing, want there")
	})
}

// A pod that deleted its interface, or a kill between two steps of Add, leaves rules or a link of the interim name.
func TestDelCleansUpAfterInterruption(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		master, path := ready(t, "eth1", "0a:00:00:00:00:01"), newNetns(t)
		before := snapshot(t, path)
		c := childOf(master, path, "net1", "10.10.1.70/24")
		if _, err := Add(t.Context(), c); err != nil {
			t.Error(err)
		}
		change(t, path, "net1", remove)
		if err := Del(path, c.Key); err != nil {
			t.Error(err)
		}
		p := enterTest(t, path)
		l, err := netlink.LinkByIndex(master.Index)
		if err != nil {
			t.Error(err)
		}
		for range 2 { // the second time Add itself removes what is left
			if _, err := p.create(t.Context(), c, l); err != nil {
				t.Error(err)
			}
			if _, err := Add(t.Context(), c); err != nil {
				t.Error(err)
			}
			if err := Del(path, c.Key); err != nil {
				t.Error(err)
			}
		}
		if _, err := p.create(t.Context(), c, l); err != nil {
			t.Error(err)
		}
		if err := Del(path, c.Key); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(before, snapshot(t, path)); diff != "" {
			t.Errorf("left behind (-before +after):\n%s", diff)
		}
	})
}

func TestFailedAddLeavesNothing(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		master, first, second := ready(t, "eth1", "0a:00:00:00:00:01"), newNetns(t), newNetns(t)
		if _, err := Add(t.Context(), childOf(master, first, "net1", "10.10.1.70/24")); err != nil {
			t.Error(err)
		}
		before := snapshot(t, second)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := Add(ctx, childOf(master, second, "net1", "10.10.1.70/24"))
		if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "another child of the same ENI link has it") {
			t.Errorf("address of a sibling: %v", err)
		}
		c := childOf(master, second, "net1", "10.10.1.71/24")
		c.Routes = []netconf.Route{{Dst: netip.MustParsePrefix("10.20.0.0/16"), Gateway: netip.MustParseAddr("10.10.1.71")}} // itself
		if _, err := Add(t.Context(), c); err == nil || !strings.Contains(err.Error(), "add route 10.20.0.0/16 via 10.10.1.71") {
			t.Errorf("impossible route: %v", err)
		}
		if diff := cmp.Diff(before, snapshot(t, second)); diff != "" {
			t.Errorf("left behind (-before +after):\n%s", diff)
		}
	})
}

func TestAddressComesFreeWhileAddWaits(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		master, first, second := ready(t, "eth1", "0a:00:00:00:00:01"), newNetns(t), newNetns(t)
		old := childOf(master, first, "net1", "10.10.1.70/24")
		if _, err := Add(t.Context(), old); err != nil {
			t.Error(err)
		}
		removed := make(chan error, 1)
		time.AfterFunc(100*time.Millisecond, func() { removed <- Del(first, old.Key) })
		if _, err := Add(t.Context(), childOf(master, second, "net1", "10.10.1.70/24")); err != nil {
			t.Error(err)
		}
		if err := <-removed; err != nil {
			t.Error(err)
		}
	})
}

func TestSiblingInAnotherModeIsRefusedAndKept(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		master, path := ready(t, "eth1", "0a:00:00:00:00:01"), newNetns(t)
		if _, err := Add(t.Context(), childOf(master, path, "net1", "10.10.1.70/24")); err != nil {
			t.Error(err)
		}
		change(t, path, "net1", mode(netlink.IPVLAN_MODE_L3))
		_, err := Add(t.Context(), childOf(master, path, "net2", "10.10.1.71/24"))
		if e, ok := errors.AsType[*ModeError](err); !ok || e.Mode != "l3" || e.Sibling != "net1" || e.Master != "eth1" {
			t.Errorf("got %v", err)
		}
		if got := kindOf(t, path, "net1"); got != "ipvlan l3" {
			t.Errorf("net1 was switched to %s", got)
		}
	})
}

func TestByNameRefusesAChild(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		master := ready(t, "eth1", "0a:00:00:00:00:01")
		la := netlink.NewLinkAttrs()
		la.Name, la.ParentIndex = "iv0", master.Index
		if err := netlink.LinkAdd(&netlink.IPVlan{LinkAttrs: la, Mode: netlink.IPVLAN_MODE_L2}); err != nil {
			t.Error(err)
		}
		if _, err := ByName("iv0"); err == nil || !strings.Contains(err.Error(), "kind ipvlan") {
			t.Errorf("got %v", err)
		}
	})
}
