// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubeinject

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// memo remembers answers for the time of memory. The zero value is ready.
type memo[T any] struct {
	calls singleflight.Group
	mu    sync.Mutex
	known map[string]remembered[T]
}

type remembered[T any] struct {
	value T
	until time.Time
}

// get asks once for all who want the same at the same time. ask says whether its answer may be remembered. A caller that leaves
// does not take the answer from the others.
func (m *memo[T]) get(ctx context.Context, key string, ask func(context.Context) (T, bool, error)) (T, error) {
	m.mu.Lock()
	r, ok := m.known[key]
	m.mu.Unlock()
	if ok && time.Now().Before(r.until) {
		return r.value, nil
	}
	answer := m.calls.DoChan(key, func() (any, error) {
		value, keep, err := ask(context.WithoutCancel(ctx)) // the client has a time-out of its own
		if err == nil && keep {
			m.keep(key, value)
		}
		return value, err
	})
	var none T
	select {
	case a := <-answer:
		if a.Err != nil {
			return none, a.Err
		}
		return a.Val.(T), nil
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// keep also forgets what is old, so that the memory is no larger than what a few seconds ask for.
func (m *memo[T]) keep(key string, value T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(m.known, func(_ string, r remembered[T]) bool { return !now.Before(r.until) })
	if m.known == nil {
		m.known = map[string]remembered[T]{}
	}
	m.known[key] = remembered[T]{value, now.Add(memory)}
}
