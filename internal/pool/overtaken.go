// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

// lookTimeout bounds the one read of [Node.overtaken].
const lookTimeout = 5 * time.Second

// overtaken makes a contest of a claim that EC2 said yes to and never showed, because another worker claimed the same address at
// that very time: to claim it again would take it back, and go on for ever. The error is that of the claim otherwise.
func (n *Node) overtaken(ctx context.Context, p *iface, w *waiter, err error) error {
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok || refusal.Reason != NotReady {
		return err
	}
	a := w.exact[0]
	n.mu.Lock()
	said := p.state(single(a)) == ownership.Assigning
	n.mu.Unlock()
	if !said {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout) // the claim's own time is over
	defer cancel()
	owners, readErr := n.ports.EC2.Owners(ctx, p.subnet.ID, []netip.Addr{a})
	if readErr != nil {
		return err
	}
	owner, owned := owners[a]
	if !owned || owner == p.id {
		return err
	}
	return &Refusal{Taken, fmt.Sprintf("address %s is held by another ENI: %s, which got it at the same time", a, owner)}
}
