// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sweep

import (
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

// freeAll frees the report's orphans, ENI by ENI, and notes what became of them. Before an ENI, an old look is repeated.
func (s *Sweeper) freeAll(ctx context.Context, o Options, report Report) (Report, error) {
	looked := time.Now()
	for _, id := range enis(report) {
		if time.Since(looked) > freshness {
			again, err := s.look(ctx, o)
			if err != nil {
				return report, fmt.Errorf("look again before the next ENI: %w", err)
			}
			looked = time.Now()
			report.onlyIn(orphans(again), "is no orphan any more")
		}
		for _, v6 := range []bool{false, true} {
			addrs := report.orphansOf(id, v6)
			if len(addrs) == 0 {
				continue
			}
			o.Tell(fmt.Sprintf("freeing %d addresses of %s", len(addrs), id))
			report.note(id, s.free(ctx, id, v6, addrs))
		}
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
	}
	return report, nil
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

func (r Report) note(id eni.ID, became map[netip.Addr]outcome) {
	for i, f := range r.Findings {
		if o, ok := became[f.Address]; ok && f.ENI == id && f.Verdict == Orphan {
			r.Findings[i].Verdict = o.verdict
			if o.reason != "" {
				r.Findings[i].Reason = o.reason
			}
		}
	}
}

// free takes addresses of one family from the ENI. After a refusal because one of them is not there, and after a lost reply, it
// reads what is left and goes on with that. The request names the ENI, so that an address which has moved stays where it is.
func (s *Sweeper) free(ctx context.Context, id eni.ID, v6 bool, left []netip.Addr) map[netip.Addr]outcome {
	became := map[netip.Addr]outcome{}
	settle := func(addrs []netip.Addr, o outcome) {
		for _, a := range addrs {
			became[a] = o
		}
	}
	unassign := s.EC2.Unassign
	if v6 {
		unassign = s.EC2.UnassignIPv6
	}
	var err error
	for range attempts {
		err = patiently(ctx, func() error { return unassign(ctx, id, left) })
		away := outcome{verdict: Freed}
		switch {
		case err == nil:
			settle(left, away)
			return became
		case errors.Is(err, eni.ErrNotAssigned):
			away = outcome{Gone, "was given back meanwhile"}
		case !errors.Is(err, eni.ErrOutcomeUnknown):
			settle(left, outcome{Failed, err.Error()})
			return became
		}
		held, readErr := s.held(ctx, id)
		if readErr != nil {
			settle(left, outcome{Failed, errors.Join(err, readErr).Error()})
			return became
		}
		still := func(a netip.Addr) bool { return slices.Contains(held, a) }
		settle(slices.DeleteFunc(slices.Clone(left), still), away)
		left = slices.DeleteFunc(slices.Clone(left), func(a netip.Addr) bool { return !still(a) })
		if len(left) == 0 {
			return became
		}
	}
	settle(left, outcome{Failed, err.Error()})
	return became
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
