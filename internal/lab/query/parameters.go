// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package query

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Parameters reads a form and remembers the first thing that is wrong with it, and what was read.
type Parameters struct {
	form url.Values
	used map[string]bool
	err  error
}

// NewParameters reads the parameters of a request beside Action and Version.
func NewParameters(form url.Values) *Parameters {
	return &Parameters{form: form, used: map[string]bool{}}
}

// Err is the first thing that is wrong with what was read.
func (p *Parameters) Err() error { return p.err }

// Wrong notes what is wrong with a parameter, unless something was before.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html (ValidationError); unverified: the wordings.
func (p *Parameters) Wrong(format string, args ...any) {
	if p.err == nil {
		p.err = &Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
	}
}

// Lookup returns a parameter, and whether it was given.
func (p *Parameters) Lookup(name string) (string, bool) {
	p.used[name] = true
	values := p.form[name]
	if len(values) > 1 {
		p.Wrong("The parameter %s may only be specified once", name)
	}
	return p.form.Get(name), len(values) > 0
}

// Text returns a parameter, empty when it was not given.
func (p *Parameters) Text(name string) string {
	s, _ := p.Lookup(name)
	return s
}

// Required returns a parameter that must be given.
func (p *Parameters) Required(name string) string {
	s, _ := p.Lookup(name)
	if s == "" {
		p.Wrong("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", name)
	}
	return s
}

// Number returns nil for a parameter that was not given.
func (p *Parameters) Number(name string) *int {
	s, given := p.Lookup(name)
	if !given {
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		p.Wrong("Value (%s) for parameter %s is invalid. It must be an integer", s, name)
		return nil
	}
	return &n
}

// Flag returns nil for a parameter that was not given.
func (p *Parameters) Flag(name string) *bool {
	s, given := p.Lookup(name)
	if !given {
		return nil
	}
	switch strings.ToLower(s) {
	case "true", "false":
		b := strings.EqualFold(s, "true")
		return &b
	}
	p.Wrong("Value (%s) for parameter %s is invalid. It must be true or false", s, name)
	return nil
}

// Members lists the prefixes of a list's elements, Name.member.1 and so on, in the order of their numbers.
func (p *Parameters) Members(name string) []string {
	prefix := name + ".member."
	numbers := map[int]bool{}
	for key := range p.form {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		text, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(text); err == nil && n > 0 {
			numbers[n] = true
		}
	}
	var out []string
	for _, n := range slices.Sorted(maps.Keys(numbers)) {
		out = append(out, prefix+strconv.Itoa(n))
	}
	p.used[name] = true // how an empty list is written
	return out
}

// Texts returns the elements of a list.
func (p *Parameters) Texts(name string) (out []string) {
	for _, at := range p.Members(name) {
		out = append(out, p.Text(at))
	}
	return out
}

// Done returns what is wrong: first of all a parameter that nothing has read.
func (p *Parameters) Done() error {
	for _, name := range slices.Sorted(maps.Keys(p.form)) {
		if name == "Action" || name == "Version" || strings.HasPrefix(name, "X-Amz-") || p.used[name] {
			continue
		}
		return &Error{Code: "ValidationError", Message: "The parameter " + name + " is not recognized"}
	}
	return p.err
}
