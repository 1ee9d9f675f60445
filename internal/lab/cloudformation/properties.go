// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Properties are a resource's resolved properties, or an object in them. It notes what is read: a property that a provider
// does not read is one that the lab does not know, and an error. What is missing or of the wrong type is noted too, and
// told by [Properties.Err]; the values are then zero.
type Properties struct {
	path     string
	values   map[string]any
	read     map[string]bool
	children []*Properties
	problems *[]error
}

func newProperties(path string, values map[string]any) *Properties {
	return &Properties{path: path, values: values, read: map[string]bool{}, problems: &[]error{}}
}

// Err is what was wrong with what was read.
func (p *Properties) Err() error { return errors.Join(*p.problems...) }

func (p *Properties) addf(name, format string, args ...any) {
	*p.problems = append(*p.problems, fmt.Errorf("%s: %s", join(p.path, name), fmt.Sprintf(format, args...)))
}

// unread is an error that names the properties that nobody looked at.
func (p *Properties) unread() error {
	var names []string
	p.collectUnread(&names)
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("the lab does not know %s", strings.Join(names, ", "))
}

func (p *Properties) collectUnread(names *[]string) {
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		if !p.read[name] {
			*names = append(*names, join(p.path, name))
		}
	}
	for _, c := range p.children {
		c.collectUnread(names)
	}
}

func (p *Properties) get(name string) (any, bool) {
	p.read[name] = true
	v, ok := p.values[name]
	return v, ok
}

// Has says whether a property is there, without reading it.
func (p *Properties) Has(name string) bool {
	_, ok := p.values[name]
	return ok
}

// Ignore notes properties as known that change nothing in the lab.
func (p *Properties) Ignore(names ...string) {
	for _, name := range names {
		p.read[name] = true
	}
}

// Raw returns a property as it was resolved; nil when it is not there.
func (p *Properties) Raw(name string) any {
	v, _ := p.get(name)
	return v
}

// String returns a string that may be missing.
func (p *Properties) String(name string) string {
	v, ok := p.get(name)
	if !ok {
		return ""
	}
	if !isScalar(v) {
		p.addf(name, "must be a string")
		return ""
	}
	return text(v)
}

// Required returns a string that must be there.
func (p *Properties) Required(name string) string {
	s := p.String(name)
	if s == "" {
		p.addf(name, "is missing")
	}
	return s
}

// Bool returns true, false, or the default.
func (p *Properties) Bool(name string, missing bool) bool {
	s := p.String(name)
	if s == "" {
		return missing
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		p.addf(name, "must be true or false, not %q", s)
	}
	return b
}

// Int returns a whole number, or the default.
func (p *Properties) Int(name string, missing int) int {
	s := p.String(name)
	if s == "" {
		return missing
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		p.addf(name, "must be a whole number, not %q", s)
	}
	return n
}

// Prefix returns a CIDR that must be there.
func (p *Properties) Prefix(name string) netip.Prefix {
	s := p.Required(name)
	if s == "" {
		return netip.Prefix{}
	}
	c, err := netip.ParsePrefix(s)
	if err != nil {
		p.addf(name, "%q is no CIDR", s)
	}
	return c
}

// Strings returns a list of strings.
func (p *Properties) Strings(name string) (out []string) {
	v, ok := p.get(name)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList {
		p.addf(name, "must be a list")
	}
	for i, e := range list {
		if !isScalar(e) {
			p.addf(index(name, i), "must be a string")
			continue
		}
		out = append(out, text(e))
	}
	return out
}

// Object returns an object; one without properties when it is missing.
func (p *Properties) Object(name string) *Properties {
	v, ok := p.get(name)
	if !ok {
		v = map[string]any{}
	}
	return p.child(name, v)
}

// Objects returns a list of objects.
func (p *Properties) Objects(name string) (out []*Properties) {
	v, ok := p.get(name)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList {
		p.addf(name, "must be a list")
	}
	for i, e := range list {
		out = append(out, p.child(index(name, i), e))
	}
	return out
}

func (p *Properties) child(name string, v any) *Properties {
	m, ok := v.(map[string]any)
	if !ok {
		p.addf(name, "must be an object")
	}
	c := newProperties(join(p.path, name), m)
	c.problems = p.problems
	p.children = append(p.children, c)
	return c
}

// Tags returns a list of Key and Value as a map.
func (p *Properties) Tags(name string) map[string]string {
	tags := map[string]string{}
	for _, t := range p.Objects(name) {
		tags[t.Required("Key")] = t.String("Value")
	}
	return tags
}
