// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package netns looks at the network namespaces of pods: which one a path leads to, whether it is still the one that it
// was, and what addresses and ipvlan children it has. The CNI plugins identify a pod's namespace by it, the agent finds
// out which pods live. It changes nothing, and holds nothing after a call: an open socket or file would keep a dead
// namespace alive. What follows from a namespace being gone does not belong here.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Sight is what can be seen of a namespace.
type Sight int

// The zero Sight is Hidden, which proves nothing.
const (
	// Hidden: nothing can be said. The directory is not mounted here, a right is missing, the file at the path is not a
	// namespace (a mount that did not propagate looks like that), or nothing is known to compare with.
	Hidden Sight = iota
	// Alive: the path leads to the namespace.
	Alive
	// Gone: the path is absent from a directory that can be read, or leads to another namespace.
	Gone
)

func (s Sight) String() string {
	switch s {
	case Alive:
		return "alive"
	case Gone:
		return "gone"
	}
	return "hidden"
}

// Look says whether n's path still leads to the namespace that it led to when n was taken down. Gone is about the path: the
// namespace may live on where [Elsewhere] finds it, and it means something only for a path that was Alive to this process's
// mount namespace before.
func Look(n attachment.Netns) Sight {
	got, err := look(n.Path)
	switch {
	case n.Path == "":
		return Hidden
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return absent(n.Path)
	case err != nil:
		return Hidden
	}
	same, known := compare(n, got)
	switch {
	case !known:
		return Hidden
	case same:
		return Alive
	}
	return Gone
}

// compare goes by the cookie where both have one. A kernel older than 5.14 gives none, and a zero field is not evidence.
func compare(a, b attachment.Netns) (same, known bool) {
	if a.Cookie != 0 && b.Cookie != 0 {
		return a.Cookie == b.Cookie, true
	}
	if a.Inode != 0 && b.Inode != 0 {
		return a.Inode == b.Inode && a.Device == b.Device, true
	}
	return false, false
}

// look identifies the namespace that path leads to now. It does so on the caller's thread: changing to another one and
// back costs more than all the rest, and every ADD waits for it.
func look(path string) (attachment.Netns, error) {
	runtime.LockOSThread()
	n, err := Identify(path)
	if !errors.Is(err, errLost) { // else the thread stays locked, and ends with the goroutine
		runtime.UnlockOSThread()
	}
	return n, err
}

// absent decides what it means that there is no file at path.
func absent(path string) Sight {
	if target, err := os.Readlink(path); err == nil { // a link that leads nowhere: the question is about its target
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	if strings.HasPrefix(path, "/proc/") {
		// A process that is not in our PID namespace looks like one that ended.
		if inInitialPIDNamespace() {
			return Gone
		}
		return Hidden
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return Hidden
	}
	return Gone
}

// inInitialPIDNamespace goes by the inode number that the kernel fixes for it, PROC_PID_INIT_INO.
// https://github.com/torvalds/linux/blob/v6.1/include/linux/proc_ns.h#L42
func inInitialPIDNamespace() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/pid", &st) == nil && st.Ino == 0xEFFFFFFC
}

// inside runs do on a thread that is in the namespace at path. It passes the namespace's identity, and an open file of the
// caller's own namespace. When the thread cannot be brought home, it is let die with its goroutine.
func inside(path string, do func(id attachment.Netns, home int) error) error {
	fd, st, err := openNS(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		atHome, err := visit(fd, func(home int) error {
			cookie, err := cookie()
			if err != nil {
				return fmt.Errorf("cookie of network namespace %s: %w", path, err)
			}
			return do(attachment.Netns{Path: path, Cookie: cookie, Device: st.Dev, Inode: st.Ino}, home)
		})
		if atHome {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// visit switches the calling thread, which must be locked, into the namespace and back.
func visit(fd int, do func(home int) error) (atHome bool, err error) {
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true, fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err = unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return true, fmt.Errorf("enter network namespace: %w", err)
	}
	err = do(home)
	return unix.Setns(home, unix.CLONE_NEWNET) == nil, err
}

// openNS opens the namespace file at path. A file of another kind is refused before it is entered.
func openNS(path string) (fd int, st unix.Stat_t, err error) {
	// O_NONBLOCK: whatever lies at the path, opening it must not wait.
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, st, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var fs unix.Statfs_t
	if err = unix.Fstatfs(fd, &fs); err == nil && fs.Type != unix.NSFS_MAGIC {
		err = errNotNetns
	}
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil {
		unix.Close(fd)
		return -1, st, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fd, st, nil
}

var errNotNetns = errors.New("not a namespace")

// cookie is SO_NETNS_COOKIE of the namespace that the calling thread is in.
func cookie() (uint64, error) {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	return cookieOf(s)
}

// cookieOf is SO_NETNS_COOKIE of the namespace that a socket was made in, 0 where the kernel has none (before 5.14).
func cookieOf(socket int) (uint64, error) {
	c, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return 0, nil
	}
	return c, err
}
