// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Parameter is a parameter's declaration.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html
type Parameter struct {
	Type           string
	Description    string
	Default        *string
	AllowedValues  []string
	AllowedPattern *regexp.Regexp
	MinValue       *float64
	MaxValue       *float64
	MinLength      *int
	MaxLength      *int
	Constraint     string // ConstraintDescription
}

const ssmValue = "AWS::SSM::Parameter::Value<"

// scalarTypes and listTypes are the parameter types that the engine knows.
var (
	scalarTypes = []string{"String", "Number", "AWS::EC2::VPC::Id", "AWS::EC2::SecurityGroup::Id", "AWS::EC2::Image::Id"}
	listTypes   = []string{"CommaDelimitedList", "List<AWS::EC2::Subnet::Id>", "List<AWS::EC2::SecurityGroup::Id>"}
)

// idPrefix is how the IDs of a parameter type start.
var idPrefix = map[string]string{
	"AWS::EC2::VPC::Id": "vpc-", "AWS::EC2::SecurityGroup::Id": "sg-", "AWS::EC2::Image::Id": "ami-",
	"List<AWS::EC2::Subnet::Id>": "subnet-", "List<AWS::EC2::SecurityGroup::Id>": "sg-",
}

// inner is the type of the value that an SSM parameter's type stands for.
func (p Parameter) inner() (string, bool) {
	in, ok := strings.CutPrefix(p.Type, ssmValue)
	if !ok {
		return p.Type, false
	}
	return strings.TrimSuffix(in, ">"), true
}

// IsList says whether Ref returns a list.
func (p Parameter) IsList() bool {
	t, _ := p.inner()
	return slices.Contains(listTypes, t)
}

func (d *decoder) parameter(at string, v any) Parameter {
	m := d.object(at, v, []string{
		"Type", "Description", "Default", "AllowedValues", "AllowedPattern", "MinValue", "MaxValue", "MinLength", "MaxLength",
		"ConstraintDescription",
	})
	p := Parameter{
		Type:        d.requiredString(at+".Type", m["Type"]),
		Description: d.optionalString(at+".Description", m["Description"]),
		Constraint:  d.optionalString(at+".ConstraintDescription", m["ConstraintDescription"]),
	}
	if t, _ := p.inner(); !slices.Contains(scalarTypes, t) && !slices.Contains(listTypes, t) {
		d.addf(at+".Type", "unknown parameter type %s", p.Type)
	}
	if v, ok := m["Default"]; ok {
		s := text(v)
		p.Default = &s
	}
	if list, ok := m["AllowedValues"].([]any); ok {
		for _, v := range list {
			p.AllowedValues = append(p.AllowedValues, text(v))
		}
	}
	if s := d.optionalPattern(at+".AllowedPattern", m["AllowedPattern"]); s != nil {
		p.AllowedPattern = s
	}
	p.MinValue, p.MaxValue = d.number(at+".MinValue", m["MinValue"]), d.number(at+".MaxValue", m["MaxValue"])
	p.MinLength, p.MaxLength = d.whole(at+".MinLength", m["MinLength"]), d.whole(at+".MaxLength", m["MaxLength"])
	if p.Default != nil {
		if _, err := p.value(*p.Default, nil); err != nil {
			d.addf(at+".Default", "%v", err)
		}
	}
	return p
}

// optionalPattern reads an AllowedPattern: all of the value has to match it.
func (d *decoder) optionalPattern(at string, v any) *regexp.Regexp {
	if v == nil {
		return nil
	}
	re, err := regexp.Compile("^(?:" + text(v) + ")$")
	if err != nil {
		d.addf(at, "%v", err)
	}
	return re
}

func (d *decoder) number(at string, v any) *float64 {
	if v == nil {
		return nil
	}
	f, err := strconv.ParseFloat(text(v), 64)
	if err != nil {
		d.addf(at, "must be a number")
	}
	return &f
}

func (d *decoder) whole(at string, v any) *int {
	if v == nil {
		return nil
	}
	n, err := strconv.Atoi(text(v))
	if err != nil {
		d.addf(at, "must be a whole number")
	}
	return &n
}

// value checks a given value, and returns what Ref does: a string, or a list of them. ssm knows the values of SSM
// parameters; nil leaves them unresolved.
func (p Parameter) value(given string, ssm func(string) (string, bool)) (any, error) {
	if len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, given) {
		return nil, p.refuse(given, "must be one of "+strings.Join(p.AllowedValues, ", "))
	}
	kind, indirect := p.inner()
	if indirect {
		if ssm == nil {
			return given, nil
		}
		found, ok := ssm(given)
		if !ok {
			return nil, fmt.Errorf("there is no SSM parameter %s", given)
		}
		given = found
	}
	if !slices.Contains(listTypes, kind) {
		return given, p.check(kind, given)
	}
	list := []any{}
	if given == "" { // as CloudFormation: the empty string is a list without elements only for the AWS types
		if kind != "CommaDelimitedList" {
			return nil, p.refuse(given, "must not be empty")
		}
		return append(list, ""), p.check(kind, "")
	}
	for _, s := range strings.Split(given, ",") {
		s = strings.TrimSpace(s)
		if err := p.check(kind, s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// check judges one value by the constraints.
func (p Parameter) check(kind, s string) error {
	if kind == "Number" {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return p.refuse(s, "must be a number")
		}
		if p.MinValue != nil && f < *p.MinValue || p.MaxValue != nil && f > *p.MaxValue {
			return p.refuse(s, "is out of range")
		}
	}
	switch {
	case p.AllowedPattern != nil && !p.AllowedPattern.MatchString(s):
		return p.refuse(s, "must match "+p.AllowedPattern.String())
	case p.MinLength != nil && len(s) < *p.MinLength || p.MaxLength != nil && len(s) > *p.MaxLength:
		return p.refuse(s, "has the wrong length")
	case !strings.HasPrefix(s, idPrefix[kind]):
		return p.refuse(s, "is no "+kind)
	}
	return nil
}

func (p Parameter) refuse(given, reason string) error {
	if p.Constraint != "" {
		reason += ": " + p.Constraint
	}
	return fmt.Errorf("%q %s", given, reason)
}

// bind gives every parameter its value.
func (t *Template) bind(given map[string]string, ssm func(string) (string, bool)) (map[string]any, error) {
	d := &decoder{}
	values := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, ok := t.Parameters[name]; !ok {
			d.addf("Parameters."+name, "the template has no such parameter")
		}
	}
	if ssm == nil {
		ssm = func(string) (string, bool) { return "", false }
	}
	for name, p := range t.Parameters {
		s, ok := given[name]
		switch {
		case ok:
		case p.Default != nil:
			s = *p.Default
		default:
			d.addf("Parameters."+name, "has no default: it must be given")
			continue
		}
		v, err := p.value(s, ssm)
		if err != nil {
			d.addf("Parameters."+name, "%v", err)
		}
		values[name] = v
	}
	return values, d.err()
}

// text is a scalar as CloudFormation makes a string of it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}
