// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podlink

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

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

// ip runs iproute2 in the namespace, one command after the other.
func ip(t *testing.T, path string, commands ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", "--net="+path, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip %q: %v\n%s", commands, err, out)
	}
}

func TestInterfacesListsAddressesOfGlobalScopeByInterface(t *testing.T) {
	path := newNetns(t)
	ip(t, path,
		"link add net1 address 02:00:00:00:00:01 type veth peer name net2", "link set net1 up", "link set net2 up",
		"link add link net1 name net3 type macvlan",
		"address add 10.10.1.80/24 dev net1", "address add 10.10.1.81/32 dev net1", "address add 2001:db8::80/64 dev net1 nodad",
		"address add 169.254.7.7/16 scope link dev net1", "address add 10.10.2.80/24 dev net2")
	all, err := Namespace(path).Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]netip.Prefix{}
	kinds := map[string]string{}
	for _, i := range all {
		got[i.Name], kinds[i.Name] = i.Addresses, i.Kind
		if i.Name == "net1" && i.MAC != "02:00:00:00:00:01" {
			t.Errorf("MAC %s", i.MAC)
		}
	}
	want := map[string][]netip.Prefix{
		"net1": {netip.MustParsePrefix("10.10.1.80/24"), netip.MustParsePrefix("10.10.1.81/32"), netip.MustParsePrefix("2001:db8::80/64")},
		"net2": {netip.MustParsePrefix("10.10.2.80/24")}, "net3": nil,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"net1": "veth", "net2": "veth", "net3": "macvlan"}, kinds); diff != "" {
		t.Error(diff)
	}
}

// watch collects what is told of the namespace, until the test ends.
func watch(t *testing.T, path string) <-chan attachment.Change {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	told, ended := make(chan attachment.Change, 10_000), make(chan error, 1)
	go func() { ended <- Namespace(path).Watch(ctx, func(c attachment.Change) { told <- c }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if first := next(t, told); first != (attachment.Change{}) {
		t.Errorf("told %+v first", first)
	}
	return told
}

func next(t *testing.T, told <-chan attachment.Change) attachment.Change {
	t.Helper()
	select {
	case c := <-told:
		return c
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is told")
		return attachment.Change{}
	}
}

func TestWatchTellsOfEachChangeInOrder(t *testing.T) {
	path := newNetns(t)
	ip(t, path, "link add net1 type veth peer name net2", "link set net1 up", "link set net2 up")
	told := watch(t, path)
	for range 10 {
		ip(t, path, slices.Repeat([]string{"address add 10.10.1.90/32 dev net1", "address del 10.10.1.90/32 dev net1"}, 10)...)
		for i := 0; i < 20; {
			c := next(t, told)
			if c == (attachment.Change{}) {
				continue // of links
			}
			if c.Addr.String() != "10.10.1.90/32" || c.Gone != (i%2 == 1) {
				t.Fatalf("change %d is %+v", i, c)
			}
			i++
		}
	}
}

func TestWatchSaysThatTheKernelDroppedChanges(t *testing.T) {
	path := newNetns(t)
	ip(t, path, "link add net1 type veth peer name net2", "link set net1 up", "link set net2 up")
	ctx, cancel := context.WithCancel(t.Context())
	calls, goOn, ended := make(chan attachment.Change), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- Namespace(path).Watch(ctx, func(c attachment.Change) {
			select {
			case calls <- c:
				<-goOn
			case <-ctx.Done():
			}
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-calls // the first, and now nobody reads
	ip(t, path, slices.Repeat([]string{"address add 10.10.1.90/32 dev net1", "address del 10.10.1.90/32 dev net1"}, 5000)...)
	close(goOn)
	for c := range calls {
		if c == (attachment.Change{}) {
			return
		}
	}
}

func TestWatchTellsThatALinkChanged(t *testing.T) {
	path := newNetns(t)
	ip(t, path, "link add net1 type veth peer name net2")
	told := watch(t, path)
	ip(t, path, "link set net1 name net9")
	for next(t, told) != (attachment.Change{}) {
	}
	ip(t, path, "link del net9")
	for next(t, told) != (attachment.Change{}) {
	}
}

func TestWatchFailsWithoutANamespace(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	if err := Namespace(missing).Watch(t.Context(), func(attachment.Change) {}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("watching %s: %v", missing, err)
	}
	if all, err := Namespace(missing).Interfaces(); err == nil {
		t.Errorf("listing %s: %v", missing, all)
	}
}

func TestOwnNamespaceIsTheEmptyPath(t *testing.T) {
	own, err := Namespace("").Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(own, func(i attachment.Interface) bool { return i.Name == "lo" || i.Name == "" }) {
		t.Errorf("listed %+v", own)
	}
}
