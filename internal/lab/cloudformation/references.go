// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"maps"
	"slices"
	"strings"
)

// pseudoParameters that Ref and Fn::Sub know without a declaration.
var pseudoParameters = []string{
	"AWS::AccountId", "AWS::NoValue", "AWS::Partition", "AWS::Region", "AWS::StackId", "AWS::StackName", "AWS::URLSuffix",
}

// references checks that every reference leads somewhere, and brings the resources in order.
func (d *decoder) references(t *Template) {
	needs := map[string][]string{}
	for id, r := range t.Resources {
		at := "Resources." + id
		d.conditionExists(t, at+".Condition", r.Condition)
		w := &walker{d: d, t: t}
		w.value(at+".Properties", r.Properties)
		w.value(at, r.Policies)
		for _, on := range r.DependsOn {
			w.resource(at+".DependsOn", on)
		}
		needs[id] = w.needs
	}
	for name, v := range t.Conditions {
		(&walker{d: d, t: t, noResources: true}).value("Conditions."+name, v)
	}
	for name, o := range t.Outputs {
		d.conditionExists(t, "Outputs."+name+".Condition", o.Condition)
		(&walker{d: d, t: t}).value("Outputs."+name+".Value", o.Value)
	}
	d.order(t, needs)
}

func (d *decoder) conditionExists(t *Template, at, name string) {
	if _, ok := t.Conditions[name]; name != "" && !ok {
		d.addf(at, "there is no condition %s", name)
	}
}

// order fills the template's order by depth first search, in the order of names.
func (d *decoder) order(t *Template, needs map[string][]string) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(id string, way []string)
	visit = func(id string, way []string) {
		way = append(way, id)
		switch state[id] {
		case done:
			return
		case visiting:
			d.addf("Resources."+id, "depends on itself: %s", strings.Join(way[slices.Index(way, id):], " → "))
			return
		}
		state[id] = visiting
		for _, next := range slices.Sorted(slices.Values(needs[id])) {
			visit(next, way)
		}
		state[id] = done
		t.order = append(t.order, id)
	}
	for _, id := range slices.Sorted(maps.Keys(t.Resources)) {
		visit(id, nil)
	}
}

// walker looks for references in a value.
type walker struct {
	d           *decoder
	t           *Template
	noResources bool // in a condition
	needs       []string
}

func (w *walker) value(path string, v any) {
	name, argument, ok := Function(v)
	if ok {
		w.function(join(path, name), name, argument)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if k == "Condition" && len(v) == 1 && w.noResources {
				w.d.conditionExists(w.t, path, text(e))
				continue
			}
			w.value(join(path, k), e)
		}
	case []any:
		for i, e := range v {
			w.value(index(path, i), e)
		}
	}
}

func (w *walker) function(path, name string, argument any) {
	if !slices.Contains(slices.Collect(maps.Values(shortForms)), name) {
		w.d.addf(path, "the lab does not know this function")
		return
	}
	list, _ := argument.([]any)
	switch name {
	case "Ref":
		w.name(path, text(argument), nil)
	case "Fn::GetAtt":
		if len(list) != 2 || !isScalar(list[0]) || !isScalar(list[1]) {
			w.d.addf(path, "wants a resource and an attribute")
			return
		}
		w.resource(path, text(list[0]))
	case "Fn::Sub":
		w.sub(path, argument)
	case "Fn::If":
		if len(list) != 3 {
			w.d.addf(path, "wants a condition and two values")
			return
		}
		w.d.conditionExists(w.t, path, text(list[0]))
		w.value(path, list[1:])
	default:
		w.value(path, argument)
	}
}

func (w *walker) sub(path string, argument any) {
	body, own := argument, map[string]any{}
	if list, ok := argument.([]any); ok && len(list) == 2 {
		body = list[0]
		own, _ = list[1].(map[string]any)
		w.value(path, own)
	}
	in, ok := body.(string)
	if !ok {
		w.d.addf(path, "wants a string")
		return
	}
	_, err := expand(path, in, func(name string) (string, error) {
		if resource, _, dotted := strings.Cut(name, "."); dotted {
			w.resource(path, resource)
		} else {
			w.name(path, name, own)
		}
		return "", nil
	})
	if err != nil {
		w.d.addf(path, "%v", err)
	}
}

func (w *walker) name(path, name string, own map[string]any) {
	_, isParameter := w.t.Parameters[name]
	_, isOwn := own[name]
	if !isParameter && !isOwn && !slices.Contains(pseudoParameters, name) {
		w.resource(path, name)
	}
}

func (w *walker) resource(path, id string) {
	if _, ok := w.t.Resources[id]; !ok || w.noResources {
		w.d.addf(path, "there is no %s", id)
		return
	}
	w.needs = append(w.needs, id)
}
