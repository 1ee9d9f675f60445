// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package netns makes and removes the named network namespaces that the lab is built of. The fabric makes the VPC and
// the workers with it, tests and the demo make pods. A namespace is a bind mount at [Dir]/name, as `ip netns add`
// leaves it, so that a CNI plugin, `ip netns exec` and the lab mean the same thing by its path. What happens inside a
// namespace does not belong here.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Dir is where named network namespaces lie (iproute2's NETNS_RUN_DIR).
const Dir = "/run/netns"

// Path is where the namespace of that name lies, whether it exists or not.
func Path(name string) string { return filepath.Join(Dir, name) }

// Create makes an empty namespace with its loopback link down and returns its path. It fails when the name is taken.
func Create(name string) (path string, err error) {
	if name == "" || name != filepath.Base(name) {
		return "", fmt.Errorf("create netns %q: not a file name", name)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- create(name)
	}()
	if err := <-done; err != nil {
		return "", fmt.Errorf("create netns %s: %w", name, err)
	}
	return Path(name), nil
}

// create makes the namespace on a thread of its own, which comes back from it: the process's first thread would show the
// new namespace as the whole process's (/proc/PID/ns/net), and keep it alive. A thread that cannot come back stays locked,
// so that no other goroutine ever runs on it.
func create(name string) (err error) {
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	handle, err := netns.NewNamed(name)
	if err == nil {
		err = handle.Close()
	}
	back := netns.Set(home)
	if back == nil {
		runtime.UnlockOSThread()
	}
	return errors.Join(err, back)
}

// Delete removes the name. The namespace itself goes when nothing else holds it: no process, no socket, no open file.
// Deleting a name that does not exist succeeds.
func Delete(name string) error {
	path := Path(name)
	// EINVAL: the file is there, but nothing is mounted on it, as an interrupted Create leaves it.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete netns %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete netns %s: %w", name, err)
	}
	return nil
}

// List names the namespaces in [Dir] that start with prefix, sorted.
func List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list netns: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Do runs f on an OS thread of its own inside the namespace at path. Sockets that f opens and files under /proc/sys/net
// that it writes are that namespace's; goroutines that f starts are not in it.
func Do(path string, f func() error) error {
	return ns.WithNetNSPath(path, func(ns.NetNS) error { return f() })
}
