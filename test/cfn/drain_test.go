// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/drain"
)

// TestTheFunctionsGroupIsTheExamples: what the access entry makes the function a member of is what the examples bind.
func TestTheFunctionsGroupIsTheExamples(t *testing.T) {
	t.Parallel()
	entry := templates(t)["multus-node-group.yaml"].Resources["LambdaAccessEntry"]
	groups := list(entry.Properties["KubernetesGroups"])
	for _, file := range []string{"drain-rbac.yaml", "drain-force-rbac.yaml"} {
		text, err := os.ReadFile("../../examples/" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var o struct {
				Kind     string
				Subjects []struct{ Kind, Name string }
			}
			if err = yaml.Unmarshal([]byte(document), &o); err != nil {
				t.Fatal(err)
			}
			if o.Kind != "ClusterRoleBinding" {
				continue
			}
			found = true
			if len(o.Subjects) != 1 || o.Subjects[0].Kind != "Group" || !equal(groups, []any{o.Subjects[0].Name}) {
				t.Errorf("%s binds %v, the function is in %v", file, o.Subjects, groups)
			}
		}
		if !found {
			t.Errorf("%s has no binding", file)
		}
	}
}

// TestTheTemplateLetsThroughWhatTheFunctionTakes: a worker would be abandoned for a timeout that the function refuses.
func TestTheTemplateLetsThroughWhatTheFunctionTakes(t *testing.T) {
	t.Parallel()
	parameter := templates(t)["multus-node-group.yaml"].Parameters["DrainTimeout"]
	variables := map[string]string{
		drain.VarNodes: "true", drain.VarClusterName: "c", drain.VarClusterEndpoint: "https://a", drain.VarClusterCA: authority(t),
	}
	for n := range 1000 {
		for _, unit := range []string{"s", "m"} {
			v := fmt.Sprint(n, unit)
			variables[drain.VarTimeout] = v
			_, err := drain.Parse(func(name string) string { return variables[name] })
			if let := parameter.AllowedPattern.MatchString(v); let != (err == nil) {
				t.Errorf("%s: the template says %t, the function %v", v, let, err)
			}
		}
	}
}
