// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
}

// makeNetns makes a namespace with a file at path, as a container runtime does, and runs in inside it.
func makeNetns(t testing.TB, path string, in ...func() error) {
	t.Helper()
	needRoot(t)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			for _, f := range in {
				if err := f(); err != nil {
					return err
				}
			}
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			f.Close()
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNetns(path) })
}

func removeNetns(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = os.Remove(path)
}

// identified is n as an ADD would have recorded it.
func identified(t testing.TB, path string) attachment.Netns {
	t.Helper()
	n, err := look(path)
	if err != nil {
		t.Fatal(err)
	}
	if n.Cookie == 0 || n.Inode == 0 {
		t.Fatalf("%+v has no identity", n)
	}
	return n
}

func wantSight(t *testing.T, n attachment.Netns, want Sight) {
	t.Helper()
	if got := Look(n); got != want {
		t.Errorf("Look(%+v) = %v, want %v", n, got, want)
	}
}

// withoutCookie is what a kernel older than 5.14 would have given.
func withoutCookie(n attachment.Netns) attachment.Netns {
	n.Cookie = 0
	return n
}

func TestNamespaceIsAliveUntilItsPathLeadsElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod")
	makeNetns(t, path)
	first := identified(t, path)
	wantSight(t, first, Alive)
	wantSight(t, withoutCookie(first), Alive)

	removeNetns(path)
	wantSight(t, first, Gone)
	wantSight(t, withoutCookie(first), Gone)

	makeNetns(t, path)
	second := identified(t, path)
	wantSight(t, first, Gone)
	wantSight(t, second, Alive)
	if first.Cookie == second.Cookie {
		t.Errorf("two namespaces with cookie %d", first.Cookie)
	}
}

func TestWhatCannotBeSeenIsNotGone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pod")
	makeNetns(t, path)
	n := identified(t, path)
	moved := func(path string) attachment.Netns { m := n; m.Path = path; return m }

	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("not-mounted/pod", link); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]attachment.Netns{
		"directory is not there":          moved(filepath.Join(dir, "not-mounted", "pod")),
		"mount did not propagate":         moved(plain),
		"not even a file":                 moved(dir),
		"opening it would wait":           moved(fifo),
		"namespace of another kind":       moved("/proc/self/ns/mnt"),
		"link into a directory not there": moved(link),
		"no path":                         moved(""),
		"nothing known to compare with":   {Path: path},
	} {
		t.Run(name, func(t *testing.T) { wantSight(t, n, Hidden) })
	}
}

func TestLinkThatLeadsNowhereIsGone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("pod", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	makeNetns(t, filepath.Join(dir, "pod"))
	n := identified(t, filepath.Join(dir, "link"))
	wantSight(t, n, Alive)
	removeNetns(filepath.Join(dir, "pod"))
	wantSight(t, n, Gone)
}

// inNewNetns starts a process in a namespace of its own.
func inNewNetns(t *testing.T) (path string, end func()) {
	t.Helper()
	needRoot(t)
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid), end
}

func TestNamespaceOfAProcess(t *testing.T) {
	path, end := inNewNetns(t)
	n := identified(t, path)
	wantSight(t, n, Alive)
	end()
	if inInitialPIDNamespace() {
		wantSight(t, n, Gone)
	} else {
		wantSight(t, n, Hidden) // it could be a process that we do not see
	}
}

func TestElsewhereFindsANamespaceThatLostItsPath(t *testing.T) {
	proc, end := inNewNetns(t)
	dir := t.TempDir()
	held, lost := filepath.Join(dir, "held"), filepath.Join(dir, "lost")
	makeNetns(t, lost)
	other := filepath.Join(t.TempDir(), "other")
	makeNetns(t, other)
	n := identified(t, proc)
	n.Path = held // where the runtime had it
	ns := []attachment.Netns{n, withoutCookie(n), identified(t, lost), identified(t, other)}
	removeNetns(lost)

	dirs := []string{filepath.Join(dir, "absent"), filepath.Dir(other), ProcDir}
	got, err := Elsewhere(ns, dirs)
	if err != nil {
		t.Fatal(err)
	}
	want := map[attachment.Netns]string{n: proc, withoutCookie(n): proc, ns[3]: other}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Elsewhere (-want +got):\n%s", diff)
	}
	end()
	if got, err = Elsewhere(ns[:3], dirs); err != nil || len(got) != 0 {
		t.Errorf("after the process ended: %v, %v", got, err)
	}
}

func TestScanSaysWhenItCouldNotLook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Elsewhere(nil, []string{file}); err == nil {
		t.Error("a directory that cannot be read is no error")
	}
}

func dummy(name string, cidrs ...string) func() error {
	return func() error {
		la := netlink.NewLinkAttrs()
		la.Name = name
		l := &netlink.Veth{LinkAttrs: la, PeerName: name + "p"}
		if err := netlink.LinkAdd(l); err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		return addAddrs(l, cidrs)
	}
}

func addAddrs(l netlink.Link, cidrs []string) error {
	for _, c := range cidrs {
		a, err := netlink.ParseAddr(c)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add %s: %w", c, err)
		}
	}
	return nil
}

func loopback(cidrs ...string) func() error {
	return func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return addAddrs(lo, cidrs)
	}
}

func TestAddressesAreTheGlobalOnesOfEveryLinkButLo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod")
	makeNetns(t, path, loopback("127.0.0.9/8", "10.9.9.9/32"),
		dummy("net1", "10.10.1.70/24", "169.254.7.7/32", "fe80::7/64", "2001:db8::70/64"), dummy("net2", "10.10.2.70/24"))
	got, err := Addresses(path)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, netip.Addr.Compare)
	want := []netip.Addr{netip.MustParseAddr("10.10.1.70"), netip.MustParseAddr("10.10.2.70"), netip.MustParseAddr("2001:db8::70")}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("Addresses (-want +got):\n%s", diff)
	}
	if _, err := Addresses(path + "-absent"); err == nil {
		t.Error("no error for a path that is absent")
	}
}

func TestScanSeesEachNamespaceOnceAndNotItsOwn(t *testing.T) {
	dir, second := t.TempDir(), t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	makeNetns(t, a, dummy("net1", "10.10.1.70/24"))
	makeNetns(t, b)
	for path, target := range map[string]string{
		filepath.Join(dir, "c-same-as-a"): a,
		filepath.Join(dir, "d-nowhere"):   filepath.Join(dir, "nowhere"),
		filepath.Join(dir, "e-own"):       "/proc/thread-self/ns/net",
		second + "/again":                 b,
	} {
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "f-plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Scan([]string{dir, second, filepath.Join(dir, "absent")})
	if err != nil {
		t.Fatal(err)
	}
	want := []Found{{Netns: identified(t, a), Addrs: []netip.Addr{netip.MustParseAddr("10.10.1.70")}}, {Netns: identified(t, b)}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
}

// TestParentsNamespaceIsToldByItsNumber shows with macvlan, which needs no special kernel, that a child's IFLA_LINK_NETNSID
// is the number by which childrenOf knows its own namespace. ipvlan_test.go shows the whole with ipvlan.
func TestParentsNamespaceIsToldByItsNumber(t *testing.T) {
	dir := t.TempDir()
	worker, pod := filepath.Join(dir, "worker"), filepath.Join(dir, "pod")
	makeNetns(t, worker, dummy("eth1"))
	makeNetns(t, pod)
	parent := addChild(t, worker, pod, func(la netlink.LinkAttrs) netlink.Link {
		return &netlink.Macvlan{LinkAttrs: la, Mode: netlink.MACVLAN_MODE_BRIDGE}
	})
	workerFile, err := os.Open(worker)
	if err != nil {
		t.Fatal(err)
	}
	defer workerFile.Close()

	var link netlink.Link
	var workerID, ownID int
	err = inside(pod, func(_ attachment.Netns, home int) (err error) {
		if link, err = netlink.LinkByName("net1"); err != nil {
			return err
		}
		if workerID, err = netlink.GetNetNsIdByFd(int(workerFile.Fd())); err != nil {
			return err
		}
		ownID, err = netlink.GetNetNsIdByFd(home)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ipvlan := &netlink.IPVlan{LinkAttrs: *link.Attrs(), Mode: netlink.IPVLAN_MODE_L2}
	want := Child{Name: "net1", ParentIndex: parent, Mode: "l2"}
	if c, ok := child(ipvlan, workerID); !ok || c != want {
		t.Errorf("seen from the worker, number %d: %+v %v, want %+v", workerID, c, ok, want)
	}
	if _, ok := child(ipvlan, ownID); ok {
		t.Errorf("the test's own namespace, number %d, passes for the parent's, number %d", ownID, workerID)
	}
	if _, ok := child(link, workerID); ok {
		t.Error("macvlan passes for ipvlan")
	}
	ipvlan.NetNsID = -1 // a parent in the pod itself
	if _, ok := child(ipvlan, -1); ok {
		t.Error("two namespaces without a number pass for one")
	}
}

// addChild makes net1 in pod on worker's eth1, whose index it returns.
func addChild(t *testing.T, worker, pod string, link func(netlink.LinkAttrs) netlink.Link) (parent int) {
	t.Helper()
	podFile, err := os.Open(pod)
	if err != nil {
		t.Fatal(err)
	}
	defer podFile.Close()
	err = inside(worker, func(attachment.Netns, int) error {
		eth1, findErr := netlink.LinkByName("eth1")
		if findErr != nil {
			return findErr
		}
		parent = eth1.Attrs().Index
		la := netlink.NewLinkAttrs()
		la.Name, la.ParentIndex, la.Namespace = "net1", parent, netlink.NsFd(int(podFile.Fd()))
		return netlink.LinkAdd(link(la))
	})
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

// TestNothingIsHeldAfterACall: a namespace whose links are gone is a namespace that nothing holds. The peer of its veth
// vanishes with it.
func TestNothingIsHeldAfterACall(t *testing.T) {
	path, peerNS := filepath.Join(t.TempDir(), "pod"), filepath.Join(t.TempDir(), "peer")
	makeNetns(t, peerNS)
	peerFile, err := os.Open(peerNS)
	if err != nil {
		t.Fatal(err)
	}
	defer peerFile.Close()
	makeNetns(t, path, func() error {
		la := netlink.NewLinkAttrs()
		la.Name = "net1"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "witness", PeerNamespace: netlink.NsFd(int(peerFile.Fd()))})
	})
	n := identified(t, path)
	for range 20 {
		wantSight(t, n, Alive)
	}
	if _, err = Addresses(path); err != nil {
		t.Fatal(err)
	}
	if _, err = Scan([]string{filepath.Dir(path)}); err != nil {
		t.Fatal(err)
	}
	if _, err = Elsewhere([]attachment.Netns{n}, []string{filepath.Dir(path)}); err != nil {
		t.Fatal(err)
	}

	gone := make(chan netlink.LinkUpdate, 16)
	stop := make(chan struct{})
	defer close(stop)
	if err = inside(peerNS, func(attachment.Netns, int) error { return netlink.LinkSubscribe(gone, stop) }); err != nil {
		t.Fatal(err)
	}
	removeNetns(path)
	for u := range gone { // the test's deadline ends the wait if something holds the namespace
		if u.Header.Type == unix.RTM_DELLINK && u.Attrs().Name == "witness" {
			return
		}
	}
	t.Error("the subscription ended")
}

func TestLookLeavesItsThreadsAtHome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod")
	makeNetns(t, path, dummy("only-in-pod"))
	n := identified(t, path)
	results := make(chan string, 64)
	for range cap(results) {
		go func() {
			Look(n)
			if _, err := net.InterfaceByName("only-in-pod"); err == nil {
				results <- "a thread stayed in the namespace"
				return
			}
			results <- ""
		}()
	}
	for range cap(results) {
		if s := <-results; s != "" {
			t.Error(s)
		}
	}
}

// BenchmarkLook: one pass over a full node is 700 of them.
func BenchmarkLook(b *testing.B) {
	path := filepath.Join(b.TempDir(), "pod")
	makeNetns(b, path)
	n := identified(b, path)
	b.ReportAllocs()
	for b.Loop() {
		if Look(n) != Alive {
			b.Fatal("not alive")
		}
	}
}
