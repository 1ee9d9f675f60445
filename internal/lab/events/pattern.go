// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Pattern says which events a rule is for. The zero Pattern matches none.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html
type Pattern struct{ root object }

// object has a matcher for each field that it says something of: an object or a list of filters.
type object map[string]any

// filter is one alternative of a field's list.
type filter func(value any, exists bool) bool

// ParsePattern reads a pattern of JSON. Known are exact values and the filters prefix, suffix, exists and anything-but
// (of values). Everything else is an error that names the field.
func ParsePattern(text []byte) (Pattern, error) {
	doc, err := decode(text)
	if err != nil {
		return Pattern{}, fmt.Errorf("parse event pattern: %w", err)
	}
	if len(doc) == 0 {
		return Pattern{}, errors.New("parse event pattern: it is empty")
	}
	root, err := parseObject(doc, "")
	if err != nil {
		return Pattern{}, fmt.Errorf("parse event pattern: %w", err)
	}
	return Pattern{root: root}, nil
}

// decode reads one object, with numbers as they are written.
func decode(text []byte) (doc map[string]any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&doc); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return doc, nil
}

func parseObject(doc map[string]any, path string) (object, error) {
	out := object{}
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		switch v := doc[name].(type) {
		case map[string]any:
			if len(v) == 0 {
				return nil, fmt.Errorf("%s: an object must have a field", at)
			}
			inner, err := parseObject(v, at)
			if err != nil {
				return nil, err
			}
			out[name] = inner
		case []any:
			if len(v) == 0 {
				return nil, fmt.Errorf("%s: a list must have a value", at)
			}
			var filters []filter
			for _, one := range v {
				f, err := parseFilter(one, at)
				if err != nil {
					return nil, err
				}
				filters = append(filters, f)
			}
			out[name] = filters
		default:
			return nil, fmt.Errorf("%s: must be an object or a list", at)
		}
	}
	return out, nil
}

func parseFilter(v any, at string) (filter, error) {
	switch v := v.(type) {
	case string, json.Number, bool, nil:
		return exactly(v), nil
	case map[string]any:
		if len(v) != 1 {
			return nil, fmt.Errorf("%s: a filter has one key", at)
		}
		for name, operand := range v {
			return parseOperator(name, operand, at)
		}
	}
	return nil, fmt.Errorf("%s: lists in lists match nothing", at)
}

func exactly(want any) filter {
	return func(got any, exists bool) bool { return exists && reflect.DeepEqual(got, want) }
}

func parseOperator(name string, operand any, at string) (filter, error) {
	text, isText := operand.(string)
	switch name {
	case "prefix", "suffix":
		if !isText {
			return nil, fmt.Errorf("%s: the filter %s takes a string", at, name)
		}
		test := strings.HasPrefix
		if name == "suffix" {
			test = strings.HasSuffix
		}
		return func(got any, _ bool) bool {
			s, ok := got.(string)
			return ok && test(s, text)
		}, nil
	case "exists":
		want, ok := operand.(bool)
		if !ok {
			return nil, fmt.Errorf("%s: the filter exists takes true or false", at)
		}
		return func(_ any, exists bool) bool { return exists == want }, nil
	case "anything-but":
		values, ok := operand.([]any)
		if !ok {
			values = []any{operand}
		}
		for _, v := range values {
			switch v.(type) {
			case string, json.Number:
			default:
				return nil, fmt.Errorf("%s: the filter anything-but of other than strings and numbers is not implemented", at)
			}
		}
		return func(got any, exists bool) bool {
			return exists && !slices.ContainsFunc(values, func(v any) bool { return reflect.DeepEqual(v, got) })
		}, nil
	}
	return nil, fmt.Errorf("%s: the filter %q is not implemented", at, name)
}

// Matches reports whether the event, as JSON, has all that the pattern asks for.
func (p Pattern) Matches(event []byte) bool {
	doc, err := decode(event)
	return err == nil && p.root != nil && p.root.matches(doc)
}

func (o object) matches(doc map[string]any) bool {
	for name, want := range o {
		got, exists := doc[name]
		switch want := want.(type) {
		case object:
			inner, _ := got.(map[string]any) // of what is no object, no field exists
			if !want.matches(inner) {
				return false
			}
		case []filter:
			if !slices.ContainsFunc(want, func(f filter) bool { return f.meets(got, exists) }) {
				return false
			}
		}
	}
	return true
}

// meets reports whether the filter accepts a value, or any element of a list.
// https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns-arrays.html
func (f filter) meets(got any, exists bool) bool {
	if list, ok := got.([]any); ok {
		return slices.ContainsFunc(list, func(one any) bool { return f(one, true) })
	}
	return f(got, exists)
}
