// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Identify reads what tells the namespace at path from every other: device, inode, and the cookie where the kernel has
// one (Linux 5.14). [Missing] tells whether the error says that there is no namespace at path.
//
// It is for programs that live for one call: it visits the namespace on the calling thread, which takes a fraction of
// the time that another thread needs to start. Should the thread not come home, it stays locked to the goroutine and
// the error says so; the program must end.
func Identify(path string) (attachment.Netns, error) {
	fd, st, err := openNS(path)
	if err != nil {
		return attachment.Netns{}, err
	}
	defer unix.Close(fd)
	n := attachment.Netns{Path: path, Device: st.Dev, Inode: st.Ino}
	runtime.LockOSThread()
	atHome, err := visit(fd, func(int) error {
		n.Cookie, err = cookie()
		return err
	})
	if !atHome {
		return n, errors.Join(err, fmt.Errorf("come home from network namespace %s: the thread is lost", path))
	}
	runtime.UnlockOSThread()
	if err != nil {
		return n, fmt.Errorf("identify network namespace %s: %w", path, err)
	}
	return n, nil
}

// Missing reports whether err, from [Identify], says that path leads to no namespace: there is no file, or the one that
// a mount point leaves behind.
func Missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, errNotNetns)
}

// Own identifies the namespace that the calling thread is in, which is the process's own unless the caller has changed
// it. Path is empty.
func Own() (attachment.Netns, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return attachment.Netns{}, fmt.Errorf("stat the own network namespace: %w", err)
	}
	c, err := cookie()
	if err != nil {
		return attachment.Netns{}, fmt.Errorf("cookie of the own network namespace: %w", err)
	}
	return attachment.Netns{Device: st.Dev, Inode: st.Ino, Cookie: c}, nil
}
