// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package asgapi

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
)

// parameters reads a form and remembers the first thing that is wrong with it, and what was read.
type parameters struct {
	form url.Values
	used map[string]bool
	err  error
}

// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html (ValidationError); unverified: the wordings.
func (p *parameters) wrong(format string, args ...any) {
	if p.err == nil {
		p.err = &autoscaling.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
	}
}

// lookup returns a parameter, and whether it was given.
func (p *parameters) lookup(name string) (string, bool) {
	p.used[name] = true
	values := p.form[name]
	if len(values) > 1 {
		p.wrong("The parameter %s may only be specified once", name)
	}
	return p.form.Get(name), len(values) > 0
}

func (p *parameters) text(name string) string {
	s, _ := p.lookup(name)
	return s
}

func (p *parameters) required(name string) string {
	s, _ := p.lookup(name)
	if s == "" {
		p.wrong("1 validation error detected: Value null at '%s' failed to satisfy constraint: Member must not be null", name)
	}
	return s
}

// number returns nil for a parameter that was not given.
func (p *parameters) number(name string) *int {
	s, given := p.lookup(name)
	if !given {
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		p.wrong("Value (%s) for parameter %s is invalid. It must be an integer", s, name)
		return nil
	}
	return &n
}

// flag returns nil for a parameter that was not given.
func (p *parameters) flag(name string) *bool {
	s, given := p.lookup(name)
	if !given {
		return nil
	}
	switch strings.ToLower(s) {
	case "true", "false":
		b := strings.EqualFold(s, "true")
		return &b
	}
	p.wrong("Value (%s) for parameter %s is invalid. It must be true or false", s, name)
	return nil
}

// members lists the prefixes of a list's elements, Name.member.1 and so on, in the order of their numbers.
func (p *parameters) members(name string) []string {
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

func (p *parameters) texts(name string) (out []string) {
	for _, at := range p.members(name) {
		out = append(out, p.text(at))
	}
	return out
}

// done returns what is wrong: first of all a parameter that nothing has read.
func (p *parameters) done() error {
	for _, name := range slices.Sorted(maps.Keys(p.form)) {
		if name == "Action" || name == "Version" || strings.HasPrefix(name, "X-Amz-") || p.used[name] {
			continue
		}
		return &autoscaling.Error{Code: "ValidationError", Message: "The parameter " + name + " is not recognized"}
	}
	return p.err
}
