// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// ProcDir among the directories of [Scan] and [Elsewhere] stands for the namespaces of the processes that it shows.
const ProcDir = "/proc"

// Dirs are where runtimes keep namespaces, and the processes: what to pass to [Scan] and [Elsewhere] if nothing else is
// known. One that does not exist is passed over.
func Dirs() []string { return []string{"/run/netns", "/var/run/netns", ProcDir} }

// Found is a namespace and what it carries.
type Found struct {
	Netns attachment.Netns // with the first path that led there
	// Addrs are the global addresses on every link but lo.
	Addrs    []netip.Addr
	Children []Child
}

// Child is an ipvlan link whose parent is a link of this process's namespace.
type Child struct {
	Name        string
	ParentIndex int
	Mode        string // l2, l3 or l3s
}

// Scan reads every namespace that has a file in dirs, each once and this process's own not at all. A namespace that goes
// away meanwhile is left out; for one that cannot be read there is an error beside what was found.
func Scan(dirs []string) ([]Found, error) {
	var found []Found
	err := each(dirs, func(id attachment.Netns, home int) error {
		addrs, err := addresses()
		if err != nil {
			return err
		}
		children, err := childrenOf(home)
		if err != nil {
			return err
		}
		found = append(found, Found{Netns: id, Addrs: addrs, Children: children})
		return nil
	})
	return found, err
}

// Elsewhere looks for namespaces in dirs, whatever path leads there: a pod whose path was removed may live on, held by its
// processes. It maps those of ns that it found to a path. After an error, one that was not found may yet exist.
func Elsewhere(ns []attachment.Netns, dirs []string) (map[attachment.Netns]string, error) {
	found := map[attachment.Netns]string{}
	err := each(dirs, func(id attachment.Netns, _ int) error {
		for _, n := range ns {
			if same, _ := compare(n, id); same {
				found[n] = id.Path
			}
		}
		return nil
	})
	return found, err
}

// Addresses are the global addresses on every link but lo of the namespace at path.
func Addresses(path string) (addrs []netip.Addr, err error) {
	err = inside(path, func(attachment.Netns, int) error {
		addrs, err = addresses()
		return err
	})
	return addrs, err
}

// each visits the namespaces in dirs, each once.
func each(dirs []string, do func(id attachment.Netns, home int) error) error {
	paths, err := paths(dirs)
	errs := []error{err}
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return fmt.Errorf("stat own network namespace: %w", err)
	}
	seen[file{st.Dev, st.Ino}] = true
	for _, path := range paths {
		// Most processes share a few namespaces, so stat first. A number that is reused meanwhile hides a namespace that was
		// made meanwhile, and no other.
		if unix.Stat(path, &st) != nil || seen[file{st.Dev, st.Ino}] {
			continue
		}
		err := inside(path, func(id attachment.Netns, home int) error {
			seen[file{id.Device, id.Inode}] = true
			return do(id, home)
		})
		if err != nil && !vanished(err) && !errors.Is(err, errNotNetns) {
			errs = append(errs, fmt.Errorf("network namespace %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// vanished reports whether the error is that of a namespace or process that ended meanwhile.
func vanished(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

func paths(dirs []string) ([]string, error) {
	var all []string
	var errs []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !vanished(err) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if dir == ProcDir {
				if _, err := strconv.Atoi(e.Name()); err != nil {
					continue
				}
				path = filepath.Join(path, "ns", "net")
			}
			all = append(all, path)
		}
	}
	return all, errors.Join(errs...)
}

// loopbackIndex is lo's in every namespace, LOOPBACK_IFINDEX.
// https://github.com/torvalds/linux/blob/v6.1/include/net/flow.h#L25
const loopbackIndex = 1

// addresses of the namespace that the calling thread is in.
func addresses() ([]netip.Addr, error) {
	list, err := netlinksafe.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		if addr, ok := global(a); ok {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

// global is the address, if it is one that others could reach.
func global(a netlink.Addr) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(a.IP)
	addr = addr.Unmap()
	return addr, ok && a.LinkIndex != loopbackIndex && !addr.IsLinkLocalUnicast() && !addr.IsLoopback()
}

// childrenOf finds the children of home's links in the namespace that the calling thread is in.
func childrenOf(home int) ([]Child, error) {
	links, err := netlinksafe.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	// The kernel gives home its number here when it lists a link with a parent there, so ask afterwards.
	id, err := netlink.GetNetNsIdByFd(home)
	if err != nil {
		return nil, fmt.Errorf("number of own network namespace: %w", err)
	}
	var children []Child
	for _, l := range links {
		if c, ok := child(l, id); ok {
			children = append(children, c)
		}
	}
	return children, nil
}

// child is the link as a Child if its parent is in the namespace numbered home; no number is −1 on both sides.
func child(l netlink.Link, home int) (Child, bool) {
	ipvlan, ok := l.(*netlink.IPVlan)
	if !ok || home < 0 || ipvlan.NetNsID != home {
		return Child{}, false
	}
	return Child{Name: ipvlan.Name, ParentIndex: ipvlan.ParentIndex, Mode: modeName(ipvlan.Mode)}, true
}

func modeName(m netlink.IPVlanMode) string {
	switch m {
	case netlink.IPVLAN_MODE_L2:
		return "l2"
	case netlink.IPVLAN_MODE_L3:
		return "l3"
	case netlink.IPVLAN_MODE_L3S:
		return "l3s"
	}
	return "mode " + strconv.Itoa(int(m))
}
