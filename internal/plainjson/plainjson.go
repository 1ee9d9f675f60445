// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package plainjson splits and writes JSON without reflection. The plugins use it for what every ADD and DEL reads and
// writes: they live for one call, and the tables that encoding/json builds for each Go type when it first meets it were a
// sixth of that life (docs/adr/0029). It judges nothing: input must have passed [json.Valid], which costs next to nothing, and what it
// cannot take quickly it leaves to encoding/json. Types of their own do not belong here.
package plainjson

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Member is a key of an object with its value.
type Member struct {
	Key   string
	Value json.RawMessage
}

// Object returns the members of a valid JSON object in their order; ok is false when it is another value.
func Object(valid []byte) (members []Member, ok bool) {
	rest := space(valid)
	if len(rest) == 0 || rest[0] != '{' {
		return nil, false
	}
	for rest = space(rest[1:]); rest[0] != '}'; rest = next(rest) {
		key := rest[:end(rest)]
		rest = space(space(rest[len(key):])[1:]) // the colon
		value := rest[:end(rest)]
		rest = rest[len(value):]
		name, _ := String(key)
		members = append(members, Member{name, value})
	}
	return members, true
}

// Array returns the elements of a valid JSON array; ok is false when it is another value.
func Array(valid []byte) (elements []json.RawMessage, ok bool) {
	rest := space(valid)
	if len(rest) == 0 || rest[0] != '[' {
		return nil, false
	}
	for rest = space(rest[1:]); rest[0] != ']'; rest = next(rest) {
		value := rest[:end(rest)]
		rest = rest[len(value):]
		elements = append(elements, value)
	}
	return elements, true
}

// String returns what a valid JSON string says; ok is false when it is another value.
func String(valid []byte) (s string, ok bool) {
	v := bytes.TrimSpace(valid)
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	inner := v[1 : len(v)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 {
			return s, json.Unmarshal(v, &s) == nil
		}
	}
	return string(inner), true
}

// Int returns a valid JSON number's value; ok is false when it is another value, or not a whole number that an int holds.
func Int(valid []byte) (n int, ok bool) {
	n, err := strconv.Atoi(string(bytes.TrimSpace(valid)))
	return n, err == nil
}

// next is what follows a value in an object or array: its next member or element, or its closing bracket.
func next(rest []byte) []byte {
	rest = space(rest)
	if rest[0] == ',' {
		return space(rest[1:])
	}
	return rest
}

// space cuts leading white space.
func space(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// end is the length of the value that b begins with.
func end(b []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++ // whatever is escaped
		case c == '"':
			quoted = !quoted
			if !quoted && depth == 0 {
				return i + 1
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\t' || c == '\r'):
			return i // after a number or a word
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(b)
}
