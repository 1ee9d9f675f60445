// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

func keyOf(container, ifName string) attachment.Key {
	return attachment.Key{ContainerID: container, IfName: ifName}
}

func cmpSorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// newNetns makes a namespace that is removed with the test, and returns its path.
func newNetns(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and let the thread end
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

func enterTest(t *testing.T, path string) *pod {
	t.Helper()
	p, err := enter(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.leave)
	return p
}

// ip runs iproute2 in the namespace.
func ip(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + path, "ip"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// vethIn makes a pair in the namespace, its far end up, and returns the near end.
func vethIn(t *testing.T, p *pod, name string) netlink.Link {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name = name
	if err := p.h.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: name + "-far"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{name + "-far", name} {
		l, err := p.h.LinkByName(n)
		if err != nil {
			t.Fatal(err)
		}
		if n == name {
			return l
		}
		if err := p.h.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	return nil
}

// TestConfigureAndRemove does with a veth what Add does with an ipvlan child, beside an eth0 as the VPC CNI makes it
// that lost its default route: what the kernel has afterwards is compared as text.
func TestConfigureAndRemove(t *testing.T) {
	path := newNetns(t)
	p := enterTest(t, path)
	eth0 := vethIn(t, p, "eth0").Attrs().Index
	for _, cmd := range []string{
		"addr add 10.10.12.40/32 dev eth0", "link set eth0 up", "route add 169.254.1.1 dev eth0 scope link",
	} {
		ip(t, path, strings.Fields(cmd)...)
	}
	before := rulesAndRoutes(t, path)

	l := vethIn(t, p, "net1")
	c := Child{
		Key: keyOf("c1", "net1"), Netns: path, SourceRouting: true,
		Addresses: []Address{addr("10.10.1.70/24", "10.10.1.1")},
		Routes:    []netconf.Route{to("10.20.0.0/16"), to("192.168.0.0/16", "10.9.9.9")},
	}
	index := l.Attrs().Index
	routes, err := p.configure(t.Context(), c, index)
	if err != nil {
		t.Fatal(err)
	}
	own, first := fmt.Sprint(tableBase+index), fmt.Sprint(tableBase+eth0)
	for table, want := range map[string]string{
		"main": "10.10.1.0/24 dev net1 proto kernel scope link src 10.10.1.70\n" +
			"10.20.0.0/16 via 10.10.1.1 dev net1 proto 77 onlink\n169.254.1.1 dev eth0 scope link\n" +
			"192.168.0.0/16 via 10.9.9.9 dev net1 proto 77 onlink\n",
		own: "default via 10.10.1.1 dev net1 proto 77 onlink\n10.10.1.0/24 dev net1 proto 77 scope link src 10.10.1.70\n" +
			"10.20.0.0/16 via 10.10.1.1 dev net1 proto 77 onlink\n192.168.0.0/16 via 10.9.9.9 dev net1 proto 77 onlink\n",
		first: "default via 169.254.1.1 dev eth0 proto 77 onlink\n169.254.1.1 dev eth0 proto 77 scope link\n",
	} {
		if diff := cmp.Diff(want, trim(ip(t, path, "-4", "route", "show", "table", table))); diff != "" {
			t.Errorf("table %s (-want +got):\n%s", table, diff)
		}
	}
	wantRules := "0:\tfrom all lookup local\n" + first + ":\tfrom 10.10.12.40 lookup " + first + " proto 77\n" +
		own + ":\tfrom 10.10.1.70 lookup " + own + " proto 77\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n"
	if diff := cmp.Diff(wantRules, trim(ip(t, path, "-4", "rule"))); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	for _, r := range shown(routes, index) {
		if r.Dst == netip.MustParsePrefix("169.254.1.1/32") {
			t.Error("a route of eth0 is reported as the interface's")
		}
	}
	if got := sysctl(t, p, "ipv4/conf/net1/arp_notify") + sysctl(t, p, "ipv4/conf/all/arp_ignore"); got != "10" {
		t.Errorf("arp_notify, arp_ignore = %s", got)
	}
	c.Routes = append(c.Routes, to("0.0.0.0/0", "10.10.1.1"))
	if err := errors.Join(checkUp(c, up(t, p, "net1")), p.checkAddresses(c, l), p.checkRules(c, l), p.checkRoutes(c, l)); err != nil {
		t.Errorf("check: %v", err)
	}

	for range 2 {
		if err := p.remove(l); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, rulesAndRoutes(t, path)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

// TestRouteOfAnotherInterfaceIsNotReported: of a destination the main table keeps its first route, and the result, by which CHECK goes,
// has no other.
func TestRouteOfAnotherInterfaceIsNotReported(t *testing.T) {
	path := newNetns(t)
	p := enterTest(t, path)
	for i, want := range [][]netconf.Route{{to("10.20.0.0/16", "10.10.0.1")}, nil} {
		name, subnet := fmt.Sprintf("net%d", i+1), fmt.Sprintf("10.10.%d.", i)
		l := vethIn(t, p, name)
		c := Child{
			Key: keyOf("c1", name), Netns: path,
			Addresses: []Address{addr(subnet+"70/24", subnet+"1")}, Routes: []netconf.Route{to("10.20.0.0/16", subnet+"1")},
		}
		routes, err := p.configure(t.Context(), c, l.Attrs().Index)
		if err != nil {
			t.Fatal(err)
		}
		c.Routes = shown(routes, l.Attrs().Index)
		if !slices.Equal(c.Routes, want) {
			t.Errorf("%s has %v, want %v", name, c.Routes, want)
		}
		if err := p.checkRoutes(c, l); err != nil {
			t.Errorf("check of %s: %v", name, err)
		}
	}
}

// rulesAndRoutes are those of the namespace that somebody made. The kernel adds link-local and multicast ones when it has
// seen the carrier and looked for duplicates.
func rulesAndRoutes(t *testing.T, path string) string {
	t.Helper()
	text := ip(t, path, "rule") + ip(t, path, "route", "show", "table", "all")
	return strings.Join(slices.DeleteFunc(slices.Collect(strings.Lines(text)), func(line string) bool {
		return strings.Contains(line, "proto kernel") && (strings.Contains(line, "fe80::") || strings.Contains(line, "ff00::"))
	}), "")
}

func up(t *testing.T, p *pod, name string) netlink.Link {
	t.Helper()
	l, err := p.h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// trim drops the spaces that iproute2 leaves at line ends.
func trim(s string) string { return strings.ReplaceAll(s, " \n", "\n") }

func TestChecksNameWhatIsMissing(t *testing.T) {
	path := newNetns(t)
	p := enterTest(t, path)
	l := vethIn(t, p, "net1")
	c := Child{
		Key: keyOf("c1", "net1"), Netns: path, SourceRouting: true,
		Addresses: []Address{addr("10.10.1.70/24", "10.10.1.1")}, Routes: []netconf.Route{to("10.20.0.0/16", "10.10.1.1")},
	}
	table := fmt.Sprint(tableBase + l.Attrs().Index)
	check := func() error {
		return errors.Join(p.checkAddresses(c, l), p.checkRules(c, l), p.checkRoutes(c, l))
	}
	for _, tt := range []struct{ cmd, says string }{
		{"route del default table " + table, "route 0.0.0.0/0 by net1 is missing in every table"},
		{"rule del from 10.10.1.70", "rule " + table + ": from 10.10.1.70 lookup " + table + " is missing"},
		{"addr add 10.10.1.71/24 dev net1", ""},
		{"rule add from 10.10.1.70 lookup 100", ""},
		{"addr flush dev net1", "address of net1 is none, want 10.10.1.70/24"},
	} {
		t.Run(tt.cmd, func(t *testing.T) {
			ip(t, path, "link", "set", "net1", "down")
			ip(t, path, "addr", "flush", "dev", "net1")
			if err := p.sweepAll(l); err != nil {
				t.Fatal(err)
			}
			if _, err := p.configure(t.Context(), c, l.Attrs().Index); err != nil {
				t.Fatal(err)
			}
			if err := check(); err != nil {
				t.Fatalf("as made: %v", err)
			}
			ip(t, path, strings.Fields(tt.cmd)...)
			err := check()
			if (tt.says == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
	ip(t, path, "addr", "add", "10.10.1.70/24", "dev", "net1")
	ip(t, path, "route", "add", "10.20.0.0/16", "via", "10.10.1.1", "table", "100") // as sbr moves it
	if err := p.checkRoutes(Child{Routes: c.Routes}, l); err != nil {
		t.Errorf("route in another table: %v", err)
	}
}

// sweepAll removes the rules and tables of an interface that stays.
func (p *pod) sweepAll(l netlink.Link) error {
	rules, err := p.ownRules()
	if err != nil {
		return err
	}
	for i := range rules {
		if err := p.h.RuleDel(&rules[i]); err != nil {
			return err
		}
	}
	return p.flush(tableBase + l.Attrs().Index)
}

func TestTwoInterfacesInOneSubnetIgnoreForeignARP(t *testing.T) {
	path := newNetns(t)
	p := enterTest(t, path)
	for i, name := range []string{"net1", "net3"} {
		c := Child{
			Key: keyOf("c1", name), Netns: path, SourceRouting: true,
			Addresses: []Address{addr(fmt.Sprintf("10.10.1.7%d/24", i), "10.10.1.1")},
		}
		if _, err := p.configure(t.Context(), c, vethIn(t, p, name).Attrs().Index); err != nil {
			t.Fatal(err)
		}
		if got := sysctl(t, p, "ipv4/conf/all/arp_ignore"); got != fmt.Sprint(i) {
			t.Errorf("with %d interfaces arp_ignore = %s", i+1, got)
		}
	}
	if got := strings.Count(ip(t, path, "rule"), "proto 77"); got != 2 {
		t.Errorf("%d rules, want one per interface", got)
	}
}

func TestIPv6IsConfiguredWithoutProbing(t *testing.T) {
	path := newNetns(t)
	p := enterTest(t, path)
	l := vethIn(t, p, "net1")
	c := Child{
		Key: keyOf("c1", "net1"), Netns: path, SourceRouting: true,
		Addresses: []Address{addr("2001:db8::70/64", "fe80:ec2::1")}, Routes: []netconf.Route{to("::/0")},
	}
	if _, err := p.configure(t.Context(), c, l.Attrs().Index); err != nil {
		t.Fatal(err)
	}
	if got := ip(t, path, "-6", "addr", "show", "dev", "net1", "scope", "global"); !strings.Contains(got, "nodad") || strings.Contains(got, "tentative") {
		t.Errorf("address: %s", got)
	}
	if got := ip(t, path, "-6", "route", "show", "default"); !strings.Contains(got, "via fe80:ec2::1") {
		t.Errorf("default route: %s", got)
	}
	for name, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "accept_dad": "0", "disable_ipv6": "0", "keep_addr_on_down": "1"} {
		if got := sysctl(t, p, "ipv6/conf/net1/"+name); got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if err := p.remove(l); err != nil {
		t.Fatal(err)
	}
	if got := ip(t, path, "-6", "rule"); strings.Contains(got, "proto 77") {
		t.Errorf("rules left: %s", got)
	}
}

func TestDelLeavesForeignInterfacesAndMissingNamespacesAlone(t *testing.T) {
	path := newNetns(t)
	p := enterTest(t, path)
	vethIn(t, p, "net1")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{path, file, file + "-none"} {
		if err := Del(where, keyOf("c1", "net1")); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	up(t, p, "net1")
}

func TestAddRefusesWhatIsNotAsAsked(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		path := newNetns(t)
		p := enterTest(t, path)
		vethIn(t, p, "net9")
		index := addVeth(t, "eth1", "0a:00:00:00:00:01")
		eth1 := attachment.Link{Name: "eth1", Index: index, MAC: "0a:00:00:00:00:01"}
		if got, err := ByName("eth1"); err != nil || got.Index != index || got.MAC != eth1.MAC || got.Up {
			t.Errorf("ByName = %+v, %v", got, err)
		}
		if _, err := ByName("eth7"); err == nil {
			t.Error("ByName found a link that is not there")
		}
		add := func(ifName string, master attachment.Link, mtu int) error {
			_, err := Add(t.Context(), Child{Key: keyOf("c1", ifName), Netns: path, Master: master, MTU: mtu})
			return err
		}
		says := func(err error, what string) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("got %v, want %q", err, what)
			}
		}
		says(add("net1", eth1, 0), "link eth1 (index "+fmt.Sprint(index)+") is down")
		if err := Up(index, 1500); err != nil {
			t.Error(err)
		}
		if err := add("net9", eth1, 0); !errors.Is(err, ErrExists) {
			t.Errorf("got %v, want ErrExists", err)
		}
		says(add("net1", eth1, 9001), "MTU 9001 exceeds that of link eth1, 1500")
		other := eth1
		other.MAC = "0a:00:00:00:00:02"
		says(add("net1", other, 0), "not the ENI's 0a:00:00:00:00:02")
		other.Index = 4711
		says(add("net1", other, 0), "find link eth1 (index 4711)")
		_, err := Add(t.Context(), Child{Key: keyOf("c1", "net1"), Netns: path + "-none", Master: eth1})
		says(err, "open network namespace")
	})
}

func TestMasterThatCameBackIsFoundByItsMAC(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		const mac = "0a:00:00:00:00:01"
		was := attachment.Link{Name: "eth1", Index: addVeth(t, "eth1", "0a:00:00:00:00:02"), MAC: mac}
		index := addVeth(t, "ens6", mac)
		if err := Up(index, 0); err != nil {
			t.Error(err)
		}
		if got, err := findMaster(was); err != nil || got.Attrs().Index != index {
			t.Errorf("got %v, %v", got, err)
		}
		was.Index = 4711
		if got, err := findMaster(was); err != nil || got.Attrs().Name != "ens6" {
			t.Errorf("got %v, %v", got, err)
		}
		addVeth(t, "ens7", mac)
		if _, err := findMaster(was); !errors.Is(err, ErrMaster) || !strings.Contains(err.Error(), "links ens6 and ens7 both have the ENI's MAC "+mac) {
			t.Errorf("got %v", err)
		}
	})
}

func sysctl(t *testing.T, p *pod, name string) string {
	t.Helper()
	var got []byte
	if err := p.ns.Do(func(ns.NetNS) (err error) {
		got, err = os.ReadFile(filepath.Join("/proc/sys/net", name))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(got))
}
