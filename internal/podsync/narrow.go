// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync

import (
	"context"
	"net/netip"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// Narrow is the pod as if it had nothing but the addresses in the ranges on the interface of that name: for a network that says what
// floats on it, in a pod of which nothing else is this syncer's business.
func Narrow(pod Pod, ifName string, ranges []attachment.Range) Pod {
	return narrow{pod, ifName, ranges}
}

type narrow struct {
	Pod
	ifName string
	ranges []attachment.Range
}

func (n narrow) within(a netip.Addr) bool {
	return slices.ContainsFunc(n.ranges, func(r attachment.Range) bool { return r.Contains(a) })
}

func (n narrow) Interfaces() ([]attachment.Interface, error) {
	all, err := n.Pod.Interfaces()
	if err != nil {
		return nil, err
	}
	var mine []attachment.Interface
	for _, i := range all {
		if i.Name != n.ifName {
			continue
		}
		i.Addresses = slices.DeleteFunc(slices.Clone(i.Addresses), func(p netip.Prefix) bool { return !n.within(p.Addr()) })
		mine = append(mine, i)
	}
	return mine, nil
}

// Watch leaves out changes of other addresses; those of other interfaces the syncer does not know by their index, and looks.
func (n narrow) Watch(ctx context.Context, tell func(attachment.Change)) error {
	return n.Pod.Watch(ctx, func(c attachment.Change) {
		if c == (attachment.Change{}) || n.within(c.Addr.Addr()) {
			tell(c)
		}
	})
}
