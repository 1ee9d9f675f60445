// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// action serves one EC2 action.
type action func(c *call, form url.Values) (answer, error)

// handle makes an action of a function of its parameters. In is a struct whose fields carry the parameter's name,
//
//	NetworkInterfaceID string       `ec2:"NetworkInterfaceId,required"`
//	Addresses          []netip.Addr `ec2:"PrivateIpAddress"`   // PrivateIpAddress.1, PrivateIpAddress.2, …
//
// so a parameter that In does not have is refused. If In has a DryRun field, a dry run is answered as EC2 does: all that
// can be said without the account's state has been checked.
func handle[In any, Out answer](run func(*call, In) (Out, error)) action {
	return func(c *call, form url.Values) (answer, error) {
		var in In
		if err := decode(form, &in); err != nil {
			return nil, err
		}
		if f := reflect.ValueOf(in).FieldByName("DryRun"); f.IsValid() && f.Bool() {
			// https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-error-codes.html (DryRunOperation)
			return nil, &vpc.APIError{
				Code: "DryRunOperation", Message: "Request would have succeeded, but DryRun flag is set.", Status: 412,
			}
		}
		return run(c, in)
	}
}

// node is one level of the dotted parameter names.
type node struct {
	name     string // whole, for errors
	value    *string
	children map[string]*node
	used     bool
}

func decode(form url.Values, into any) error {
	root := &node{children: map[string]*node{}}
	for name, values := range form {
		if name == "Action" || name == "Version" || strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if len(values) > 1 {
			return vpc.Errorf("InvalidParameterCombination", "The parameter %s may only be specified once", name)
		}
		n := root
		for part := range strings.SplitSeq(name, ".") {
			next := n.children[part]
			if next == nil {
				next = &node{name: strings.TrimPrefix(n.name+"."+part, "."), children: map[string]*node{}}
				n.children[part] = next
			}
			n = next
		}
		n.value = &values[0]
	}
	if err := root.structInto(reflect.ValueOf(into).Elem()); err != nil {
		return err
	}
	return root.unknown()
}

// unknown refuses the first parameter that was not read.
// The wording: https://github.com/hashicorp/terraform-provider-aws/issues/12208
func (n *node) unknown() error {
	if n.value != nil && !n.used {
		return vpc.Errorf("UnknownParameter", "The parameter %s is not recognized", n.name)
	}
	var names []string
	for name := range n.children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := n.children[name].unknown(); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) structInto(v reflect.Value) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if err := n.structInto(v.Field(i)); err != nil {
				return err
			}
			continue
		}
		name, option, _ := strings.Cut(f.Tag.Get("ec2"), ",")
		child := n.children[name]
		if child == nil {
			if option == "required" {
				full := strings.TrimPrefix(n.name+"."+name, ".")
				return vpc.Errorf("MissingParameter", "The request must contain the parameter %s", full)
			}
			continue
		}
		if err := child.into(v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) into(v reflect.Value) error {
	switch v.Interface().(type) {
	case netip.Addr, netip.Prefix, string, int, bool:
		return n.scalar(v)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return n.into(v.Elem())
	case reflect.Slice:
		return n.listInto(v)
	case reflect.Struct:
		return n.structInto(v)
	}
	panic("ec2api: no parameter can be a " + v.Type().String())
}

// listInto reads Name.1, Name.2, … in the order of their numbers, which need not be without gaps.
func (n *node) listInto(v reflect.Value) error {
	var numbers []int
	for name := range n.children {
		number, err := strconv.Atoi(name)
		if err != nil || number < 1 || strconv.Itoa(number) != name {
			return vpc.Errorf("UnknownParameter", "The parameter %s is not recognized", n.children[name].name)
		}
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	for _, number := range numbers {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := n.children[strconv.Itoa(number)].into(item); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	}
	return nil
}

func (n *node) scalar(v reflect.Value) error {
	if n.value == nil {
		return nil // only Name.something was given, which stays unread
	}
	n.used = true
	s := *n.value
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = s
	case *int:
		i, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return n.invalid(s)
		}
		*p = int(i)
	case *bool:
		b, err := strconv.ParseBool(strings.ToLower(s))
		if err != nil || len(s) < 2 {
			return n.invalid(s)
		}
		*p = b
	case *netip.Addr:
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			// https://github.com/hashicorp/terraform-provider-aws/issues/23114
			return vpc.InvalidValue("invalid value for parameter address: %s", s)
		}
		*p = a
	case *netip.Prefix:
		x, err := netip.ParsePrefix(s)
		if err != nil {
			// unverified: the wording.
			return vpc.InvalidValue("Value (%s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", s)
		}
		*p = x
	}
	return nil
}

// unverified: the wording, which differs between actions.
func (n *node) invalid(value string) error {
	return vpc.InvalidValue("Invalid value '%s' for parameter %s", value, n.name)
}
