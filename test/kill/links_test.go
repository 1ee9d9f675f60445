// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"runtime"

	"github.com/containernetworking/plugins/pkg/netlinksafe"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

// watchLinks returns as soon as an interface appears in the namespace of an ADD, and makes that ADD the prey. It looks
// all the time, with one socket for each namespace: the plugin renames what it has made at once.
func (n *node) watchLinks(ctx context.Context, a *ambush) error {
	sockets := map[*stage.Call]netlinksafe.Handle{}
	defer func() {
		for _, h := range sockets {
			h.Close()
		}
	}()
	for ctx.Err() == nil {
		for _, c := range n.runtime.InFlight() {
			if c.Command != "ADD" {
				continue
			}
			h, ok := sockets[c]
			if !ok {
				var err error
				if h, err = pod.Handle(c.Netns); err != nil {
					continue // the ADD is over, and its pod too
				}
				sockets[c] = h
			}
			if links, err := h.LinkList(); err == nil && len(links) > 1 {
				a.prey = func([]*stage.Call) *stage.Call { return c }
				return nil
			}
		}
		runtime.Gosched()
	}
	return context.Cause(ctx)
}
