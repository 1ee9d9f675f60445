// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
)

// TestParametersAreShownAndHeld: each parameter has a description, is in exactly one group, and says what a wrong value
// should have been.
func TestParametersAreShownAndHeld(t *testing.T) {
	t.Parallel()
	for file, parsed := range templates(t) {
		shown := map[string]int{}
		face, _ := parsed.Metadata["AWS::CloudFormation::Interface"].(map[string]any)
		for _, g := range list(face["ParameterGroups"]) {
			for _, p := range list(g.(map[string]any)["Parameters"]) {
				shown[p.(string)]++
			}
		}
		labels, _ := face["ParameterLabels"].(map[string]any)
		for name := range labels {
			if _, ok := parsed.Parameters[name]; !ok {
				t.Errorf("%s: a label for %s, which is no parameter", file, name)
			}
		}
		for name, p := range parsed.Parameters {
			if shown[name] != 1 {
				t.Errorf("%s: %s is in %d parameter groups", file, name, shown[name])
			}
			if len(p.Description) < 10 || !strings.HasSuffix(p.Description, ".") && !strings.HasSuffix(p.Description, "\".") {
				t.Errorf("%s: %s: the description is no sentence: %q", file, name, p.Description)
			}
			if p.AllowedPattern != nil && p.Constraint == "" {
				t.Errorf("%s: %s has a pattern and no ConstraintDescription", file, name)
			}
			delete(shown, name)
		}
		for name := range shown {
			t.Errorf("%s: a group has %s, which is no parameter", file, name)
		}
		for name, o := range parsed.Outputs {
			if o.Description == "" {
				t.Errorf("%s: output %s has no description", file, name)
			}
		}
		if !strings.HasPrefix(parsed.Description, "multus-vpc ") || len(parsed.Description) > 1024 {
			t.Errorf("%s: description %q", file, parsed.Description)
		}
	}
}

// describable is what EC2 takes as the description of a security group; of its rules it is a little less.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpRange.html
var describable = regexp.MustCompile(`^[a-zA-Z0-9. _\-:/()#,@\[\]+=;{}!$*]{1,255}$`)

// TestDescriptionsAreSuchAsEC2Takes: an apostrophe fails a stack while it is made.
func TestDescriptionsAreSuchAsEC2Takes(t *testing.T) {
	t.Parallel()
	seen := 0
	for file, parsed := range templates(t) {
		for id, r := range parsed.Resources {
			if !strings.HasPrefix(r.Type, "AWS::EC2::") {
				continue
			}
			for _, key := range []string{"GroupDescription", "Description"} {
				text, given := r.Properties[key]
				if !given {
					continue
				}
				seen++
				if s := plain(text); !describable.MatchString(s) {
					t.Errorf("%s: %s: %s %q", file, id, key, s)
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d descriptions were looked at", seen)
	}
}

// TestTemplatesAreASCII: CloudFormation shows anything else as a question mark.
func TestTemplatesAreASCII(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../cfn/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("templates %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r > unicode.MaxASCII }) {
				t.Errorf("%s:%d: %s", filepath.Base(file), n+1, line)
			}
		}
	}
}

// updatePolicies are the keys of a group's update policy, which no resource schema has.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-updatepolicy.html
var updatePolicies = map[string][]string{
	"AutoScalingRollingUpdate": {
		"MaxBatchSize", "MinActiveInstancesPercent", "MinInstancesInService", "MinSuccessfulInstancesPercent", "PauseTime", "SuspendProcesses",
		"WaitOnResourceSignals",
	},
	"AutoScalingScheduledAction": {"IgnoreUnmodifiedGroupSizeProperties"},
}

func TestUpdatePoliciesAreThoseOfCloudFormation(t *testing.T) {
	t.Parallel()
	seen := 0
	for file, parsed := range templates(t) {
		for id, r := range parsed.Resources {
			policy, _ := r.Policies["UpdatePolicy"].(map[string]any)
			for name, v := range policy {
				settings, _ := v.(map[string]any)
				for key := range settings {
					if seen++; !slices.Contains(updatePolicies[name], key) {
						t.Errorf("%s: %s: UpdatePolicy has no %s.%s", file, id, name, key)
					}
				}
			}
		}
	}
	if seen < 4 {
		t.Errorf("only %d keys were looked at", seen)
	}
}

// TestWorkersRequireIMDSv2 looks at every launch template.
func TestWorkersRequireIMDSv2(t *testing.T) {
	t.Parallel()
	n := 0
	for file, parsed := range templates(t) {
		for id, r := range parsed.Resources {
			if r.Type != "AWS::EC2::LaunchTemplate" {
				continue
			}
			n++
			data, _ := r.Properties["LaunchTemplateData"].(map[string]any)
			options, _ := data["MetadataOptions"].(map[string]any)
			if options["HttpTokens"] != "required" || options["HttpPutResponseHopLimit"] == nil {
				t.Errorf("%s: %s: metadata options %v", file, id, options)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d launch templates", n)
	}
}

// TestNothingIsMissedByTheFirstInstances: the group's hooks are in the group, and the function is ready before it.
func TestNothingIsMissedByTheFirstInstances(t *testing.T) {
	t.Parallel()
	parsed := templates(t)["multus-node-group.yaml"]
	group := parsed.Resources["NodeGroup"]
	var transitions []string
	for _, h := range list(group.Properties["LifecycleHookSpecificationList"]) {
		transitions = append(transitions, h.(map[string]any)["LifecycleTransition"].(string))
	}
	want := []string{"autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"}
	if !slices.Equal(transitions, want) {
		t.Errorf("hooks of the group: %v", transitions)
	}
	// What it waits for is also there until it is gone: workers that end can still talk to the cluster.
	for _, need := range []string{"PermissionForEventsToInvokeLambda", "LambdaInvocations", "NodeAccessEntry", "ControlPlaneFromNode"} {
		if !slices.Contains(group.DependsOn, need) {
			t.Errorf("the group does not wait for %s", need)
		}
	}
	// Both name the group by the same text, since the rule has to be there before the group.
	rule := parsed.Resources["NewInstanceEventRule"].Properties["EventPattern"].(map[string]any)["detail"].(map[string]any)
	if got, want := rule["AutoScalingGroupName"], []any{group.Properties["AutoScalingGroupName"]}; !equal(got, want) {
		t.Errorf("the rule listens to %v, the group is %v", got, want)
	}
	for id, r := range parsed.Resources {
		if r.Type == "AWS::AutoScaling::LifecycleHook" {
			t.Errorf("%s is a hook of its own: the first instances may miss it", id)
		}
	}
}

func equal(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// TestTheFunctionIsTheSameInBothTemplates: what both node groups have in common stays in step.
func TestTheFunctionIsTheSameInBothTemplates(t *testing.T) {
	t.Parallel()
	all := templates(t)
	own, managed := all["multus-node-group.yaml"].Resources, all["multus-managed-node-group.yaml"].Resources
	for _, id := range []string{
		"LambdaLogGroup", "LambdaDeadLetters", "LambdaInvocations", "SweepRule", "PermissionForSweepToInvokeLambda",
		"PermissionForEventsToInvokeLambda", "AbandonedMetric", "ErrorsAlarm", "DeadLettersAlarm", "NodeInstanceRole",
	} {
		if !equal(own[id], managed[id]) {
			t.Errorf("%s differs:\n%v\n%v", id, own[id], managed[id])
		}
	}
	variables := func(r map[string]cloudformation.Declaration) map[string]any {
		e, _ := r["LambdaAttachENI"].Properties["Environment"].(map[string]any)
		v, _ := e["Variables"].(map[string]any)
		return v
	}
	drains := drain.Vars() // a managed group's workers EKS drains by itself
	for name := range variables(own) {
		if variables(managed)[name] == nil && !slices.Contains(drains, name) {
			t.Errorf("the managed group's function lacks %s", name)
		}
	}
}
