// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package iam

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

// document reads a policy in YAML, as templates have it.
func document(t *testing.T, text string) any {
	t.Helper()
	var out any
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWhatIsNotAllowedIsDenied(t *testing.T) {
	policy, err := ParsePolicy(document(t, `
Version: "2012-10-17"
Statement:
- {Effect: Allow, Action: ["ec2:Describe*", "ec2:GetSubnetCidrReservations"], Resource: "*"}
- Effect: Allow
  Action: ec2:DeleteNetworkInterface
  Resource: arn:aws:ec2:us-west-2:1:network-interface/*
  Condition:
    StringEquals: {"aws:ResourceTag/owner": [g, h], "aws:ResourceTag/team": core}
- {Effect: Allow, Action: "ec2:CreateNetworkInterface", Resource: "*", Condition: {ArnEquals: {"ec2:Vpc": "arn:aws:ec2:*:1:vpc/vpc-?"}}}
- {Effect: Deny, Action: "ec2:DescribeVpcs", Resource: "*"}
- {Effect: Allow, Action: "ec2:AssignPrivateIpAddresses", Resource: "*", Condition: {"Null": {"lambda:SourceFunctionArn": "true"}}}
- {Effect: Allow, Action: "ec2:UnassignPrivateIpAddresses", Resource: "*", Condition: {"Null": {"lambda:SourceFunctionArn": "false"}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	role := Role{Policies: []Policy{policy}}
	eni := "arn:aws:ec2:us-west-2:1:network-interface/eni-1"
	for _, tc := range []struct {
		action, resource string
		keys             map[string]string
		want             bool
	}{
		{"ec2:DescribeSubnets", "*", nil, true},
		{"ec2:AssignPrivateIpAddresses", "*", nil, true},
		{"ec2:AssignPrivateIpAddresses", "*", map[string]string{"lambda:SourceFunctionArn": "f"}, false},
		{"ec2:UnassignPrivateIpAddresses", "*", nil, false},
		{"ec2:UnassignPrivateIpAddresses", "*", map[string]string{"lambda:SourceFunctionArn": "f"}, true},
		{"EC2:describesubnets", "*", nil, true},
		{"ec2:DescribeVpcs", "*", nil, false},
		{"ec2:RunInstances", "*", nil, false},
		{"ec2:DeleteNetworkInterface", eni, map[string]string{"aws:ResourceTag/owner": "h", "aws:ResourceTag/team": "core"}, true},
		{"ec2:DeleteNetworkInterface", eni, map[string]string{"aws:ResourceTag/owner": "g*", "aws:ResourceTag/team": "core"}, false},
		{"ec2:DeleteNetworkInterface", eni, map[string]string{"aws:ResourceTag/owner": "g"}, false},
		{"ec2:DeleteNetworkInterface", "arn:aws:ec2:us-west-2:1:instance/i-1", map[string]string{"aws:ResourceTag/owner": "g", "aws:ResourceTag/team": "core"}, false},
		{"ec2:CreateNetworkInterface", eni, map[string]string{"ec2:Vpc": "arn:aws:ec2:us-west-2:1:vpc/vpc-1"}, true},
		{"ec2:CreateNetworkInterface", eni, map[string]string{"ec2:Vpc": "arn:aws:ec2:us-west-2:1:vpc/vpc-12"}, false},
	} {
		if got := role.allows(Request{Action: tc.action, Resource: tc.resource, Keys: tc.keys}); got != tc.want {
			t.Errorf("%s on %s with %v: allowed %v, want %v", tc.action, tc.resource, tc.keys, got, tc.want)
		}
	}
}

func TestPoliciesAreReadStrictly(t *testing.T) {
	for text, want := range map[string]string{
		`{Version: "2008-10-17", Statement: []}`:                                                          "Version: the lab reads 2012-10-17",
		`{Version: "2012-10-17", Statement: [{Effect: allow, Action: a, Resource: r}]}`:                   "Statement[0].Effect: must be Allow or Deny",
		`{Version: "2012-10-17", Statement: {Effect: Allow, Action: a}}`:                                  "Statement[0].Resource: must be a string",
		`{Version: "2012-10-17", Statement: {Effect: Allow, NotAction: a, Resource: r}}`:                  "Statement[0].NotAction: the lab does not know it",
		`{Version: "2012-10-17", Statement: {Effect: Allow, Action: a, Resource: "${aws:username}"}}`:     "no policy variables",
		`{Version: "2012-10-17", Statement: {Effect: Allow, Action: a, Resource: r, Condition: {B: {}}}}`: "Statement[0].Condition.B: the lab does not know the operator",
	} {
		if _, err := ParsePolicy(document(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q", text, err, want)
		}
	}
}

// TestAFunctionIsKnownByItsCalls: what only Lambda itself may do with a function's role, the function may not.
func TestAFunctionIsKnownByItsCalls(t *testing.T) {
	policy, err := ParsePolicy(document(t, `
Version: "2012-10-17"
Statement: {Effect: Allow, Action: "ec2:DeleteNetworkInterface", Resource: "*", Condition: {"Null": {"lambda:SourceFunctionArn": "true"}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	s := New("1")
	s.PutRole(Role{ARN: "arn:aws:iam::1:role/r", Policies: []Policy{policy}, Services: []string{"lambda.amazonaws.com", "ec2.amazonaws.com"}})
	q := []Request{{Action: "ec2:DeleteNetworkInterface", Resource: "*"}}
	for service, may := range map[string]bool{"lambda.amazonaws.com": false, "ec2.amazonaws.com": true} {
		if err := s.Assume(service, service, "arn:aws:iam::1:role/r"); err != nil {
			t.Fatal(err)
		}
		if err := s.Judge(service, q); (err == nil) != may {
			t.Errorf("%s: %v", service, err)
		}
	}
}

// FuzzParsePolicy: what is accepted is judged without a panic, and allows nothing that it does not name.
func FuzzParsePolicy(f *testing.F) {
	for _, text := range []string{
		`{Version: "2012-10-17", Statement: {Effect: Allow, Action: "ec2:*", Resource: "*"}}`,
		`{Version: "2012-10-17", Statement: [{Effect: Deny, Action: [a, b], Resource: [r], Condition: {StringLike: {k: ["v*", "?"]}}}]}`,
		`{Version: "2012-10-17", Statement: []}`,
		`[]`,
	} {
		f.Add(text, "ec2:DescribeSubnets", "*")
	}
	f.Fuzz(func(t *testing.T, text, action, resource string) {
		var in any
		if yaml.Unmarshal([]byte(text), &in) != nil {
			return
		}
		p, err := ParsePolicy(in)
		if err != nil {
			return
		}
		plain, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		role := Role{Policies: []Policy{p}}
		if role.allows(Request{Action: action, Resource: resource}) && !strings.Contains(string(plain), `"Allow"`) {
			t.Errorf("%s allows %s on %s", text, action, resource)
		}
	})
}

func TestPatternsMatchAsExpressionsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?")), 0, 8, -1).Draw(t, "pattern")
		value := rapid.StringOfN(rapid.SampledFrom([]rune("ab")), 0, 8, -1).Draw(t, "value")
		expression := "^" + strings.NewReplacer("*", ".*", "?", ".").Replace(pattern) + "$"
		if got, want := matches(pattern, value), regexp.MustCompile(expression).MatchString(value); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, value, got, want)
		}
	})
}
