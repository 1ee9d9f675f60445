// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package netns

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// TestScanKnowsTheChildrenOfItsOwnLinks runs a second time in a process whose namespace is a worker: a pod's child on that
// worker counts, one on another worker does not.
func TestScanKnowsTheChildrenOfItsOwnLinks(t *testing.T) {
	needRoot(t)
	if os.Getenv("NETNS_TEST_WORKER") == "" {
		worker := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		worker.Env = append(os.Environ(), "NETNS_TEST_WORKER=1")
		worker.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if out, err := worker.CombinedOutput(); err != nil {
			t.Errorf("in the worker: %v\n%s", err, out)
		}
		return
	}
	ipvlan := func(la netlink.LinkAttrs) netlink.Link {
		return &netlink.IPVlan{LinkAttrs: la, Mode: netlink.IPVLAN_MODE_L2}
	}
	if err := dummy("eth1")(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mine, theirs, other := filepath.Join(dir, "mine"), filepath.Join(dir, "theirs"), filepath.Join(t.TempDir(), "other")
	makeNetns(t, other, dummy("eth1"))
	makeNetns(t, mine)
	makeNetns(t, theirs)
	parent := addChild(t, "/proc/thread-self/ns/net", mine, ipvlan)
	addChild(t, other, theirs, ipvlan)

	found, err := Scan([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	want := []Found{
		{Netns: identified(t, mine), Children: []Child{{Name: "net1", ParentIndex: parent, Mode: "l2"}}},
		{Netns: identified(t, theirs)},
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
	for path, want := range map[string]Interface{
		mine:   {Kind: "ipvlan", Child: Child{Name: "net1", ParentIndex: parent, Mode: "l2"}},
		theirs: {Kind: "ipvlan"},
	} {
		got, readErr := ReadInterface(path, "net1")
		if diff := cmp.Diff(want, got); readErr != nil || diff != "" {
			t.Errorf("ReadInterface of %s: %v (-want +got):\n%s", path, readErr, diff)
		}
	}
	for _, path := range []string{mine, theirs} {
		err = inside(path, func(attachment.Netns, int) error {
			l, findErr := netlink.LinkByName("net1")
			if findErr != nil {
				return findErr
			}
			return addAddrs(l, []string{"10.10.1.80/32"})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	a := netip.MustParseAddr("10.10.1.80")
	carriers, err := Carriers([]netip.Addr{a}, []string{dir})
	if diff := cmp.Diff([]attachment.Netns{identified(t, mine)}, carriers[a]); err != nil || diff != "" {
		t.Errorf("Carriers: %v (-want +got):\n%s", err, diff)
	}
}
