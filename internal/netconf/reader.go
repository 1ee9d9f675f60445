// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/plainjson"
)

// reader collects problems while objects are read. Reading goes on after a problem, so that all are found at once.
type reader struct{ problems Problems }

// object is a JSON object at a path. Keys are matched exactly; null counts as absent.
type object struct {
	r      *reader
	path   string
	fields map[string]json.RawMessage
}

func (o object) at(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

// raw is the value of key, nil when absent or null.
func (o object) raw(key string) json.RawMessage {
	if v := o.fields[key]; !bytes.Equal(v, []byte("null")) {
		return v
	}
	return nil
}

func (o object) has(key string) bool { return o.raw(key) != nil }

// only reports every key that is neither in valid nor tolerated.
func (o object) only(valid []string, tolerated func(string) bool) {
	for _, key := range slices.Sorted(maps.Keys(o.fields)) {
		if slices.Contains(valid, key) || (tolerated != nil && tolerated(key)) {
			continue
		}
		o.r.unsupported(o.at(key), "unknown key (value %s); the nearest valid key is %q", show(o.fields[key]), nearest(key, valid))
	}
}

func (o object) text(key string) string {
	s, _ := o.given(key, "a string")
	return s
}

// given is a string, and whether it is there.
func (o object) given(key, want string) (s string, found bool) {
	raw := o.raw(key)
	if raw == nil {
		return "", false
	}
	s, ok := plainjson.String(raw)
	if !ok {
		o.r.invalid(o.at(key), "%s is not %s", show(raw), want)
	}
	return s, ok
}

func (o object) texts(key string) ([]string, bool) {
	return o.list(key, "a list of strings")
}

// list is a list of strings, and whether it is there.
func (o object) list(key, want string) (list []string, found bool) {
	raw := o.raw(key)
	if raw == nil {
		return nil, false
	}
	elements, ok := plainjson.Array(raw)
	for _, v := range elements {
		s, isText := plainjson.String(v)
		list, ok = append(list, s), ok && isText
	}
	if !ok {
		o.r.invalid(o.at(key), "%s is not %s", show(raw), want)
		return nil, false
	}
	return list, true
}

// strings is a list of strings, or a single one.
func (o object) strings(key, want string) []string {
	if raw := o.raw(key); len(raw) == 0 || raw[0] != '"' {
		list, _ := o.list(key, want)
		return list
	}
	return []string{o.text(key)}
}

func (o object) flag(key string, unset bool) bool {
	switch raw := o.raw(key); {
	case raw == nil:
		return unset
	case string(raw) == "true" || string(raw) == "false":
		return string(raw) == "true"
	default:
		o.r.invalid(o.at(key), "%s is not true or false", show(raw))
		return unset
	}
}

// count is a whole number in [low, high]; nil when absent or wrong.
func (o object) count(key string, low, high int) *int {
	raw := o.raw(key)
	if raw == nil {
		return nil
	}
	v, ok := plainjson.Int(raw)
	if !ok {
		o.r.invalid(o.at(key), "%s is not a whole number", show(raw))
		return nil
	}
	if v < low || v > high {
		o.r.invalid(o.at(key), "%d is not between %d and %d", v, low, high)
		return nil
	}
	return &v
}

// number is a whole number up to high; 0 when absent or wrong.
func (o object) number(key string, high int) int {
	if v := o.count(key, 0, high); v != nil {
		return *v
	}
	return 0
}

func (o object) object(key string) (object, bool) {
	inner := object{r: o.r, path: o.at(key)}
	raw := o.raw(key)
	if raw == nil {
		return inner, false
	}
	var ok bool
	if inner.fields, ok = split(raw); !ok {
		o.r.invalid(inner.path, "%s is not an object", show(raw))
	}
	return inner, ok
}

// inner is an object in an object, empty when one of them is absent.
func (o object) inner(keys ...string) object {
	for _, key := range keys {
		o, _ = o.object(key)
	}
	return o
}

// show is a JSON value for an error message: on one line, cut when long.
func show(raw json.RawMessage) string {
	const limit = 80
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "?"
	}
	if b.Len() > limit {
		return strings.ToValidUTF8(b.String()[:limit], "") + "…"
	}
	return b.String()
}
