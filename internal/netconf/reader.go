// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// reader collects problems while objects are read. Reading goes on after a problem, so that all are found at once.
type reader struct{ problems Problems }

// object is a JSON object at a path. Keys are matched exactly; null counts as absent.
type object struct {
	r      *reader
	path   string
	fields map[string]json.RawMessage
}

// open decodes the document.
func (r *reader) open(doc []byte) (object, bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(doc, &fields); err != nil {
		r.add(types.ErrDecodingFailure, "", "network configuration is not a JSON object: %v", err)
		return object{}, false
	}
	return object{r: r, fields: fields}, true
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

// value decodes key into T; absent gives the zero value, another JSON type is a problem that says what is wanted.
func value[T any](o object, key, want string) (v T, found bool) {
	raw := o.raw(key)
	if raw == nil {
		return v, false
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		o.r.invalid(o.at(key), "%s is not %s", show(raw), want)
		var zero T
		return zero, false
	}
	return v, true
}

func (o object) text(key string) string {
	v, _ := value[string](o, key, "a string")
	return v
}

func (o object) texts(key string) ([]string, bool) {
	return value[[]string](o, key, "a list of strings")
}

// strings is a list of strings, or a single one.
func (o object) strings(key, want string) []string {
	if raw := o.raw(key); len(raw) == 0 || raw[0] != '"' {
		list, _ := value[[]string](o, key, want)
		return list
	}
	return []string{o.text(key)}
}

func (o object) flag(key string, unset bool) bool {
	if v, found := value[bool](o, key, "true or false"); found {
		return v
	}
	return unset
}

// count is a whole number in [low, high]; nil when absent or wrong.
func (o object) count(key string, low, high int) *int {
	v, found := value[int](o, key, "a whole number")
	if !found {
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
	fields, found := value[map[string]json.RawMessage](o, key, "an object")
	return object{r: o.r, path: o.at(key), fields: fields}, found
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
