// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Template is a parsed template: its sections are understood and every reference in it leads somewhere.
type Template struct {
	Description string
	Metadata    map[string]any
	Parameters  map[string]Parameter
	Conditions  map[string]any
	Resources   map[string]Declaration
	Outputs     map[string]Output

	order []string // of the resources: those that others need first
}

// Declaration is a resource as the template has it. Values hold intrinsic functions in their long form.
type Declaration struct {
	Type       string
	Condition  string
	DependsOn  []string
	Properties map[string]any

	// Policies are CreationPolicy, UpdatePolicy, DeletionPolicy and UpdateReplacePolicy, by name.
	Policies map[string]any
}

// Output is what a stack tells.
type Output struct {
	Description string
	Condition   string
	Value       any
}

const formatVersion = "2010-09-09"

// sections of a template that the engine understands: not Mappings, Rules, Transform and Hooks.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-anatomy.html
var sections = []string{"AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Conditions", "Resources", "Outputs"}

var logicalID = regexp.MustCompile("^[A-Za-z0-9]+$")

// Parse reads a template.
func Parse(data []byte) (*Template, error) {
	doc, err := readYAML(data)
	if err != nil {
		return nil, fmt.Errorf("parse template: %w", err)
	}
	d := &decoder{}
	root := d.object("", doc, sections)
	t := &Template{
		Description: d.optionalString("Description", root["Description"]),
		Metadata:    d.object("Metadata", root["Metadata"], nil),
		Parameters:  map[string]Parameter{},
		Conditions:  d.named("Conditions", root["Conditions"]),
		Resources:   map[string]Declaration{},
		Outputs:     map[string]Output{},
	}
	if v := root["AWSTemplateFormatVersion"]; v != formatVersion {
		d.addf("AWSTemplateFormatVersion", "must be %s", formatVersion)
	}
	for name, v := range d.named("Parameters", root["Parameters"]) {
		t.Parameters[name] = d.parameter("Parameters."+name, v)
	}
	for name, v := range d.named("Resources", root["Resources"]) {
		t.Resources[name] = d.declaration("Resources."+name, v)
	}
	for name, v := range d.named("Outputs", root["Outputs"]) {
		at := "Outputs." + name
		m := d.object(at, v, []string{"Description", "Condition", "Value"})
		t.Outputs[name] = Output{
			Description: d.optionalString(at+".Description", m["Description"]),
			Condition:   d.optionalString(at+".Condition", m["Condition"]), Value: m["Value"],
		}
	}
	if len(t.Resources) == 0 {
		d.addf("Resources", "there is none")
	}
	if len(d.problems) == 0 {
		d.references(t)
	}
	if err := d.err(); err != nil {
		return nil, fmt.Errorf("parse template: %w", err)
	}
	return t, nil
}

func (d *decoder) declaration(at string, v any) Declaration {
	policies := []string{"CreationPolicy", "UpdatePolicy", "DeletionPolicy", "UpdateReplacePolicy"}
	m := d.object(at, v, append([]string{"Type", "Condition", "DependsOn", "Properties", "Metadata"}, policies...))
	out := Declaration{
		Type:       d.requiredString(at+".Type", m["Type"]),
		Condition:  d.optionalString(at+".Condition", m["Condition"]),
		Properties: d.object(at+".Properties", m["Properties"], nil),
		Policies:   map[string]any{},
	}
	switch on := m["DependsOn"].(type) {
	case nil:
	case string:
		out.DependsOn = []string{on}
	default:
		out.DependsOn = d.stringList(at+".DependsOn", on)
	}
	for _, p := range policies {
		if v, ok := m[p]; ok {
			out.Policies[p] = v
		}
	}
	if v, ok := out.Policies["DeletionPolicy"]; ok && v != "Delete" {
		d.addf(at+".DeletionPolicy", "the lab knows Delete only, not %v", v)
	}
	return out
}

// decoder collects what is wrong with a template, each with its path.
type decoder struct{ problems []string }

func (d *decoder) addf(path, format string, args ...any) {
	if path == "" {
		path = "template"
	}
	d.problems = append(d.problems, path+": "+fmt.Sprintf(format, args...))
}

func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.Sort(d.problems)
	return fmt.Errorf("%s", strings.Join(slices.Compact(d.problems), "\n"))
}

// object reads a map whose keys are known; nil knows them all.
func (d *decoder) object(path string, v any, known []string) map[string]any {
	if v == nil {
		return map[string]any{}
	}
	m, ok := v.(map[string]any)
	if !ok {
		d.addf(path, "must be a map")
		return map[string]any{}
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if known != nil && !slices.Contains(known, k) {
			d.addf(join(path, k), "unknown; the keys are %s", strings.Join(known, ", "))
		}
	}
	return m
}

// named reads a map from logical IDs.
func (d *decoder) named(path string, v any) map[string]any {
	m := d.object(path, v, nil)
	for k := range m {
		if !logicalID.MatchString(k) {
			d.addf(join(path, k), "a logical ID has letters and digits only")
		}
	}
	return m
}

func (d *decoder) requiredString(path string, v any) string {
	s, ok := v.(string)
	if !ok || s == "" {
		d.addf(path, "must be a string")
	}
	return s
}

func (d *decoder) optionalString(path string, v any) string {
	if v == nil {
		return ""
	}
	return d.requiredString(path, v)
}

func (d *decoder) stringList(path string, v any) (out []string) {
	list, ok := v.([]any)
	if !ok {
		d.addf(path, "must be a list")
	}
	for i, e := range list {
		out = append(out, d.requiredString(index(path, i), e))
	}
	return out
}
