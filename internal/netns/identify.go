// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Identify reads what tells the namespace at path from every other: device, inode, and the cookie where the kernel has
// one (Linux 5.14).
//
// It is for programs that live for one call, and for goroutines that are locked to their thread: it visits the namespace on
// the calling thread, which takes a fraction of the time that another thread needs to start. Should the thread not come
// home, the error says so, and the thread must end.
func Identify(path string) (attachment.Netns, error) {
	fd, st, err := openNS(path)
	if err != nil {
		return attachment.Netns{}, err
	}
	defer unix.Close(fd)
	n := attachment.Netns{Path: path, Device: st.Dev, Inode: st.Ino}
	s, err := socketIn(fd)
	if err != nil {
		return n, fmt.Errorf("identify network namespace %s: %w", path, err)
	}
	defer unix.Close(s)
	if n.Cookie, err = cookieOf(s); err != nil {
		return n, fmt.Errorf("cookie of network namespace %s: %w", path, err)
	}
	return n, nil
}

// socketIn makes a socket in a namespace; it stays a socket of that namespace wherever it is used.
//
// Nothing of Go's scheduler runs between the raw system calls, unless it interrupts the goroutine after 10 ms: so they are
// made by one thread, as the thread's number proves afterwards. Locking the goroutine to the thread would say the same, and
// in a new process start another thread for it.
func socketIn(ns int) (int, error) {
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(home)
	thread := unix.Gettid()
	if _, _, errno := unix.RawSyscall(unix.SYS_SETNS, uintptr(ns), unix.CLONE_NEWNET, 0); errno != 0 {
		return -1, fmt.Errorf("enter network namespace: %w", errno)
	}
	s, _, made := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	_, _, returned := unix.RawSyscall(unix.SYS_SETNS, uintptr(home), unix.CLONE_NEWNET, 0)
	switch {
	case returned != 0:
		return -1, fmt.Errorf("%w: come home from network namespace: %w", errLost, returned)
	case unix.Gettid() != thread:
		return -1, errLost
	case made != 0:
		return -1, fmt.Errorf("make a socket: %w", made)
	}
	return int(s), nil
}

var errLost = errors.New("a thread is lost in a network namespace")

// IsOwn reports whether path leads to the namespace of the calling thread, which is the process's own unless the caller has
// changed it. Both are there, so that their inode numbers tell them apart. A path that leads nowhere does not.
func IsOwn(path string) (bool, error) {
	var own, other unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return false, fmt.Errorf("stat the own network namespace: %w", err)
	}
	err := unix.Stat(path, &other)
	return err == nil && own.Dev == other.Dev && own.Ino == other.Ino, nil
}
