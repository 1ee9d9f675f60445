// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package link

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A container that is not privileged sees its own /proc/sys read-only. With the host's beside it, a link that comes up believes no
// advertisements; without, Up says so.
func TestUpKeepsRouterAdvertisementsOutFromAContainer(t *testing.T) {
	for _, given := range []bool{true, false} {
		root := t.TempDir()
		asWorker(t, func(t *testing.T) {
			eth1 := addVeth(t, "eth1", "0a:00:00:00:00:01")
			if err := contain(root, given); err != nil {
				t.Error(err)
				return
			}
			err := Up(eth1, 0)
			if !given {
				if !errors.Is(err, ErrAdvertisements) || !errors.Is(err, unix.EROFS) {
					t.Errorf("without the host's folder: %v, want %v of a read-only file", err, ErrAdvertisements)
				}
				return
			}
			if err != nil {
				t.Error(err)
			}
			got, err := os.ReadFile(filepath.Join(sysctlDir, "ipv6/conf/eth1/accept_ra"))
			if err != nil || strings.TrimSpace(string(got)) != "0" {
				t.Errorf("accept_ra is %q, %v; want 0", got, err)
			}
		})
	}
}

// contain gives the thread the files that a container would have: /proc with a read-only /proc/sys and, when given, the host's
// /proc/sys/net. The mounts go with the thread.
func contain(root string, given bool) error {
	proc, sys, host := filepath.Join(root, "proc"), filepath.Join(root, "proc/sys"), filepath.Join(root, hostSysctlDir)
	if err := errors.Join(os.Mkdir(proc, 0o755), os.MkdirAll(host, 0o755)); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	type mount struct {
		from, at string
		flags    uintptr
	}
	mounts := []mount{
		{"", "/", unix.MS_REC | unix.MS_PRIVATE},
		{"/proc", proc, unix.MS_BIND},
		{sys, sys, unix.MS_BIND},
		{"", sys, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
	}
	if given {
		mounts = append(mounts, mount{sysctlDir, host, unix.MS_BIND})
	}
	for _, m := range mounts {
		if err := unix.Mount(m.from, m.at, "", m.flags, ""); err != nil {
			return err
		}
	}
	return unix.Chroot(root)
}
