// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package vpc

import (
	"maps"
	"slices"
	"time"
)

// store keeps the versions of each object in the order of the time they took effect. Values are immutable once put.
// The zero store is empty.
type store[T any] struct {
	objects map[string][]version[T]
}

type version[T any] struct {
	at    time.Time
	value T
	gone  bool // from here on the object does not exist
}

// put makes v the newest version of the object. Times never decrease; two versions of one moment are one.
func (s *store[T]) put(at time.Time, id string, v T) { s.add(id, version[T]{at: at, value: v}) }

// remove ends the object.
func (s *store[T]) remove(at time.Time, id string) { s.add(id, version[T]{at: at, gone: true}) }

func (s *store[T]) add(id string, v version[T]) {
	if s.objects == nil {
		s.objects = map[string][]version[T]{}
	}
	vs := s.objects[id]
	if n := len(vs); n > 0 && vs[n-1].at.Equal(v.at) {
		vs = vs[:n-1]
	}
	s.objects[id] = append(vs, v)
}

// newest returns the object as the last change left it.
func (s *store[T]) newest(id string) (T, bool) {
	vs := s.objects[id]
	if len(vs) == 0 || vs[len(vs)-1].gone {
		var zero T
		return zero, false
	}
	return vs[len(vs)-1].value, true
}

// asOf returns the object as it was at t.
func (s *store[T]) asOf(t time.Time, id string) (T, bool) {
	vs := s.objects[id]
	for i := len(vs) - 1; i >= 0; i-- {
		if !vs[i].at.After(t) {
			return vs[i].value, !vs[i].gone
		}
	}
	var zero T
	return zero, false
}

// ids returns the IDs of all objects that have versions, sorted.
func (s *store[T]) ids() []string { return slices.Sorted(maps.Keys(s.objects)) }

// allAsOf returns the objects that existed at t, sorted by ID.
func (s *store[T]) allAsOf(t time.Time) []T {
	out := make([]T, 0, len(s.objects))
	for _, id := range s.ids() {
		if v, ok := s.asOf(t, id); ok {
			out = append(out, v)
		}
	}
	return out
}

// all returns the objects that exist now, sorted by ID.
func (s *store[T]) all() []T {
	out := make([]T, 0, len(s.objects))
	for _, id := range s.ids() {
		if v, ok := s.newest(id); ok {
			out = append(out, v)
		}
	}
	return out
}

// prune forgets what no reader at or after horizon can see.
func (s *store[T]) prune(horizon time.Time) {
	for id, vs := range s.objects {
		i := len(vs) - 1
		for i > 0 && vs[i].at.After(horizon) {
			i--
		}
		if vs[i].gone && !vs[i].at.After(horizon) {
			i++
		}
		switch {
		case i == len(vs):
			delete(s.objects, id)
		case i > 0:
			s.objects[id] = slices.Clone(vs[i:])
		}
	}
}
