// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// object is a JSON object of which nothing is known.
type object map[string]json.RawMessage

// pair is a member of an object.
type pair struct {
	key   string
	value any
}

// pairs is an object whose members stay in their order.
type pairs []pair

// MarshalJSON writes the members in their order.
func (p pairs) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, one := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := encode(one.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.key, err)
		}
		key, err := encode(one.key)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// open reads an object; null is an empty one.
func open(raw json.RawMessage, what string) (object, error) {
	o := object{}
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("%s is no JSON object: %w", what, err)
	}
	return o, nil
}

// inner is an object in an object, empty when it is not there.
func inner(o object, at, key string) (object, error) {
	if o[key] == nil {
		return object{}, nil
	}
	return open(o[key], at+key)
}

// text is a string, empty when it is not there. at is the object's path.
func text(o object, at, key string) (s string, err error) {
	if o[key] == nil {
		return "", nil
	}
	if err = json.Unmarshal(o[key], &s); err != nil {
		return "", fmt.Errorf("%s%s: %s is no string", at, key, o[key])
	}
	return s, nil
}

// array is a list, empty when it is not there.
func array(raw json.RawMessage, at string) (list []json.RawMessage, err error) {
	if raw == nil {
		return nil, nil
	}
	if err = json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%s: %s is no list", at, raw)
	}
	return list, nil
}

// strs is a list of strings, empty when it is not there.
func strs(o object, at, key string) (list []string, err error) {
	if o[key] == nil {
		return nil, nil
	}
	if err = json.Unmarshal(o[key], &list); err != nil {
		return nil, fmt.Errorf("%s%s: %s is no list of strings", at, key, o[key])
	}
	return list, nil
}

// encode writes a value on one line, without escapes for HTML.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// width is what fits on a line.
const width = 90

// pretty writes JSON as people do: what is short stays on one line. The document itself never does.
func pretty(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	err := layOut(&b, raw, "", true)
	return b.Bytes(), err
}

func layOut(b *bytes.Buffer, raw json.RawMessage, indent string, open bool) error {
	line, err := inline(raw)
	if err != nil {
		return err
	}
	var elements []json.RawMessage
	switch {
	case !open && len(indent)+len(line) <= width || len(raw) == 0 || raw[0] != '{' && raw[0] != '[':
		b.Write(line)
		return nil
	case raw[0] == '[':
		if err = json.Unmarshal(raw, &elements); err != nil {
			return err
		}
		return block(b, "[", "]", indent, len(elements), func(i int, indent string) error { return layOut(b, elements[i], indent, false) })
	}
	members, err := inOrder(raw)
	if err != nil {
		return err
	}
	return block(b, "{", "}", indent, len(members), func(i int, indent string) error {
		key, err := encode(members[i].key)
		if err != nil {
			return err
		}
		b.Write(key)
		b.WriteString(": ")
		return layOut(b, members[i].value.(json.RawMessage), indent, false)
	})
}

// block writes n things between brackets, one to a line.
func block(b *bytes.Buffer, left, right, indent string, n int, write func(i int, indent string) error) error {
	b.WriteString(left)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n" + indent + "  ")
		if err := write(i, indent+"  "); err != nil {
			return err
		}
	}
	b.WriteString("\n" + indent + right)
	return nil
}

// inOrder takes an object apart, its members in their order.
func inOrder(raw []byte) (members pairs, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err = d.Token(); err != nil {
		return nil, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err = d.Decode(&value); err != nil {
			return nil, err
		}
		members = append(members, pair{key.(string), value})
	}
	return members, nil
}

// inline writes JSON on one line, with a blank after each colon and comma.
func inline(raw []byte) ([]byte, error) {
	var compact, line bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return nil, err
	}
	quoted, escaped := false, false
	for _, c := range compact.Bytes() {
		line.WriteByte(c)
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ':' || c == ','):
			line.WriteByte(' ')
		}
	}
	return line.Bytes(), nil
}
