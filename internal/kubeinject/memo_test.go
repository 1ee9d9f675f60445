// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubeinject

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// source counts how often it is asked. It takes a second to answer.
type source struct {
	mu    sync.Mutex
	asked int
	keep  bool
	err   error
}

func (s *source) ask(context.Context) (int, bool, error) {
	time.Sleep(time.Second) // in a bubble
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.asked, s.keep, s.err
}

func TestAnAnswerIsRememberedForSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memo[int]
		s := &source{keep: true}
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 1}, {memory - time.Millisecond, 1}, {time.Millisecond, 2}, {time.Hour, 3}} {
			time.Sleep(step.after)
			if got, err := m.get(t.Context(), "a", s.ask); got != step.want || err != nil {
				t.Errorf("%d, %v; want %d", got, err, step.want)
			}
		}
		if len(m.known) != 1 {
			t.Errorf("%d answers are remembered", len(m.known))
		}
	})
}

func TestWhatIsNotThereAndWhatFailedIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, s := range []*source{{keep: false}, {keep: true, err: errors.New("away")}} {
			var m memo[int]
			for range 2 {
				if _, err := m.get(t.Context(), "a", s.ask); !errors.Is(err, s.err) {
					t.Error(err)
				}
			}
			if s.asked != 2 {
				t.Errorf("asked %d times", s.asked)
			}
		}
	})
}

func TestManyWhoAskAtOnceAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memo[int]
		s := &source{keep: true}
		var all sync.WaitGroup
		for i := range 100 {
			ctx := t.Context()
			if i == 0 { // the one that asks for all leaves
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
				defer cancel()
			}
			all.Go(func() {
				got, err := m.get(ctx, "a", s.ask)
				if i == 0 && !errors.Is(err, context.DeadlineExceeded) || i > 0 && (got != 1 || err != nil) {
					t.Errorf("%d: %d, %v", i, got, err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		if s.asked != 1 {
			t.Errorf("asked %d times", s.asked)
		}
	})
}
