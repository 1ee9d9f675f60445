// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// dumpTries is how often a list is read again that changed while it was read.
const dumpTries = 5

// Forget deletes the neighbour entries for addrs on every link of the namespace at path, so that its next packet to one
// asks anew where it is. Entries that are not there, or that an administrator made permanent, are left alone.
func Forget(path string, addrs []netip.Addr) error {
	return inside(path, func(attachment.Netns, int) error {
		var all []netlink.Neigh
		var err error = netlink.ErrDumpInterrupted
		for tries := 0; errors.Is(err, netlink.ErrDumpInterrupted) && tries < dumpTries; tries++ {
			all, err = netlink.NeighList(0, unix.AF_UNSPEC)
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // an incomplete list is better than none
			return fmt.Errorf("list neighbours: %w", err)
		}
		var errs []error
		for i := range all {
			a, ok := netip.AddrFromSlice(all[i].IP)
			if !ok || all[i].State&unix.NUD_PERMANENT != 0 || !slices.Contains(addrs, a.Unmap()) {
				continue
			}
			if err := netlink.NeighDel(&all[i]); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("delete neighbour %s: %w", a, err))
			}
		}
		return errors.Join(errs...)
	})
}
