// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package plugintest

import (
	"encoding/json"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// addENI is "eni NAME MAC [down]": it makes an ENI's link in the worker and sets it up; the script's end removes it.
func addENI(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eni NAME MAC [down]")
	}
	mac, err := net.ParseMAC(args[1])
	ts.Check(err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = args[0], mac, 1500
	near := &netlink.Veth{LinkAttrs: attrs, PeerName: args[0] + "-far"}
	ts.Check(netlink.LinkAdd(near))
	ts.Defer(func() { ts.Check(netlink.LinkDel(near)) })
	far, err := netlink.LinkByName(near.PeerName)
	ts.Check(err)
	ts.Check(netlink.LinkSetUp(far))
	if len(args) == 2 {
		ts.Check(netlink.LinkSetUp(near))
	}
}

// inpod set-down|delete|set-mtu N|add-veth NAME … does something to $CNI_IFNAME in $CNI_NETNS; "inpod empty" wants that
// nothing but lo, its routes and the kernel's own rules are there.
func inPod(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: inpod set-down|delete|set-mtu N|add-veth NAME|empty")
	}
	ts.Check(netns.Do(ts.Getenv("CNI_NETNS"), func() error {
		switch args[0] {
		case "empty":
			return wantEmpty(ts)
		case "add-veth":
			attrs := netlink.NewLinkAttrs()
			attrs.Name = args[1]
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: args[1] + "-far"})
		}
		l, err := netlink.LinkByName(ts.Getenv("CNI_IFNAME"))
		if err != nil {
			return err
		}
		switch args[0] {
		case "set-down":
			return netlink.LinkSetDown(l)
		case "set-mtu":
			n, parseErr := strconv.Atoi(args[1])
			ts.Check(parseErr)
			return netlink.LinkSetMTU(l, n)
		case "delete":
			return netlink.LinkDel(l)
		}
		ts.Fatalf("inpod: unknown %s", args[0])
		return nil
	}))
}

func wantEmpty(ts *testscript.TestScript) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().Name != "lo" {
			ts.Fatalf("link %s is left", l.Attrs().Name)
		}
	}
	rules, err := netlink.RuleList(netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Priority > 0 && r.Priority < 32766 {
			ts.Fatalf("rule %s is left", r)
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
	for _, r := range routes {
		if r.LinkIndex != 1 {
			ts.Fatalf("route %s is left", r)
		}
	}
	return err
}

// result FILE compares the JSON on standard output with the file's, after $CNI_NETNS in the file was replaced. A
// value "*" stands for any.
func result(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: result FILE")
	}
	var got, want any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &got))
	ts.Check(json.Unmarshal([]byte(strings.ReplaceAll(text(ts, args), "$CNI_NETNS", ts.Getenv("CNI_NETNS"))), &want))
	wild := cmp.FilterValues(func(a, b any) bool { return a == "*" || b == "*" }, cmp.Ignore())
	if diff := cmp.Diff(want, got, wild); diff != "" {
		ts.Fatalf("result (-want +got):\n%s", diff)
	}
}

// withPrev is "withprev CONF RESULT OUT": it writes the configuration with the result as its prevResult.
func withPrev(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: withprev CONF RESULT OUT")
	}
	var conf map[string]json.RawMessage
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &conf))
	conf["prevResult"] = json.RawMessage(ts.ReadFile(args[1]))
	out, err := json.Marshal(conf)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), out, 0o600))
}
