// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package iam

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Policy is an identity-based policy.
type Policy struct{ statements []statement }

type statement struct {
	deny       bool
	actions    []string
	resources  []string
	conditions []condition
}

// condition is one key under one operator: one of the values has to match.
type condition struct {
	key    string
	values []string
	match  func(pattern, value string) bool
	null   bool // whether the key is missing is what the values say
}

// operators that the lab knows.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
var operators = map[string]func(pattern, value string) bool{
	"StringEquals": func(pattern, value string) bool { return pattern == value },
	"StringLike":   matches,
	"ArnEquals":    matches, // it behaves as ArnLike does, says the guide
	"ArnLike":      matches,
}

// ParsePolicy reads a policy document as a template has it, as an object or as the text of one. All that is wrong is in the one error.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
func ParsePolicy(document any) (Policy, error) {
	p := &parser{}
	if text, isText := document.(string); isText { // CloudFormation takes either
		if err := json.Unmarshal([]byte(text), &document); err != nil {
			return Policy{}, fmt.Errorf("the policy is no JSON: %w", err)
		}
	}
	root := p.object("", document, "Version", "Statement", "Id")
	if v := root["Version"]; v != "2012-10-17" {
		p.addf("Version: the lab reads 2012-10-17, not %v", v)
	}
	statements, isList := root["Statement"].([]any)
	if !isList {
		statements = []any{root["Statement"]}
	}
	var out Policy
	for i, v := range statements {
		out.statements = append(out.statements, p.statement(fmt.Sprintf("Statement[%d]", i), v))
	}
	return out, errors.Join(p.errs...)
}

type parser struct{ errs []error }

func (p *parser) addf(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *parser) object(at string, v any, known ...string) map[string]any {
	m, ok := v.(map[string]any)
	if !ok {
		p.addf("%s: must be an object", at)
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if len(known) > 0 && !slices.Contains(known, k) {
			p.addf("%s.%s: the lab does not know it", at, k)
		}
	}
	return m
}

func (p *parser) statement(at string, v any) (s statement) {
	m := p.object(at, v, "Sid", "Effect", "Action", "Resource", "Condition")
	switch m["Effect"] {
	case "Allow":
	case "Deny":
		s.deny = true
	default:
		p.addf("%s.Effect: must be Allow or Deny", at)
	}
	s.actions, s.resources = p.strings(at+".Action", m["Action"]), p.strings(at+".Resource", m["Resource"])
	if m["Condition"] == nil {
		return s
	}
	all := p.object(at+".Condition", m["Condition"])
	for _, name := range slices.Sorted(maps.Keys(all)) {
		match, ok := operators[name]
		if !ok && name != "Null" {
			p.addf("%s.Condition.%s: the lab does not know the operator", at, name)
		}
		keys := p.object(at+".Condition."+name, all[name])
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			s.conditions = append(s.conditions, condition{
				key: key, match: match, null: name == "Null", values: p.strings(at+".Condition."+name+"."+key, keys[key]),
			})
		}
	}
	return s
}

// strings reads one or a list of them, not empty.
func (p *parser) strings(at string, v any) (out []string) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, v := range list {
		text, ok := v.(string)
		switch {
		case !ok || text == "":
			p.addf("%s: must be a string, or a list of them", at)
		case strings.Contains(text, "${"):
			p.addf("%s: the lab knows no policy variables", at)
		}
		out = append(out, text)
	}
	return out
}

// covers reports whether the statement speaks of the request. Actions are compared without regard to case; all conditions
// have to hold, and one whose key the request does not have does not, unless that is what it asks for.
func (s statement) covers(q Request) bool {
	action := func(pattern string) bool { return matches(strings.ToLower(pattern), strings.ToLower(q.Action)) }
	resource := func(pattern string) bool { return matches(pattern, q.Resource) }
	if !slices.ContainsFunc(s.actions, action) || !slices.ContainsFunc(s.resources, resource) {
		return false
	}
	for _, c := range s.conditions {
		value, there := q.Keys[c.key]
		if c.null {
			if slices.Contains(c.values, strconv.FormatBool(!there)) {
				continue
			}
			return false
		}
		if !there || !slices.ContainsFunc(c.values, func(pattern string) bool { return c.match(pattern, value) }) {
			return false
		}
	}
	return true
}

// matches compares with a pattern in which * stands for any characters and ? for one.
func matches(pattern, value string) bool {
	if pattern == "" {
		return value == ""
	}
	switch pattern[0] {
	case '*':
		for i := len(value); i >= 0; i-- {
			if matches(pattern[1:], value[i:]) {
				return true
			}
		}
		return false
	case '?':
		return value != "" && matches(pattern[1:], value[1:])
	}
	return value != "" && value[0] == pattern[0] && matches(pattern[1:], value[1:])
}
