// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/neighbour"
)

// announcer tells the pods on the same ENI where an address is, in the order in which it went and came. The node agent does
// better than that where there is one.
type announcer struct {
	log   *slog.Logger
	queue chan move
	tell  func(context.Context, attachment.Interface, netip.Addr, bool) (int, error)
}

// move is an address that came to an interface or went from it.
type move struct {
	by   attachment.Interface
	addr netip.Addr
	here bool
	due  time.Time // told again then: neighbours may still have been under lock
}

// newAnnouncer makes one that nobody runs yet. What comes before is kept, up to some hundred moves.
func newAnnouncer(log *slog.Logger) *announcer {
	const queued = 256
	return &announcer{log: log, queue: make(chan move, queued), tell: neighbour.Tell}
}

// moved queues a move. It does not wait: of very many, some neighbours find out by themselves.
func (a *announcer) moved(by attachment.Interface, addr netip.Addr, here bool) {
	select {
	case a.queue <- move{by: by, addr: addr, here: here}:
	default:
	}
}

// run tells of moves until ctx ends, and then of those that are still queued.
func (a *announcer) run(ctx context.Context) {
	again := map[netip.Addr]move{}
	tick := time.NewTicker(neighbour.LockTime / 4)
	defer tick.Stop()
	quiet := false
	for {
		select {
		case m := <-a.queue:
			quiet = quiet || !a.announce(ctx, m)
			m.due = time.Now().Add(neighbour.LockTime)
			again[m.addr] = m
		case now := <-tick.C:
			for addr, m := range again {
				if now.Before(m.due) {
					continue
				}
				delete(again, addr)
				quiet = quiet || !a.announce(ctx, m)
			}
		case <-ctx.Done():
			a.drain(context.WithoutCancel(ctx), quiet)
			return
		}
		if quiet { // no right to do so now means none later
			a.drain(ctx, quiet)
			clear(again)
		}
	}
}

// drain tells of what is queued, or forgets it.
func (a *announcer) drain(ctx context.Context, quiet bool) {
	for {
		select {
		case m := <-a.queue:
			quiet = quiet || !a.announce(ctx, m)
		default:
			return
		}
	}
}

// announce tells of one move. It reports whether there is any use in going on.
func (a *announcer) announce(ctx context.Context, m move) bool {
	told, err := a.tell(ctx, m.by, m.addr, m.here)
	switch {
	case errors.Is(err, neighbour.ErrNotPermitted):
		a.log.Info("pods on the same ENI find out by themselves when an address has moved, within a minute", "reason", err)
		return false
	case err != nil:
		a.log.Warn("pods on the same ENI not told where an address is", "ip", m.addr, "error", err)
	case told > 0:
		a.log.Debug("pods on the same ENI told where an address is", "ip", m.addr, "here", m.here, "pods", told)
	}
	return true
}
