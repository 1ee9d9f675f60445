// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"runtime"

	"github.com/containernetworking/plugins/pkg/netlinksafe"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// watchLinks returns as soon as an interface appears in the namespace of an ADD, and makes that ADD the prey. It looks
// all the time, with one socket for each namespace: the plugin renames what it has made at once.
func (n *node) watchLinks(ctx context.Context, a *ambush) error {
	sockets := map[*call]netlinksafe.Handle{}
	defer func() {
		for _, h := range sockets {
			h.Close()
		}
	}()
	for ctx.Err() == nil {
		for _, c := range n.calls.inFlight() {
			if c.command != "ADD" {
				continue
			}
			h, ok := sockets[c]
			if !ok {
				var err error
				if h, err = pod.Handle(c.netns); err != nil {
					continue // the ADD is over, and its pod too
				}
				sockets[c] = h
			}
			if links, err := h.LinkList(); err == nil && len(links) > 1 {
				a.prey = func([]*call) *call { return c }
				return nil
			}
		}
		runtime.Gosched()
	}
	return context.Cause(ctx)
}
