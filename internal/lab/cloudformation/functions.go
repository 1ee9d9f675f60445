// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// shortForms are the tags of YAML that stand for a function.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html
var shortForms = map[string]string{
	"!And": "Fn::And", "!Base64": "Fn::Base64", "!Cidr": "Fn::Cidr", "!Condition": "Condition", "!Equals": "Fn::Equals", "!GetAtt": "Fn::GetAtt",
	"!GetAZs": "Fn::GetAZs", "!If": "Fn::If", "!Join": "Fn::Join", "!Not": "Fn::Not", "!Or": "Fn::Or", "!Ref": "Ref",
	"!Select": "Fn::Select", "!Split": "Fn::Split", "!Sub": "Fn::Sub",
}

// Function splits a value into a function's name and its argument, when it is one: {"Fn::Sub": …}.
func Function(v any) (name string, argument any, ok bool) {
	m, isMap := v.(map[string]any)
	if !isMap || len(m) != 1 {
		return "", nil, false
	}
	for k, v := range m {
		name, argument = k, v
	}
	return name, argument, name == "Ref" || strings.HasPrefix(name, "Fn::")
}

// noValue is what AWS::NoValue resolves to: the property is left out.
type noValue struct{}

// resolve computes a value: strings, bools, numbers, maps and lists without functions.
func (s *scope) resolve(path string, v any) (any, error) {
	if name, argument, ok := Function(v); ok {
		return s.call(path, name, argument)
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			r, err := s.resolve(join(path, k), v[k])
			if err != nil {
				return nil, err
			}
			if r != (noValue{}) {
				out[k] = r
			}
		}
		return out, nil
	case []any:
		out := []any{}
		for i, e := range v {
			r, err := s.resolve(index(path, i), e)
			if err != nil {
				return nil, err
			}
			if r != any(noValue{}) {
				out = append(out, r)
			}
		}
		return out, nil
	default:
		return v, nil
	}
}

func (s *scope) call(path, name string, argument any) (any, error) {
	path = join(path, name)
	switch name {
	case "Ref":
		return s.ref(path, argument)
	case "Fn::GetAtt":
		return s.getAtt(path, argument)
	case "Fn::Sub":
		return s.sub(path, argument)
	case "Fn::If":
		return s.choose(path, argument)
	case "Fn::GetAZs":
		return s.zones(path, argument)
	case "Fn::Base64":
		v, err := s.str(path, argument)
		return base64.StdEncoding.EncodeToString([]byte(v)), err
	case "Fn::Join":
		return s.join(path, argument)
	case "Fn::Split":
		return s.split(path, argument)
	case "Fn::Select":
		return s.selectOne(path, argument)
	case "Fn::Cidr":
		return s.cidrs(path, argument)
	default:
		return nil, fmt.Errorf("%s: the lab does not know this function", path)
	}
}

func (s *scope) ref(path string, argument any) (any, error) {
	name, ok := argument.(string)
	if !ok {
		return nil, fmt.Errorf("%s: wants a name", path)
	}
	if name == "AWS::NoValue" {
		return noValue{}, nil
	}
	if v, ok := s.pseudo[name]; ok {
		return v, nil
	}
	if v, ok := s.parameters[name]; ok {
		return v, nil
	}
	if p, ok := s.made[name]; ok {
		return p.Ref, nil
	}
	return nil, fmt.Errorf("%s: %s was not made: its condition is false", path, name)
}

func (s *scope) getAtt(path string, argument any) (any, error) {
	list, _ := argument.([]any)
	if len(list) != 2 {
		return nil, fmt.Errorf("%s: wants a resource and an attribute", path)
	}
	id, attribute := text(list[0]), text(list[1])
	p, ok := s.made[id]
	if !ok {
		return nil, fmt.Errorf("%s: %s was not made: its condition is false", path, id)
	}
	if v, ok := p.Attributes[attribute]; ok {
		return v, nil
	}
	kind := s.template.Resources[id].Type
	if lister, ok := s.providers[kind].(Lister); ok {
		if values, ok := lister.List(p, attribute); ok {
			out := []any{}
			for _, v := range values {
				out = append(out, v)
			}
			return out, nil
		}
	}
	return nil, fmt.Errorf("%s: the lab's %s has no attribute %s", path, kind, attribute)
}

func (s *scope) sub(path string, argument any) (any, error) {
	body, own := argument, map[string]any{}
	if list, ok := argument.([]any); ok {
		if len(list) != 2 {
			return nil, fmt.Errorf("%s: wants a string and a map", path)
		}
		body = list[0]
		v, err := s.resolve(path, list[1])
		if err != nil {
			return nil, err
		}
		if own, ok = v.(map[string]any); !ok {
			return nil, fmt.Errorf("%s: wants a string and a map", path)
		}
	}
	in, ok := body.(string)
	if !ok {
		return nil, fmt.Errorf("%s: wants a string", path)
	}
	return expand(path, in, func(name string) (string, error) {
		var v any
		var err error
		if resource, attribute, dotted := strings.Cut(name, "."); dotted {
			v, err = s.getAtt(path, []any{resource, attribute})
		} else if v, ok = own[name]; !ok {
			v, err = s.ref(path, name)
		}
		if err != nil {
			return "", err
		}
		if !isScalar(v) {
			return "", fmt.Errorf("%s: ${%s} is no string", path, name)
		}
		return text(v), nil
	})
}

// expand replaces each ${name} of a Fn::Sub; ${!name} stands for itself without the mark.
func expand(path, in string, value func(name string) (string, error)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(in, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("%s: a ${ is not closed", path)
		}
		in = after
		if literal, ok := strings.CutPrefix(name, "!"); ok {
			b.WriteString("${" + literal + "}")
			continue
		}
		v, err := value(strings.TrimSpace(name))
		if err != nil {
			return "", err
		}
		b.WriteString(v)
	}
}

func (s *scope) choose(path string, argument any) (any, error) {
	list, _ := argument.([]any)
	if len(list) != 3 {
		return nil, fmt.Errorf("%s: wants a condition and two values", path)
	}
	holds, err := s.condition(path, text(list[0]))
	if err != nil {
		return nil, err
	}
	if holds {
		return s.resolve(index(path, 1), list[1])
	}
	return s.resolve(index(path, 2), list[2])
}

func (s *scope) zones(path string, argument any) (any, error) {
	region, err := s.str(path, argument)
	if err != nil {
		return nil, err
	}
	if region != "" && region != s.pseudo["AWS::Region"] {
		return nil, fmt.Errorf("%s: the lab has the Region %s only, not %s", path, s.pseudo["AWS::Region"], region)
	}
	out := []any{}
	for _, z := range s.azs {
		out = append(out, z)
	}
	return out, nil
}

func (s *scope) join(path string, argument any) (any, error) {
	separator, list, err := s.pair(path, argument)
	if err != nil {
		return nil, err
	}
	elements, ok := list.([]any)
	if !ok {
		return nil, fmt.Errorf("%s: wants a separator and a list", path)
	}
	var parts []string
	for i, e := range elements {
		if !isScalar(e) {
			return nil, fmt.Errorf("%s: is no string", index(path, i))
		}
		parts = append(parts, text(e))
	}
	return strings.Join(parts, text(separator)), nil
}

func (s *scope) split(path string, argument any) (any, error) {
	separator, v, err := s.pair(path, argument)
	if err != nil {
		return nil, err
	}
	in, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("%s: wants a separator and a string", path)
	}
	out := []any{}
	for _, part := range strings.Split(in, text(separator)) {
		out = append(out, part)
	}
	return out, nil
}

func (s *scope) selectOne(path string, argument any) (any, error) {
	at, v, err := s.pair(path, argument)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	i, err := strconv.Atoi(text(at))
	if !ok || err != nil {
		return nil, fmt.Errorf("%s: wants a number and a list", path)
	}
	if i < 0 || i >= len(list) {
		return nil, fmt.Errorf("%s: there is no element %d, the list has %d", path, i, len(list))
	}
	return list[i], nil
}

// cidrs cuts a block into a list of smaller ones, which leave so many bits to the host.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference-cidr.html
func (s *scope) cidrs(path string, argument any) (any, error) {
	v, err := s.resolve(path, argument)
	if err != nil {
		return nil, err
	}
	list, _ := v.([]any)
	if len(list) != 3 {
		return nil, fmt.Errorf("%s: wants a block, a count and a number of bits", path)
	}
	block, err := netip.ParsePrefix(text(list[0]))
	if err != nil || block != block.Masked() {
		return nil, fmt.Errorf("%s: %q is no block", path, text(list[0]))
	}
	count, badCount := strconv.Atoi(text(list[1]))
	hostBits, badBits := strconv.Atoi(text(list[2]))
	bits := block.Addr().BitLen() - hostBits
	switch {
	case badCount != nil || count < 1 || count > 256:
		return nil, fmt.Errorf("%s: the count must be 1 to 256", path)
	case badBits != nil || hostBits < 0 || bits < block.Bits() || bits-block.Bits() < 8 && count > 1<<(bits-block.Bits()):
		return nil, fmt.Errorf("%s: %s has no %d blocks of %d bits", path, block, count, hostBits)
	}
	out := []any{}
	next := netip.PrefixFrom(block.Addr(), bits)
	for range count {
		out = append(out, next.String())
		last := new(big.Int).SetBytes(next.Addr().AsSlice())
		last.Add(last, new(big.Int).Lsh(big.NewInt(1), uint(hostBits)))
		a, _ := netip.AddrFromSlice(last.FillBytes(make([]byte, len(next.Addr().AsSlice())+1))[1:])
		next = netip.PrefixFrom(a, bits)
	}
	return out, nil
}

// pair resolves a function's two arguments.
func (s *scope) pair(path string, argument any) (first, second any, err error) {
	list, _ := argument.([]any)
	if len(list) != 2 {
		return nil, nil, fmt.Errorf("%s: wants two arguments", path)
	}
	if first, err = s.resolve(index(path, 0), list[0]); err != nil {
		return nil, nil, err
	}
	second, err = s.resolve(index(path, 1), list[1])
	return first, second, err
}

func (s *scope) str(path string, argument any) (string, error) {
	v, err := s.resolve(path, argument)
	if err != nil {
		return "", err
	}
	if !isScalar(v) {
		return "", fmt.Errorf("%s: wants a string", path)
	}
	return text(v), nil
}

func isScalar(v any) bool {
	switch v.(type) {
	case string, bool, int64, float64:
		return true
	default:
		return false
	}
}
