// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"maps"
	"slices"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// filter is one Filter.N of a request: an object matches if any of its values is among Values.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Filter.html
type filter struct {
	Name   string   `ec2:"Name,required"`
	Values []string `ec2:"Value"`
}

// maxFilterValues is the number of values that one call may have.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html; the code and wording:
// https://github.com/gjbae1212/gossm/issues/47
const maxFilterValues = 200

// filters says what can be filtered by: for each name the values that an object has. Tags is nil for what has none.
type filters[T any] struct {
	fields map[string]func(T) []string
	tags   func(T) map[string]string
}

// choose returns the objects that match all filters.
func (f filters[T]) choose(objects []T, given []filter) ([]T, error) {
	tests := make([]func(T) bool, 0, len(given))
	total := 0
	for _, g := range given {
		values, err := f.valuesOf(g.Name)
		if err != nil {
			return nil, err
		}
		if total += len(g.Values); total > maxFilterValues {
			return nil, vpc.Errorf("FilterLimitExceeded",
				"The maximum number of filter values specified on a single call is %d", maxFilterValues)
		}
		if len(g.Values) == 0 {
			// unverified: the wording.
			return nil, vpc.InvalidValue("The filter '%s' must have at least one value", g.Name)
		}
		match := matcher(g.Values)
		tests = append(tests, func(o T) bool { return slices.ContainsFunc(values(o), match) })
	}
	return slices.DeleteFunc(slices.Clone(objects), func(o T) bool {
		return slices.ContainsFunc(tests, func(test func(T) bool) bool { return !test(o) })
	}), nil
}

func (f filters[T]) valuesOf(name string) (func(T) []string, error) {
	if values, ok := f.fields[name]; ok {
		return values, nil
	}
	if f.tags != nil {
		if name == "tag-key" {
			return func(o T) []string { return slices.Collect(maps.Keys(f.tags(o))) }, nil
		}
		if key, ok := strings.CutPrefix(name, "tag:"); ok && key != "" {
			return func(o T) []string {
				if v, ok := f.tags(o)[key]; ok {
					return []string{v}
				}
				return nil
			}, nil
		}
	}
	// https://github.com/boto/boto3/issues/1299
	return nil, vpc.InvalidValue("The filter '%s' is invalid", name)
}

// matcher returns whether a string is among the values, which may have wildcards: * for any characters, ? for one, \ before
// a literal one. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
func matcher(values []string) func(string) bool {
	exact := map[string]bool{}
	var patterns []string
	for _, v := range values {
		if strings.ContainsAny(v, `*?\`) {
			patterns = append(patterns, v)
		} else {
			exact[v] = true
		}
	}
	return func(s string) bool {
		return exact[s] || slices.ContainsFunc(patterns, func(p string) bool { return wildcard(p, s) })
	}
}

// wildcard matches in time proportional to the product of the lengths.
func wildcard(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
			continue
		case p+1 < len(pattern) && pattern[p] == '\\' && pattern[p+1] == s[i]:
			p, i = p+2, i+1
			continue
		case p < len(pattern) && pattern[p] != '\\' && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
