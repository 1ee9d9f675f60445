// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
)

// schemas is testdata/schemas.json, which test/cfn/refresh writes.
type schemas struct {
	Types       map[string]object
	Definitions map[string]object
}

type object struct {
	Properties map[string]shape
	Attributes []string
}

type shape struct {
	Type     string
	Required bool
	Element  *shape
	OneOf    []shape
	Values   []any
	Of       string
}

func TestTemplatesFollowTheSchemas(t *testing.T) {
	t.Parallel()
	s := readSchemas(t)
	used := map[string]bool{}
	for file, parsed := range templates(t) {
		for id, r := range parsed.Resources {
			used[r.Type] = true
			for _, p := range s.check(id, r) {
				t.Errorf("%s: %s", file, p)
			}
		}
		for _, p := range s.attributes(parsed) {
			t.Errorf("%s: %s", file, p)
		}
	}
	for name := range s.Types {
		if !used[name] {
			t.Errorf("testdata/schemas.json has %s, which no template uses: run scripts/refresh-cfn-schemas.sh", name)
		}
	}
}

// TestAMisspeltPropertyIsFound misspells each property of each resource of each template in turn, also those inside of
// others.
func TestAMisspeltPropertyIsFound(t *testing.T) {
	t.Parallel()
	s := readSchemas(t)
	for file, parsed := range templates(t) {
		for id, r := range parsed.Resources {
			schema := s.Types[r.Type]
			n := s.misspell(schema.Properties, r.Properties, func(key string) {
				if len(s.check(id, r)) == 0 {
					t.Errorf("%s: %s: %s was misspelt, and nobody saw it", file, id, key)
				}
			})
			if n == 0 && len(r.Properties) > 0 {
				t.Errorf("%s: %s: nothing was misspelt", file, id)
			}
		}
	}
}

// misspell changes one key after the other, calls look, and changes it back.
func (s schemas) misspell(known map[string]shape, m map[string]any, look func(key string)) (n int) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		delete(m, k)
		m[k+"s"] = v
		look(k)
		delete(m, k+"s")
		m[k] = v
		n++
		for _, inner := range s.objectsIn(known[k], v) {
			n += s.misspell(s.Definitions[inner.of].Properties, inner.m, look)
		}
	}
	return n
}

type inner struct {
	of string
	m  map[string]any
}

// objectsIn finds the maps in a value whose definition is known.
func (s schemas) objectsIn(sh shape, v any) (out []inner) {
	if name, argument, ok := cloudformation.Function(v); ok {
		if list, _ := argument.([]any); name == "Fn::If" && len(list) == 3 {
			return append(s.objectsIn(sh, list[1]), s.objectsIn(sh, list[2])...)
		}
		return nil
	}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if sh.Element != nil {
				out = append(out, s.objectsIn(*sh.Element, e)...)
			}
		}
	case map[string]any:
		if sh.Of != "" {
			out = append(out, inner{sh.Of, v})
		}
	}
	return out
}

func (s schemas) check(id string, r cloudformation.Declaration) []string {
	at := "Resources." + id
	schema, ok := s.Types[r.Type]
	if !ok {
		return []string{at + ".Type: there is no schema of " + r.Type + ": run scripts/refresh-cfn-schemas.sh"}
	}
	return s.object(at+".Properties", schema, r.Properties)
}

func (s schemas) object(at string, o object, m map[string]any) (problems []string) {
	for _, name := range slices.Sorted(maps.Keys(o.Properties)) {
		if _, ok := m[name]; !ok && o.Properties[name].Required {
			problems = append(problems, at+"."+name+": is required")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		p, ok := o.Properties[name]
		if !ok {
			problems = append(problems, at+"."+name+": unknown property")
			continue
		}
		problems = append(problems, s.value(at+"."+name, p, m[name])...)
	}
	return problems
}

// value judges a value by its shape. What a function returns is not known here, but for the branches of Fn::If.
func (s schemas) value(at string, sh shape, v any) []string {
	if name, argument, ok := cloudformation.Function(v); ok {
		if list, _ := argument.([]any); name == "Fn::If" && len(list) == 3 {
			return append(s.value(at+".Fn::If[1]", sh, list[1]), s.value(at+".Fn::If[2]", sh, list[2])...)
		}
		return nil
	}
	if len(sh.OneOf) > 0 {
		return s.oneOf(at, sh, v)
	}
	switch sh.Type {
	case "json":
		return nil
	case "array":
		return s.list(at, sh, v)
	case "map":
		return s.entries(at, sh, v)
	case "tag":
		m, ok := v.(map[string]any)
		if !ok {
			return []string{at + ": must be Key and Value"}
		}
		text := shape{Type: "string", Required: true}
		return s.object(at, object{Properties: map[string]shape{"Key": text, "Value": text}}, m)
	case "object":
		m, ok := v.(map[string]any)
		if !ok {
			return []string{at + ": must be an object"}
		}
		return s.object(at, s.Definitions[sh.Of], m)
	}
	return scalar(at, sh, v)
}

func (s schemas) oneOf(at string, sh shape, v any) []string {
	var best []string
	for _, one := range sh.OneOf {
		problems := s.value(at, one, v)
		if len(problems) == 0 {
			return nil
		}
		if best == nil || len(problems) < len(best) {
			best = problems
		}
	}
	return best
}

func (s schemas) list(at string, sh shape, v any) (problems []string) {
	list, ok := v.([]any)
	if !ok {
		return []string{at + ": must be a list"}
	}
	for i, e := range list {
		problems = append(problems, s.value(fmt.Sprintf("%s[%d]", at, i), *sh.Element, e)...)
	}
	return problems
}

func (s schemas) entries(at string, sh shape, v any) (problems []string) {
	m, ok := v.(map[string]any)
	if !ok {
		return []string{at + ": must be a map"}
	}
	for k, e := range m {
		problems = append(problems, s.value(at+"."+k, *sh.Element, e)...)
	}
	return problems
}

func scalar(at string, sh shape, v any) []string {
	text := fmt.Sprint(v)
	ok := false
	switch v.(type) {
	case string, bool, int64, float64:
		ok = true
	}
	switch sh.Type {
	case "string", "date-time":
	case "boolean":
		ok = ok && (text == "true" || text == "false")
	case "integer":
		_, err := strconv.ParseInt(text, 10, 64)
		ok = ok && err == nil
	case "number":
		_, err := strconv.ParseFloat(text, 64)
		ok = ok && err == nil
	default:
		return []string{at + ": the check does not know the type " + sh.Type}
	}
	if !ok {
		return []string{at + ": must be of the type " + sh.Type}
	}
	if len(sh.Values) > 0 && !slices.ContainsFunc(sh.Values, func(one any) bool { return fmt.Sprint(one) == text }) {
		return []string{fmt.Sprintf("%s: %q is none of %v", at, text, sh.Values)}
	}
	return nil
}

// attributes checks what Fn::GetAtt and ${Resource.Attribute} ask for.
func (s schemas) attributes(t *cloudformation.Template) (problems []string) {
	look := func(id, attribute string) {
		o := s.Types[t.Resources[id].Type]
		_, isProperty := o.Properties[attribute]
		if !slices.Contains(o.Attributes, attribute) && !isProperty {
			problems = append(problems, fmt.Sprintf("%s has no attribute %s", id, attribute))
		}
	}
	var walk func(v any)
	walk = func(v any) {
		name, argument, isFunction := cloudformation.Function(v)
		list, _ := argument.([]any)
		switch {
		case isFunction && name == "Fn::GetAtt":
			look(list[0].(string), list[1].(string))
			return
		case isFunction && name == "Fn::Sub":
			body, _ := argument.(string)
			if len(list) > 0 {
				body, _ = list[0].(string)
			}
			for _, part := range strings.Split(body, "${")[1:] {
				name, _, _ := strings.Cut(part, "}")
				if id, attribute, dotted := strings.Cut(name, "."); dotted && !strings.HasPrefix(id, "!") {
					look(id, attribute)
				}
			}
		}
		switch v := v.(type) {
		case map[string]any:
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	for _, r := range t.Resources {
		walk(r.Properties)
	}
	for _, o := range t.Outputs {
		walk(o.Value)
	}
	return problems
}

func readSchemas(t *testing.T) (s schemas) {
	t.Helper()
	data, err := os.ReadFile("testdata/schemas.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// templates parses the templates, by file name. Each test has its own.
func templates(t *testing.T) map[string]*cloudformation.Template {
	t.Helper()
	files, err := filepath.Glob("../../cfn/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no templates: %v", err)
	}
	out := map[string]*cloudformation.Template{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if out[filepath.Base(f)], err = cloudformation.Parse(data); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}
	return out
}
