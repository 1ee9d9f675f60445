// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2eni

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

// call is one or more calls of a client, with the error of the last.
type call func(context.Context, *world) error

// outcome is what a call that fails must lead to.
type outcome struct {
	ec2     scenario.EC2
	do      call
	want    error  // nil: an error of none of the sentinels
	code    string // of the last request
	applied int    // how much w-1's ENI holds after it, besides its primary address
}

// wantOutcomes runs each case in a world and a bubble of its own, where a slow answer takes a minute.
func wantOutcomes(t *testing.T, cases map[string]outcome) {
	t.Helper()
	sentinels := []error{
		eni.ErrAddressInUse, eni.ErrSlotsFull, eni.ErrSubnetFull, eni.ErrNoPrefix, eni.ErrThrottled, eni.ErrNotFound,
		eni.ErrNotAssigned, eni.ErrUnauthorized, eni.ErrOutcomeUnknown,
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if len(tc.ec2.Faults) > 0 && tc.ec2.Faults[0].Kind == front.Slow {
					tc.ec2.Faults[0].Delay = time.Minute
				}
				w := newWorld(t, tc.ec2)
				err := tc.do(t.Context(), w)
				if err == nil {
					t.Fatal("no error")
				}
				for _, s := range sentinels {
					if is, want := errors.Is(err, s), errors.Is(s, tc.want) && tc.want != nil; is != want {
						t.Errorf("errors.Is(err, %q) = %v, want %v, for: %v", s, is, want, err)
					}
				}
				if got := w.outcomes(); len(got) == 0 || !strings.HasSuffix(got[len(got)-1], " "+tc.code) {
					t.Errorf("calls %q, want the last to end in %q", got, tc.code)
				}
				if got := w.holdsAll(w.eni("w-1")); len(got) != tc.applied {
					t.Errorf("the ENI holds %v, want %d", got, tc.applied)
				}
				w.wantOneRequestEach(t)
			})
		})
	}
}

func cancelledAfter(d time.Duration, do call) call {
	return func(ctx context.Context, w *world) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if d == 0 {
			cancel()
		} else {
			defer time.AfterFunc(d, cancel).Stop()
		}
		return do(ctx, w)
	}
}

// after makes the first calls succeed and is the last.
func after(calls ...call) call {
	return func(ctx context.Context, w *world) error {
		for _, do := range calls[:len(calls)-1] {
			if err := do(ctx, w); err != nil {
				return errors.New("before the test: " + err.Error()) // must not look like what is tested
			}
		}
		return calls[len(calls)-1](ctx, w)
	}
}
