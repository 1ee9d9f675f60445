// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readExample are the objects of a file of the folder examples, without the namespace, which is the user's to make.
func readExample(t *testing.T, name string) map[string]object {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "examples", name))
	must(t, err)
	all := objects(t, string(text))
	maps.DeleteFunc(all, func(_ string, o object) bool { return o["kind"] == "Namespace" })
	return all
}

// TestChartIsTheExamples: what the chart installs is what the examples have, object by object, but for labels, image and pull policy.
// So there is one truth about what our programs may do, and about the webhook.
func TestChartIsTheExamples(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		files  []string
		values []string
	}{
		{
			"the agent's rules",
			[]string{"agent-rbac.yaml"},
			[]string{"--set=image.repository=multus-vpc", "--show-only=templates/agent/rbac.yaml"},
		},
		{
			"the injector",
			[]string{"injector/injector.yaml"},
			[]string{
				"--set=image.repository=multus-vpc,image.tag=latest,injector.enabled=true", "--show-only=templates/injector/rbac.yaml",
				"--show-only=templates/injector/certificate.yaml", "--show-only=templates/injector/deployment.yaml", "--show-only=templates/injector/webhook.yaml",
			},
		},
		{
			"the sweep",
			[]string{"vpcctl-rbac.yaml", "workloads/sweep-cronjob.yaml"},
			[]string{
				"--set=image.repository=registry.example.com/multus-vpc,sweep.enabled=true,sweep.cluster=core,sweep.ranges={10.10.1.80-10.10.1.95},sweep.env.AWS_REGION=us-west-2",
				`--set-string=image.tag=1,sweep.serviceAccount.annotations.eks\.amazonaws\.com/role-arn=arn:aws:iam::111122223333:role/multus-vpc-sweep`,
				"--show-only=templates/sweep/rbac.yaml", "--show-only=templates/sweep/cronjob.yaml",
			},
		},
		{
			"the draining function's rules",
			[]string{"drain-rbac.yaml", "drain-force-rbac.yaml"},
			[]string{"--set=image.repository=multus-vpc,drain.enabled=true,drain.force=true", "--show-only=templates/drain.yaml"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := map[string]object{}
			for _, file := range c.files {
				maps.Copy(want, readExample(t, file))
			}
			got := newHelm(t).render(c.values...)
			if diff := cmp.Diff(plain(t, want), plain(t, got)); diff != "" {
				t.Errorf("(-examples +chart):\n%s", diff)
			}
		})
	}
}

// plain is what is compared of objects: no labels of their own, and no pull policies.
func plain(t *testing.T, all map[string]object) map[string]object {
	t.Helper()
	var clean func(v any)
	clean = func(v any) {
		switch v := v.(type) {
		case object:
			delete(v, "imagePullPolicy")
			for _, inner := range v {
				clean(inner)
			}
		case []any:
			for _, inner := range v {
				clean(inner)
			}
		}
	}
	for _, o := range all {
		delete(at(t, o, "metadata").(object), "labels")
		clean(o)
	}
	return all
}

// TestTheAgentToleratesTheStartupTaint, or no node would ever lose it.
func TestTheAgentToleratesTheStartupTaint(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join(root, "agent/taint.go"))
	must(t, err)
	m := regexp.MustCompile(`startupTaint = "(.*)"`).FindSubmatch(source)
	if m == nil {
		t.Fatal("the agent's taint is not found")
	}
	want := object{"key": string(m[1]), "operator": "Exists"}
	for _, set := range []string{"agent.logLevel=info", "agent.tolerations=null", "agent.tolerations[0].key=upf,agent.tolerations[0].operator=Exists"} {
		daemons := newHelm(t).render("--set=image.repository=a", "--set="+set)["DaemonSet multus-vpc-agent"]
		has := at(t, daemons, "spec", "template", "spec", "tolerations").([]any)
		if !slices.ContainsFunc(has, func(v any) bool { return cmp.Equal(v, any(want)) }) {
			t.Errorf("%s: the agent tolerates %v, and not %v", set, has, want)
		}
	}
}

// TestOnlyWhatIsAskedFor: the defaults install the agent and nothing else, and each part brings its own objects.
func TestOnlyWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	h := newHelm(t)
	agent := []string{
		"ClusterRole multus-vpc-agent", "ClusterRoleBinding multus-vpc-agent", "ConfigMap multus-vpc-agent", "DaemonSet multus-vpc-agent",
		"Pod multus-vpc-test", "ServiceAccount agent",
	}
	for set, more := range map[string][]string{
		"image.repository=a":              nil,
		"drain.enabled=true":              {"ClusterRole multus-vpc-drain", "ClusterRoleBinding multus-vpc-drain"},
		"sweep.enabled=true":              {"ClusterRole multus-vpc-sweep", "ClusterRoleBinding multus-vpc-sweep", "CronJob sweep", "ServiceAccount sweep"},
		"metrics.podMonitor.enabled=true": {"PodMonitor multus-vpc-agent"},
		"injector.enabled=true": {
			"ClusterRole multus-vpc-injector", "ClusterRoleBinding multus-vpc-injector", "Deployment multus-vpc-injector",
			"MutatingWebhookConfiguration multus-vpc-injector", "PodDisruptionBudget multus-vpc-injector", "Role injector", "RoleBinding injector",
			"Secret multus-vpc-injector", "Service multus-vpc-injector", "ServiceAccount injector",
		},
		"injector.enabled=true,injector.certManager.enabled=true,injector.certManager.issuerRef.name=a,metrics.podMonitor.enabled=true": {
			"Certificate multus-vpc-injector", "ClusterRole multus-vpc-injector", "ClusterRoleBinding multus-vpc-injector", "Deployment multus-vpc-injector",
			"MutatingWebhookConfiguration multus-vpc-injector", "PodDisruptionBudget multus-vpc-injector", "PodMonitor multus-vpc-agent",
			"PodMonitor multus-vpc-injector", "Service multus-vpc-injector", "ServiceAccount injector",
		},
		"networks[0].name=n6,networks[0].config.type=vpcipvlan": {"NetworkAttachmentDefinition n6"},
	} {
		want := slices.Sorted(slices.Values(slices.Concat(agent, more)))
		got := slices.Sorted(maps.Keys(h.render("--set=image.repository=a", "--set="+set)))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", set, diff)
		}
	}
}

// TestAReplicaMayBeEvicted: the injector's budget holds no worker up that is drained, as long as the other replicas serve.
func TestAReplicaMayBeEvicted(t *testing.T) {
	t.Parallel()
	h := newHelm(t)
	for _, replicas := range []float64{1, 2, 5} {
		all := h.render("--set=image.repository=a,injector.enabled=true", fmt.Sprintf("--set=injector.replicas=%v", replicas))
		spec := at(t, all["PodDisruptionBudget multus-vpc-injector"], "spec").(object)
		allowed, limited := spec["maxUnavailable"].(float64)
		if least, ok := spec["minAvailable"].(float64); ok {
			allowed, limited = replicas-least, true
		}
		if got := at(t, all["Deployment multus-vpc-injector"], "spec", "replicas"); got != replicas || allowed != 1 || !limited {
			t.Errorf("of %v replicas, %v may be evicted at a time, want 1 of %v", got, allowed, replicas)
		}
		if spec["unhealthyPodEvictionPolicy"] != "AlwaysAllow" {
			t.Errorf("replicas that serve nobody may not be evicted: %v", spec)
		}
	}
}

// TestVariants: each node that its labels tell has one agent, with the file for it.
func TestVariants(t *testing.T) {
	t.Parallel()
	all := newHelm(t).render("--values", chartDir+"/ci/variants-values.yaml")
	for name, want := range map[string]struct{ selector, file string }{
		"multus-vpc-agent":       {"<nil>", "networkCard"}, // not in it
		"multus-vpc-agent-hpc":   {"map[pool:hpc]", "networkCard: every"},
		"multus-vpc-agent-plain": {"map[example.com/multus:false]", "{}"},
	} {
		spec := at(t, all["DaemonSet "+name], "spec", "template", "spec").(object)
		if got := fmt.Sprint(spec["nodeSelector"]); got != want.selector {
			t.Errorf("%s goes to %s, want %s", name, got, want.selector)
		}
		terms := at(t, spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").([]any)
		given := at(t, terms[0], "matchExpressions").([]any)
		elsewhere := []any{
			object{"key": "pool", "operator": "NotIn", "values": []any{"hpc"}},
			object{"key": "example.com/multus", "operator": "NotIn", "values": []any{"false"}},
		}
		first := name == "multus-vpc-agent"
		if got := len(given) == 5 && cmp.Equal(given[3:], elsewhere); got != first || len(terms) != 1 || !first && len(given) != 3 {
			t.Errorf("%s goes where %v", name, terms)
		}
		file := at(t, all["ConfigMap "+name], "data", "agent.yaml").(string)
		if strings.Contains(file, want.file) == first {
			t.Errorf("%s has the file\n%s", name, file)
		}
		if got := at(t, spec, "volumes", 0, "configMap", "name"); got != name {
			t.Errorf("%s mounts the ConfigMap %v", name, got)
		}
	}
	bare := newHelm(t).render("--values", chartDir+"/ci/variants-values.yaml", "--set=agent.affinity=null")["DaemonSet multus-vpc-agent"]
	if got := at(t, bare, "spec", "template", "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms", 0, "matchExpressions").([]any); len(got) != 2 {
		t.Errorf("without an affinity of its own the first agent goes where %v", got)
	}
}
