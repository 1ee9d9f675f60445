// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Kernels before 5.14 have no cookie; both ways must tell one namespace from another.
func TestBothWaysToKnowANamespace(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	handle, err := byHandle(fd)
	if err != nil || handle.Inode == 0 {
		t.Errorf("byHandle: %+v, %v", handle, err)
	}
	var own unix.Stat_t
	if err = unix.Stat("/proc/thread-self/ns/net", &own); err != nil || own.Ino != handle.Inode || own.Dev != handle.Device {
		t.Errorf("own namespace %d:%d, byHandle %+v, error %v", own.Dev, own.Ino, handle, err)
	}
	cookie, err := byCookie(fd)
	if err != nil || cookie.Cookie == 0 {
		t.Errorf("byCookie: %+v, %v", cookie, err)
	}
}
