// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package guard

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// pacer lets each network namespace do something burst times at once, and once an interval in the long run.
type pacer struct {
	interval time.Duration
	burst    time.Duration // in intervals

	mu sync.Mutex
	// at is when the next one would be due if there were no burst: the "theoretical arrival time" of the generic cell rate
	// algorithm (ITU-T I.371), one number for each namespace.
	at map[attachment.Netns]time.Time
}

func newPacer(interval time.Duration, burst int) *pacer {
	return &pacer{interval: interval, burst: time.Duration(burst), at: map[attachment.Netns]time.Time{}}
}

// forgetAbove is how many namespaces are remembered before those are forgotten that have not asked for a while.
const forgetAbove = 64

// wait returns when it is the namespace's turn, or with ctx's error. Who gives up did nothing, and gives its turn back: else a storm of
// claims that are given up would leave a queue of nobody in front of the next one.
func (p *pacer) wait(ctx context.Context, n attachment.Netns) error {
	now := time.Now()
	p.mu.Lock()
	if len(p.at) > forgetAbove {
		maps.DeleteFunc(p.at, func(_ attachment.Netns, at time.Time) bool { return at.Before(now) })
	}
	at := p.at[n]
	if at.Before(now) {
		at = now
	}
	p.at[n] = at.Add(p.interval)
	p.mu.Unlock()
	pause := at.Sub(now) - (p.burst-1)*p.interval
	if pause <= 0 {
		return nil
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		p.at[n] = p.at[n].Add(-p.interval)
		return fmt.Errorf("this network namespace asks too often: %w", context.Cause(ctx))
	}
}
