// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
)

// everywhere are the actions that may stand with Resource "*", and why.
var everywhere = map[string]string{
	"ec2:DescribeInstanceTypes":     describe,
	"ec2:DescribeInstances":         describe,
	"ec2:DescribeNetworkInterfaces": describe,
	"ec2:DescribeSecurityGroups":    describe,
	"ec2:DescribeSubnets":           describe,
	"ec2:GetSubnetCidrReservations": describe,
}

const describe = "the Service Authorization Reference lists no resource types for it"

// actionFacts is testdata/actions.json.
type actionFacts struct {
	Actions map[string]struct {
		Resources map[string][]string
		Keys      []string
	}
}

// statement is one of a policy, with its functions in place.
type statement struct {
	file, resource string
	policy, sid    string
	actions        []string
	resources      []string
	condition      map[string]any
}

func TestPoliciesGrantNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	facts := readActions(t)
	granted := map[string]bool{}
	for _, s := range statements(t) {
		for _, p := range s.problems(facts) {
			t.Errorf("%s: %s: statement %s: %s", s.file, s.resource, s.sid, p)
		}
		for _, a := range s.actions {
			granted[a] = true
		}
	}
	for a := range everywhere {
		if !granted[a] {
			t.Errorf("%s is an exception that no policy needs", a)
		}
	}
	for a := range facts.Actions {
		if !granted[a] {
			t.Errorf("testdata/actions.json has %s, which no policy grants", a)
		}
	}
	if len(granted) < 20 {
		t.Errorf("only %d actions were looked at", len(granted))
	}
}

// problems judges a statement.
func (s statement) problems(facts actionFacts) (problems []string) {
	for _, a := range s.actions {
		fact, known := facts.Actions[a]
		if strings.Contains(a, "*") {
			problems = append(problems, a+" has a wildcard")
			continue
		}
		if !known {
			problems = append(problems, a+" is not in testdata/actions.json")
			continue
		}
		for _, r := range s.resources {
			problems = append(problems, s.resourceProblems(a, r, fact.Resources, fact.Keys)...)
		}
	}
	return problems
}

func (s statement) resourceProblems(action, arn string, types map[string][]string, keys []string) (problems []string) {
	if arn == "*" {
		switch {
		case len(types) > 0:
			return []string{action + " knows resources: it must not stand with *"}
		case everywhere[action] == "":
			return []string{action + " stands with * without a reason in the test"}
		}
		return nil
	}
	kind := resourceType(arn)
	allowed, ok := types[kind+"*"]
	if !ok {
		if allowed, ok = types[kind]; !ok {
			return []string{fmt.Sprintf("%s has no resource type %s", action, kind)}
		}
	}
	if strings.HasSuffix(arn, "/*") && len(s.condition) == 0 {
		problems = append(problems, fmt.Sprintf("%s on every %s needs a condition", action, kind))
	}
	for _, operator := range s.condition {
		for key := range operator.(map[string]any) {
			pattern := tagKey.ReplaceAllString(key, "$1/$${TagKey}")
			if !slices.Contains(allowed, pattern) && !slices.Contains(keys, pattern) && key != sourceFunction {
				problems = append(problems, fmt.Sprintf("%s on %s does not know the condition key %s", action, kind, key))
			}
		}
	}
	return problems
}

// sourceFunction is in each request that a function's own program makes, to any service, and in none of those that Lambda makes
// for it with its role.
// https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
const sourceFunction = "lambda:SourceFunctionArn"

var tagKey = regexp.MustCompile("^(aws:(?:Request|Resource)Tag)/.+$")

// resourceType is what the Service Authorization Reference calls the type of an ARN of the templates.
func resourceType(arn string) string {
	if strings.HasPrefix(arn, "GetAtt LambdaDeadLetters.Arn") {
		return "queue"
	}
	parts := strings.Split(arn, ":")
	if len(parts) < 6 {
		return arn
	}
	switch parts[2] {
	case "logs":
		return "log-stream"
	case "autoscaling":
		return parts[5]
	}
	kind, _, _ := strings.Cut(parts[5], "/")
	return kind
}

// TestThePolicyRulesBite feeds the rules what they must catch.
func TestThePolicyRulesBite(t *testing.T) {
	t.Parallel()
	facts := readActions(t)
	eni := "arn:p:ec2:r:a:network-interface/*"
	ours := map[string]any{"StringEquals": map[string]any{"aws:ResourceTag/multus-vpc.io/owner": "a"}}
	for _, tc := range []struct {
		s    statement
		want string
	}{
		{statement{actions: []string{"ec2:*"}, resources: []string{eni}}, "has a wildcard"},
		{statement{actions: []string{"ec2:Assign*"}, resources: []string{eni}}, "has a wildcard"},
		{statement{actions: []string{"ec2:RunInstances"}, resources: []string{eni}}, "is not in testdata"},
		{statement{actions: []string{"ec2:DeleteNetworkInterface"}, resources: []string{"*"}}, "must not stand with *"},
		{statement{actions: []string{"ec2:DeleteNetworkInterface"}, resources: []string{eni}}, "needs a condition"},
		{statement{actions: []string{"ec2:DeleteNetworkInterface"}, resources: []string{"arn:p:ec2:r:a:subnet/*"}, condition: ours}, "has no resource type subnet"},
		{statement{actions: []string{"ec2:CreateNetworkInterface"}, resources: []string{eni}, condition: ours}, "does not know the condition key aws:ResourceTag/multus-vpc.io/owner"},
		{statement{actions: []string{"ec2:DeleteNetworkInterface"}, resources: []string{eni}, condition: ours}, ""},
	} {
		got := strings.Join(tc.s.problems(facts), "; ")
		if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%v on %v: got %q, want %q", tc.s.actions, tc.s.resources, got, tc.want)
		}
	}
}

// TestTheREADMEsPermissionsAreTheTemplates holds the roles of the agent, the sidecar and the function to what the pages say that
// the programs need.
func TestTheREADMEsPermissionsAreTheTemplates(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ file, resource, policy, page string }{
		{"pod-roles.yaml", "AgentRole", "addresses", "../../README.md"},
		{"pod-roles.yaml", "AgentRole", "interfaces", "../../docs/interfaces.md"},
		{"pod-roles.yaml", "SidecarRole", "addresses", "../../sidecar/README.md"},
		{"multus-node-group.yaml", "LambdaRole", "multus-interfaces", "../../lambda/README.md"},
	} {
		page := tc.page
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		_, section, ok := strings.Cut(string(data), "## Permissions")
		if !ok {
			t.Fatalf("%s has no section Permissions", page)
		}
		section, _, _ = strings.Cut(section, "\n#")
		var want, got []string
		for _, m := range regexp.MustCompile("`([a-z0-9]+:[A-Z][A-Za-z0-9]+)`").FindAllStringSubmatch(section, -1) {
			want = append(want, m[1])
		}
		for _, s := range statements(t) {
			if s.file == tc.file && s.resource == tc.resource && s.policy == tc.policy {
				got = append(got, s.actions...)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(slices.Compact(want), got) {
			t.Errorf("%s: the template grants %v, %s says %v", tc.resource, got, page, want)
		}
	}
}

// statements finds every statement of every permission policy: trust policies have principals instead of resources.
func statements(t *testing.T) (out []statement) {
	t.Helper()
	for file, parsed := range templates(t) {
		for id, r := range parsed.Resources {
			for _, d := range documents(r.Properties) {
				for _, v := range list(d.body["Statement"]) {
					m := v.(map[string]any)
					if m["Principal"] != nil {
						continue
					}
					s := statement{file: file, resource: id, policy: d.policy, sid: fmt.Sprint(m["Sid"])}
					if m["Effect"] != "Allow" || m["NotAction"] != nil || m["NotResource"] != nil {
						t.Errorf("%s: %s: statement %s is not a plain Allow", file, id, s.sid)
					}
					for _, a := range list(m["Action"]) {
						s.actions = append(s.actions, a.(string))
					}
					for _, a := range list(m["Resource"]) {
						s.resources = append(s.resources, plain(a))
					}
					s.condition, _ = m["Condition"].(map[string]any)
					out = append(out, s)
				}
			}
		}
	}
	return out
}

// document is a policy.
type document struct {
	policy string // its name, of an inline policy
	body   map[string]any
}

// documents finds policies: objects with a Statement, wherever they are, also as the text of an Fn::Sub.
func documents(v any) (out []document) {
	switch v := v.(type) {
	case string:
		var body map[string]any
		if err := json.Unmarshal([]byte(variables.ReplaceAllString(v, "x")), &body); err == nil && body["Statement"] != nil {
			return []document{{body: body}}
		}
	case map[string]any:
		if _, ok := v["Statement"]; ok {
			return []document{{body: v}}
		}
		if name, ok := v["PolicyName"].(string); ok {
			out = documents(v["PolicyDocument"])
			for n := range out {
				out[n].policy = name
			}
			return out
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, documents(v[k])...)
		}
	case []any:
		for _, e := range v {
			out = append(out, documents(e)...)
		}
	}
	return out
}

// variables are those of an Fn::Sub.
var variables = regexp.MustCompile(`\$\{[^}]*\}`)

func list(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}

// plain is an ARN as the template has it, with its variables unresolved.
func plain(v any) string {
	name, argument, ok := cloudformation.Function(v)
	switch {
	case !ok:
		return fmt.Sprint(v)
	case name == "Fn::Sub":
		return variables.ReplaceAllString(fmt.Sprint(argument), "x")
	case name == "Fn::GetAtt":
		return fmt.Sprintf("GetAtt %v.%v", argument.([]any)...)
	}
	return name
}

func readActions(t *testing.T) (f actionFacts) {
	t.Helper()
	data, err := os.ReadFile("testdata/actions.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	return f
}
