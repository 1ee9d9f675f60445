// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package strictyaml reads a YAML (or JSON) document into a struct and says everything that is wrong with it at once,
// each problem with the path of its field ("instances[0].enis[1].subnet"). The lab's scenario files and the faults
// posted to a running lab are read by it. A key that the struct does not have is a problem that lists the keys it has;
// nothing is converted silently: an unquoted true or 1 is no string. What values mean is validated by their owners,
// into the same [Problems].
package strictyaml

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Decode reads the one document in data into out, a pointer to a struct or slice with json tags, and reports what it
// cannot place to p under path. Fields that data leaves out, or sets to null, keep their values. It knows strings,
// integers, floats, booleans, durations ("80ms"), everything with UnmarshalText, pointers, slices, maps with string
// keys, and structs. A map field tagged `json:",inline"` takes the keys that the struct has no field for.
func Decode(data []byte, out any, path string, p *Problems) {
	if hasSecondDocument(data) {
		p.Addf(path, "more than one YAML document")
		return
	}
	doc, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		p.Addf(path, "%v", err)
		return
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var in any
	if err := dec.Decode(&in); err != nil {
		p.Addf(path, "%v", err)
		return
	}
	if in == nil {
		p.Addf(path, "the document is empty")
		return
	}
	value(path, in, reflect.ValueOf(out).Elem(), p)
}

// hasSecondDocument looks for a document separator after content: the YAML library would drop what follows it.
func hasSecondDocument(data []byte) bool {
	content := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0 || line[0] == '#':
		case bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- ")):
			if content {
				return true
			}
			content = len(line) > len("---")
		default:
			content = true
		}
	}
	return false
}

var durationType = reflect.TypeFor[time.Duration]()

func value(path string, in any, out reflect.Value, p *Problems) {
	if in == nil {
		return
	}
	if out.Kind() == reflect.Pointer {
		v := reflect.New(out.Type().Elem())
		value(path, in, v.Elem(), p)
		out.Set(v)
		return
	}
	if out.Type() == durationType {
		duration(path, in, out, p)
		return
	}
	if u, ok := out.Addr().Interface().(encoding.TextUnmarshaler); ok {
		s, isString := in.(string)
		if !isString {
			p.Addf(path, "must be a string, not %s", describe(in))
		} else if err := u.UnmarshalText([]byte(s)); err != nil || s == "" {
			p.Addf(path, "%q is not a valid %s", s, noun(out.Type()))
		}
		return
	}
	switch out.Kind() {
	case reflect.Struct:
		object(path, in, out, p)
	case reflect.Map:
		dictionary(path, in, out, p)
	case reflect.Slice:
		list(path, in, out, p)
	default:
		scalar(path, in, out, p)
	}
}

func duration(path string, in any, out reflect.Value, p *Problems) {
	s := fmt.Sprint(in)
	d, err := time.ParseDuration(s)
	if err != nil {
		p.Addf(path, "%q is not a duration such as 80ms or 1.5s", s)
		return
	}
	out.SetInt(int64(d))
}

func scalar(path string, in any, out reflect.Value, p *Problems) {
	switch out.Kind() {
	case reflect.String:
		s, ok := in.(string)
		if !ok {
			p.Addf(path, "must be a string, not %s (put it in quotes)", describe(in))
			return
		}
		out.SetString(s)
	case reflect.Bool:
		b, ok := in.(bool)
		if !ok {
			p.Addf(path, "must be true or false, not %s", describe(in))
			return
		}
		out.SetBool(b)
	case reflect.Int, reflect.Int64:
		n, _ := in.(json.Number)
		i, err := n.Int64()
		if err != nil {
			p.Addf(path, "must be a whole number, not %s", describe(in))
			return
		}
		out.SetInt(i)
	case reflect.Uint64:
		n, _ := in.(json.Number)
		i, err := n.Int64()
		if err != nil || i < 0 {
			p.Addf(path, "must be a whole number of 0 or more, not %s", describe(in))
			return
		}
		out.SetUint(uint64(i))
	case reflect.Float64:
		n, _ := in.(json.Number)
		f, err := n.Float64()
		if err != nil {
			p.Addf(path, "must be a number, not %s", describe(in))
			return
		}
		out.SetFloat(f)
	default:
		panic(fmt.Sprintf("strictyaml: %s: no rule for %s", path, out.Type()))
	}
}

func list(path string, in any, out reflect.Value, p *Problems) {
	items, ok := in.([]any)
	if !ok {
		p.Addf(path, "must be a list, not %s", describe(in))
		return
	}
	s := reflect.MakeSlice(out.Type(), len(items), len(items))
	for i, item := range items {
		itemPath := fmt.Sprintf("%s[%d]", path, i)
		if item == nil {
			p.Addf(itemPath, "is empty")
			continue
		}
		value(itemPath, item, s.Index(i), p)
	}
	out.Set(s)
}

func dictionary(path string, in any, out reflect.Value, p *Problems) {
	m, ok := in.(map[string]any)
	if !ok {
		p.Addf(path, "must be a mapping, not %s", describe(in))
		return
	}
	if out.IsNil() {
		out.Set(reflect.MakeMapWithSize(out.Type(), len(m)))
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := reflect.New(out.Type().Elem()).Elem()
		value(Join(path, k), m[k], v, p)
		out.SetMapIndex(reflect.ValueOf(k), v)
	}
}

func object(path string, in any, out reflect.Value, p *Problems) {
	m, ok := in.(map[string]any)
	if !ok {
		p.Addf(path, "must be a mapping, not %s", describe(in))
		return
	}
	rest := maps.Clone(m)
	var known []string
	var inline reflect.Value
	for i := range out.NumField() {
		name, options, _ := strings.Cut(out.Type().Field(i).Tag.Get("json"), ",")
		if options == "inline" {
			inline = out.Field(i)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		known = append(known, name)
		value(Join(path, name), m[name], out.Field(i), p)
		delete(rest, name)
	}
	if len(rest) == 0 {
		return
	}
	if inline.IsValid() {
		dictionary(path, rest, inline, p)
		return
	}
	for _, k := range slices.Sorted(maps.Keys(rest)) {
		p.Addf(Join(path, k), "unknown key (known here: %s)", strings.Join(known, ", "))
	}
}

// Join is the path of the field name inside path.
func Join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func describe(in any) string {
	switch v := in.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	}
	return fmt.Sprint(in)
}

// noun names a type as the author of a file would: netip.Prefix is a "CIDR".
func noun(t reflect.Type) string {
	switch t.String() {
	case "netip.Prefix":
		return "CIDR"
	case "netip.Addr":
		return "IP address"
	}
	return t.Name()
}
