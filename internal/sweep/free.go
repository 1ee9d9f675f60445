// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
)

const (
	// attempts at one thing. With full jitter up to a minute that is some four minutes of throttling.
	attempts = 8
	// readAttempts bounds what may be lost time: an error of no kind that is known need not pass.
	readAttempts = 4
	// maxBackoff is where waiting stops to grow.
	maxBackoff = time.Minute
	// settleInterval is how long after a lost reply EC2 is read: it shows a change within a second or so.
	settleInterval = 2 * time.Second
)

// freeing is a sweep after its second look: the report of that, which requests and later looks change.
type freeing struct {
	*Sweeper
	options Options
	report  Report
	looked  time.Time // last
}

// freeAll frees the report's orphans, ENI by ENI, and notes what became of them.
func (s *Sweeper) freeAll(ctx context.Context, o Options, report Report) (Report, error) {
	f := &freeing{s, o, report, time.Now()}
	for _, id := range enis(report) {
		for _, v6 := range []bool{false, true} {
			if err := f.free(ctx, id, v6); err != nil {
				return f.report, err
			}
		}
		if ctx.Err() != nil {
			return f.report, context.Cause(ctx)
		}
	}
	return f.report, nil
}

// fresh are the orphans of one family on the ENI, by a look that is recent enough for a request. It repeats one that is not.
func (f *freeing) fresh(ctx context.Context, id eni.ID, v6 bool) ([]netip.Addr, error) {
	if left := f.report.orphansOf(id, v6); len(left) == 0 || time.Since(f.looked) <= freshness {
		return left, nil
	}
	again, err := f.look(ctx, f.options)
	if err != nil {
		return nil, fmt.Errorf("look again before the next request: %w", err)
	}
	f.looked = time.Now()
	f.report.onlyIn(orphans(again), "is no orphan any more")
	return f.report.orphansOf(id, v6), nil
}

// enis have orphans.
func enis(r Report) []eni.ID {
	var ids []eni.ID
	for _, f := range r.Findings {
		if f.Verdict == Orphan && !slices.Contains(ids, f.ENI) {
			ids = append(ids, f.ENI)
		}
	}
	return ids
}

func (r Report) orphansOf(id eni.ID, v6 bool) []netip.Addr {
	var addrs []netip.Addr
	for _, f := range r.Findings {
		if f.Verdict == Orphan && f.ENI == id && f.Address.Is6() == v6 {
			addrs = append(addrs, f.Address)
		}
	}
	return addrs
}

// outcome is what became of an address.
type outcome struct {
	verdict Verdict
	reason  string // none: the finding's own
}

func (r Report) note(id eni.ID, addrs []netip.Addr, became outcome) {
	for i, f := range r.Findings {
		if f.ENI == id && f.Verdict == Orphan && slices.Contains(addrs, f.Address) {
			r.Findings[i].Verdict, r.Findings[i].Reason = became.verdict, cmp.Or(became.reason, f.Reason)
		}
	}
}

// free takes the orphans of one family from the ENI. After a refusal because one of them is not there, and after a lost reply, it
// reads what is left and goes on with that. The request names the ENI, so that an address which has moved stays where it is. Each
// request, and each time that EC2 throttles it, is about what is an orphan by then. The error is that of a look.
func (f *freeing) free(ctx context.Context, id eni.ID, v6 bool) error {
	unassign := f.EC2.Unassign
	if v6 {
		unassign = f.EC2.UnassignIPv6
	}
	var left []netip.Addr
	var err, blind error
	for range attempts {
		err = patiently(ctx, func() error {
			if left, blind = f.fresh(ctx, id, v6); blind != nil || len(left) == 0 {
				return nil
			}
			f.options.Tell(fmt.Sprintf("freeing %d addresses of %s", len(left), id))
			return unassign(ctx, id, left)
		})
		away := outcome{verdict: Freed}
		switch {
		case blind != nil:
			return blind
		case err == nil:
			f.report.note(id, left, away)
			return nil
		case errors.Is(err, eni.ErrNotAssigned):
			away = outcome{Gone, "was given back meanwhile"}
		case !errors.Is(err, eni.ErrOutcomeUnknown):
			f.report.note(id, left, outcome{Failed, err.Error()})
			return nil
		}
		held, readErr := f.held(ctx, id)
		if readErr != nil {
			f.report.note(id, left, outcome{Failed, errors.Join(err, readErr).Error()})
			return nil
		}
		f.report.note(id, slices.DeleteFunc(slices.Clone(left), func(a netip.Addr) bool { return slices.Contains(held, a) }), away)
	}
	f.report.note(id, left, outcome{Failed, err.Error()})
	return nil
}

// held are the addresses that the ENI has a moment after a change; none when it is gone.
func (s *Sweeper) held(ctx context.Context, id eni.ID) (addrs []netip.Addr, err error) {
	if err = pause(ctx, settleInterval); err != nil {
		return nil, err
	}
	var found []eni.Interface
	err = reading(ctx, func() (readErr error) {
		found, readErr = s.EC2.Interfaces(ctx, []eni.ID{id})
		return readErr
	})
	for _, i := range found {
		addrs = slices.Concat(addrs, i.Secondary, i.IPv6)
	}
	return addrs, err
}

// patiently repeats what EC2 throttles.
func patiently(ctx context.Context, call func() error) error {
	for n := 0; ; n++ {
		err := call()
		if n == attempts-1 || !errors.Is(err, eni.ErrThrottled) {
			return err
		}
		if stopped := backOff(ctx, n); stopped != nil {
			return fmt.Errorf("%w; %w", stopped, err)
		}
	}
}

// reading repeats a read of EC2: what it throttles, and what may have been the network or a fault of its own. The client under
// it repeats nothing.
func reading(ctx context.Context, call func() error) error {
	for n := 0; ; n++ {
		err := patiently(ctx, call)
		if err == nil || n == readAttempts-1 || errors.Is(err, eni.ErrThrottled) || errors.Is(err, eni.ErrUnauthorized) || errors.Is(err, eni.ErrNotFound) {
			return err
		}
		if stopped := backOff(ctx, n); stopped != nil {
			return fmt.Errorf("%w; %w", stopped, err)
		}
	}
}

// backOff waits before attempt n+2, with full jitter.
func backOff(ctx context.Context, n int) error {
	return pause(ctx, rand.N(min(maxBackoff, time.Second<<n)))
}
