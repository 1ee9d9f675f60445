// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// asWorker runs the test on a thread in a network namespace of its own, the worker's, which ends with it.
func asWorker(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		test(t)
	}()
	<-done
}

// addVeth makes a pair "name" and "name-far" with name's MAC, and returns name's index.
func addVeth(t *testing.T, name, mac string) int {
	t.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Error(err)
	}
	la := netlink.NewLinkAttrs()
	la.Name, la.HardwareAddr, la.MTU = name, hw, 1500
	far, _ := net.ParseMAC("0a:00:00:00:00:ff")
	l := &netlink.Veth{LinkAttrs: la, PeerName: name + "-far", PeerHardwareAddr: far}
	if err = netlink.LinkAdd(l); err != nil {
		t.Errorf("add %s: %v", name, err)
		return 0
	}
	return l.Index
}

func addOn(t *testing.T, parent int, link func(netlink.LinkAttrs) netlink.Link, name string) {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name, la.ParentIndex = name, parent
	if err := netlink.LinkAdd(link(la)); err != nil {
		t.Errorf("add %s: %v", name, err)
	}
}

func TestHostsAreLinksOfTheirOwnWithAMAC(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		eth1 := addVeth(t, "eth1", "0A:00:00:00:00:01")
		addOn(t, eth1, func(la netlink.LinkAttrs) netlink.Link {
			return &netlink.Macvlan{LinkAttrs: la, Mode: netlink.MACVLAN_MODE_PASSTHRU} // takes over the MAC
		}, "macvlan0")
		addOn(t, 0, func(la netlink.LinkAttrs) netlink.Link { return &netlink.Bridge{LinkAttrs: la} }, "br0")
		if err := Up(eth1, 9001); err != nil {
			t.Error(err)
		}
		got, err := Hosts()
		if err != nil {
			t.Error(err)
		}
		for i, l := range got { // the order of a pair's indexes is the kernel's
			if l.Name == "eth1-far" {
				got = append(got[:i], got[i+1:]...)
				break
			}
		}
		want := []attachment.Link{{Name: "eth1", Index: eth1, MTU: 9001, MAC: "0a:00:00:00:00:01", Up: true}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Hosts (-want +got):\n%s", diff)
		}
	})
}

func TestOnlyEthernetDevicesAndVethsCanBeENIs(t *testing.T) {
	mac := net.HardwareAddr{0x0a, 0, 0, 0, 0, 1}
	attrs := func(encap string, hw net.HardwareAddr) netlink.LinkAttrs {
		return netlink.LinkAttrs{EncapType: encap, HardwareAddr: hw}
	}
	for name, tc := range map[string]struct {
		link netlink.Link
		want bool
	}{
		"device":             {&netlink.Device{LinkAttrs: attrs("ether", mac)}, true},
		"veth":               {&netlink.Veth{LinkAttrs: attrs("ether", mac)}, true},
		"lo":                 {&netlink.Device{LinkAttrs: attrs("loopback", make(net.HardwareAddr, 6))}, false},
		"infiniband":         {&netlink.Device{LinkAttrs: attrs("infiniband", make(net.HardwareAddr, 20))}, false},
		"device without MAC": {&netlink.Device{LinkAttrs: attrs("ether", nil)}, false},
		"ipvlan":             {&netlink.IPVlan{LinkAttrs: attrs("ether", mac)}, false},
		"macvlan":            {&netlink.Macvlan{LinkAttrs: attrs("ether", mac)}, false},
		"macvtap":            {&netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: attrs("ether", mac)}}, false},
		"vlan":               {&netlink.Vlan{LinkAttrs: attrs("ether", mac)}, false},
		"bond":               {&netlink.Bond{LinkAttrs: attrs("ether", mac)}, false},
		"kind unknown here":  {&netlink.GenericLink{LinkAttrs: attrs("ether", mac), LinkType: "team"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := canBeENI(tc.link); got != tc.want {
				t.Errorf("canBeENI = %v, want %v", got, tc.want)
			}
		})
	}
}

func TestHostAddressesNameTheirLink(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		eth1 := addVeth(t, "eth1", "0a:00:00:00:00:01")
		l, err := netlink.LinkByIndex(eth1)
		if err != nil {
			t.Error(err)
			return
		}
		for _, cidr := range []string{"10.10.1.20/24", "10.10.1.21/24", "2001:db8::20/64"} {
			a, parseErr := netlink.ParseAddr(cidr)
			if err = errors.Join(parseErr, netlink.AddrAdd(l, a)); err != nil {
				t.Errorf("add %s: %v", cidr, err)
			}
		}
		got, err := HostAddresses()
		if err != nil {
			t.Error(err)
		}
		want := map[netip.Addr]string{}
		for _, a := range []string{"10.10.1.20", "10.10.1.21", "2001:db8::20"} {
			want[netip.MustParseAddr(a)] = "eth1"
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("HostAddresses (-want +got):\n%s", diff)
		}
	})
}

func TestUpChangesOnlyWhatIsDifferent(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		eth1 := addVeth(t, "eth1", "0a:00:00:00:00:01")
		state := func() string {
			l, err := netlink.LinkByIndex(eth1)
			if err != nil {
				return err.Error()
			}
			return fmt.Sprintf("mtu %d up %v", l.Attrs().MTU, l.Attrs().Flags&net.FlagUp != 0)
		}
		for _, step := range []struct {
			mtu  int
			want string
		}{{0, "mtu 1500 up true"}, {9001, "mtu 9001 up true"}, {0, "mtu 9001 up true"}, {9001, "mtu 9001 up true"}} {
			if err := Up(eth1, step.mtu); err != nil {
				t.Errorf("Up(%d): %v", step.mtu, err)
			}
			if got := state(); got != step.want {
				t.Errorf("after Up(%d): %s, want %s", step.mtu, got, step.want)
			}
		}
		if err := Up(eth1, 1<<20); err == nil {
			t.Error("an MTU that the link cannot have was taken")
		}
		if err := Up(eth1+1000, 0); err == nil {
			t.Error("a link that does not exist was brought up")
		}
	})
}

// A link that nobody configured would take addresses and a default route from the VPC's router advertisements, and what
// the host sends would leave by it.
func TestUpKeepsRouterAdvertisementsOut(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		eth1, eth2 := addVeth(t, "eth1", "0a:00:00:00:00:01"), addVeth(t, "eth2", "0a:00:00:00:00:02")
		set := func(link, name, value string) {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/"+name, []byte(value), 0); err != nil {
				t.Error(err)
			}
		}
		for _, l := range []string{"eth1", "eth2"} {
			set(l, "accept_ra", "2")
			set(l, "autoconf", "1")
		}
		l, err := netlink.LinkByIndex(eth2)
		if err == nil {
			err = netlink.LinkSetUp(l) // by its host, which wants them
		}
		if err != nil {
			t.Error(err)
		}
		for _, index := range []int{eth1, eth2} {
			if err := Up(index, 0); err != nil {
				t.Error(err)
			}
		}
		for file, want := range map[string]string{
			"eth1/accept_ra": "0", "eth1/autoconf": "0",
			"eth2/accept_ra": "2", "eth2/autoconf": "1",
		} {
			got, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + file)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q, %v; want %s", file, got, err, want)
			}
		}
	})
}

func TestWatchCallsAtTheStartAndAfterEachChange(t *testing.T) {
	asWorker(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		// The socket belongs to the namespace of the thread that opens it, so the links are changed on that thread as well: each
		// call makes the change that leads to the next.
		eth1, called := 0, 0
		steps := []func(){
			func() { eth1 = addVeth(t, "eth1", "0a:00:00:00:00:01") },
			func() {
				if err := Up(eth1, 0); err != nil {
					t.Error(err)
				}
			},
			func() {
				if err := netlink.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: eth1}}); err != nil {
					t.Error(err)
				}
			},
			cancel,
		}
		if err := Watch(ctx, func() {
			steps[called]()
			called++
		}); err != nil {
			t.Errorf("Watch: %v", err)
		}
		if called != len(steps) {
			t.Errorf("%d calls, want %d: one at the start and one per change", called, len(steps))
		}
	})
}

func TestBurstsOfEventsAreOneCallAndStormsDoNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dirty, calls, ended := make(chan struct{}), 0, make(chan struct{})
		go func() {
			defer close(ended)
			relay(t.Context(), dirty, func() { calls++ })
		}()
		events := func(n int, every time.Duration) {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for range n {
				<-tick.C
				dirty <- struct{}{}
			}
			<-time.After(maxWait)
			synctest.Wait()
		}
		events(20, time.Millisecond)
		if calls != 1 {
			t.Errorf("%d calls for a burst, want 1", calls)
		}
		calls = 0
		events(200, 10*time.Millisecond)
		if calls < 4 || calls > 6 {
			t.Errorf("%d calls for a storm of 2 s, want about 4", calls)
		}
		close(dirty) // the subscription broke
		<-ended
	})
}
