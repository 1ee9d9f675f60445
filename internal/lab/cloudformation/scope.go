// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"fmt"
	"maps"
	"slices"
)

// scope is what a template's functions see while its stack is made.
type scope struct {
	stack      string
	template   *Template
	parameters map[string]any
	pseudo     map[string]string
	azs        []string
	made       map[string]Physical
	providers  map[string]Provider
}

func newScope(cfg Config, stack string, t *Template, given map[string]string) (*scope, error) {
	parameters, err := t.bind(given, cfg.Parameters)
	if err != nil {
		return nil, err
	}
	return &scope{
		stack: stack, template: t, parameters: parameters, azs: cfg.Zones, made: map[string]Physical{}, providers: cfg.Providers,
		pseudo: map[string]string{
			"AWS::AccountId": cfg.AccountID, "AWS::Region": cfg.Region, "AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com",
			"AWS::StackName": stack,
			"AWS::StackId":   cfg.StackID(stack),
		},
	}, nil
}

// StackID is the ID that a stack of that name has. CloudFormation gives each a new one.
func (c Config) StackID(name string) string {
	return fmt.Sprintf("arn:aws:cloudformation:%s:%s:stack/%s/lab", c.Region, c.AccountID, name)
}

// condition computes a named condition; the empty name holds.
func (s *scope) condition(path, name string) (bool, error) {
	if name == "" {
		return true, nil
	}
	v, ok := s.template.Conditions[name]
	if !ok {
		return false, fmt.Errorf("%s: there is no condition %s", path, name)
	}
	return s.holds("Conditions."+name, v)
}

func (s *scope) holds(path string, v any) (bool, error) {
	m, _ := v.(map[string]any)
	if len(m) != 1 {
		return false, fmt.Errorf("%s: is no condition", path)
	}
	name := slices.Collect(maps.Keys(m))[0]
	if name == "Condition" {
		return s.condition(path, text(m[name]))
	}
	path = join(path, name)
	list, _ := m[name].([]any)
	if name == "Fn::Equals" {
		a, b, err := s.pair(path, m[name])
		return err == nil && text(a) == text(b), err
	}
	results := make([]bool, len(list))
	for i, e := range list {
		var err error
		if results[i], err = s.holds(index(path, i), e); err != nil {
			return false, err
		}
	}
	switch {
	case name == "Fn::Not" && len(results) == 1:
		return !results[0], nil
	case name == "Fn::And" && len(results) >= 2:
		return !slices.Contains(results, false), nil
	case name == "Fn::Or" && len(results) >= 2:
		return slices.Contains(results, true), nil
	}
	return false, fmt.Errorf("%s: is no condition that the lab knows", path)
}

// plan returns the resources to make, those that others need first; among equals by name, so that a run can be repeated.
func (s *scope) plan(providers map[string]Provider) ([]string, error) {
	d := &decoder{}
	wanted := map[string]bool{}
	for id, r := range s.template.Resources {
		at := "Resources." + id
		holds, err := s.condition(at+".Condition", r.Condition)
		if err != nil {
			return nil, err
		}
		if holds && providers[r.Type] == nil {
			d.addf(at+".Type", "the lab does not make %s", r.Type)
		}
		wanted[id] = holds
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	var order []string
	for _, id := range s.template.order {
		if wanted[id] {
			order = append(order, id)
		}
	}
	return order, nil
}

// request resolves a resource's properties.
func (s *scope) request(id string) (Request, error) {
	r := s.template.Resources[id]
	at := "Resources." + id + ".Properties"
	v, err := s.resolve(at, r.Properties)
	if err != nil {
		return Request{}, err
	}
	return Request{
		Stack: s.stack, LogicalID: id, Type: r.Type, Properties: newProperties(at, v.(map[string]any)),
	}, nil
}

// outputs computes what the stack tells.
func (s *scope) outputs(out map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(s.template.Outputs)) {
		o, at := s.template.Outputs[name], "Outputs."+name
		holds, err := s.condition(at+".Condition", o.Condition)
		if err != nil {
			return err
		}
		if !holds {
			continue
		}
		if out[name], err = s.str(at+".Value", o.Value); err != nil {
			return err
		}
	}
	return nil
}
