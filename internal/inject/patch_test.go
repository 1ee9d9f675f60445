// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/google/go-cmp/cmp"
)

// apply is RFC 6902's "add" and nothing else: anything else fails the test.
func apply(t *testing.T, object []byte, ops []Operation) []byte {
	t.Helper()
	var root any
	if err := json.Unmarshal(object, &root); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if op.Op != "add" {
			t.Fatalf("%s %s: not an addition", op.Op, op.Path)
		}
		text, err := json.Marshal(op.Value)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err = json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		root = add(t, root, strings.Split(op.Path, "/")[1:], value)
	}
	result, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func add(t *testing.T, at any, path []string, value any) any {
	t.Helper()
	key := strings.ReplaceAll(strings.ReplaceAll(path[0], "~1", "/"), "~0", "~")
	switch node := at.(type) {
	case map[string]any:
		if old := node[key]; len(path) == 1 {
			if list, isList := old.([]any); old != nil && (!isList || len(list) > 0) {
				if m, isMap := old.(map[string]any); !isMap || len(m) > 0 {
					t.Fatalf("add %s would replace %v", key, old)
				}
			}
			node[key] = value
		} else {
			node[key] = add(t, old, path[1:], value)
		}
		return node
	case []any:
		if key == "-" {
			return append(node, value)
		}
		i, err := strconv.Atoi(key)
		if err != nil || i > len(node) {
			t.Fatalf("%q is no place in a list of %d", key, len(node))
		}
		if len(path) == 1 {
			return slices.Insert(node, i, value)
		}
		node[i] = add(t, node[i], path[1:], value)
		return node
	default:
		t.Fatalf("add %q to %v", key, at)
		return nil
	}
}

// injected is the pod after the review, which a second review must leave as it is.
func injected(t *testing.T, i *Injector, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	object, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	out := review(t, i, p)
	if out.Refused != nil {
		t.Fatal(out.Refused)
	}
	var result corev1.Pod
	if err = json.Unmarshal(apply(t, object, out.Patch), &result); err != nil {
		t.Fatal(err)
	}
	if again := review(t, i, &result); len(again.Patch) > 0 {
		t.Errorf("a second review adds %+v", again.Patch)
	}
	return &result
}

func names(list []corev1.Container) (names []string) {
	for _, c := range list {
		names = append(names, c.Name)
	}
	return names
}

func TestOurContainerIsTheFirst(t *testing.T) {
	more := func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "setup"}}
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "helper"})
		p.Spec.Volumes = []corev1.Volume{{Name: "data"}}
	}
	tests := map[string]struct {
		mode       string
		change     []func(*corev1.Pod)
		init, list []string
	}{
		"init":                {"init", nil, []string{NameInit}, []string{"app"}},
		"sidecar":             {"sidecar", nil, nil, []string{NameSidecar, "app"}},
		"native":              {"native", nil, []string{NameSidecar}, []string{"app"}},
		"init before others":  {"init", []func(*corev1.Pod){more}, []string{NameInit, "setup"}, []string{"app", "helper"}},
		"sidecar before":      {"sidecar", []func(*corev1.Pod){more}, []string{"setup"}, []string{NameSidecar, "app", "helper"}},
		"native before them":  {"native", []func(*corev1.Pod){more}, []string{NameSidecar, "setup"}, []string{"app", "helper"}},
		"none, though it may": {"none", []func(*corev1.Pod){more}, []string{"setup"}, []string{"app", "helper"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, via := range ways() {
				before := pod(annotations{networks: "n6", AnnotationSync: tt.mode}, tt.change...)
				after := injected(t, injector(via, cluster{}), before)
				if diff := cmp.Diff(tt.init, names(after.Spec.InitContainers)); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(tt.list, names(after.Spec.Containers)); diff != "" {
					t.Error(diff)
				}
				strip(after)
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("something else is changed: %s", diff)
				}
			}
		})
	}
}

// strip takes out what we add.
func strip(p *corev1.Pod) {
	for _, list := range []*[]corev1.Container{&p.Spec.InitContainers, &p.Spec.Containers} {
		if *list = slices.DeleteFunc(*list, func(c corev1.Container) bool { return ours(c.Name) }); len(*list) == 0 {
			*list = nil
		}
	}
	if p.Spec.Volumes = slices.DeleteFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == NameVolume }); len(p.Spec.Volumes) == 0 {
		p.Spec.Volumes = nil
	}
	delete(p.Annotations, annotationDefaultContainer)
}

func TestWhatTheAuthorWroteStays(t *testing.T) {
	root := int64(0)
	theirs := corev1.Container{
		Name: NameSidecar, Image: "mine:1", Args: []string{"sidecar"},
		Env:             []corev1.EnvVar{{Name: "MULTUS_VPC_LOG_LEVEL", Value: "debug"}, {Name: "MULTUS_VPC_VIA", Value: "ec2"}},
		SecurityContext: &corev1.SecurityContext{RunAsUser: &root},
	}
	before := pod(annotations{networks: "n6", AnnotationSync: "native"}, func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "setup"}, theirs}
	})
	after := injected(t, injector(ViaAgent, cluster{}), before)
	if diff := cmp.Diff([]string{"setup", NameSidecar}, names(after.Spec.InitContainers)); diff != "" {
		t.Fatal(diff)
	}
	got := after.Spec.InitContainers[1]
	if got.RestartPolicy == nil || got.StartupProbe == nil || len(got.VolumeMounts) != 1 || len(after.Spec.Volumes) != 1 || len(got.Env) != 5 {
		t.Errorf("something is missing: %+v", got)
	}
	if diff := cmp.Diff(theirs.Env, got.Env[:2]); diff != "" {
		t.Error(diff)
	}
	got.Env, got.RestartPolicy, got.StartupProbe, got.VolumeMounts = theirs.Env, nil, nil, nil
	if diff := cmp.Diff(theirs, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnotherContainerOfOurNameIsLeftAlone(t *testing.T) {
	p := pod(annotations{networks: "n6", AnnotationSync: "native"}, func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: NameSidecar})
	})
	out := review(t, injector(ViaEC2, cluster{}), p)
	if len(out.Patch) > 0 || !strings.Contains(strings.Join(out.Warnings, "\n"), "of its own in containers") {
		t.Errorf("got %+v", out)
	}
}

func TestASidecarKeepsKubectlsDefaultContainer(t *testing.T) {
	after := injected(t, injector(ViaEC2, cluster{}), pod(annotations{networks: "n6", AnnotationSync: "sidecar"}))
	if got := after.Annotations[annotationDefaultContainer]; got != "app" {
		t.Errorf("kubectl logs shows %q", got)
	}
	after = injected(t, injector(ViaEC2, cluster{}), pod(annotations{networks: "n6", AnnotationSync: "sidecar", annotationDefaultContainer: "x"}))
	if got := after.Annotations[annotationDefaultContainer]; got != "x" {
		t.Errorf("kubectl logs shows %q", got)
	}
}

func TestASidecarInAJobIsWarnedAbout(t *testing.T) {
	p := pod(annotations{networks: "n6", AnnotationSync: "sidecar"}, func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	if out := review(t, injector(ViaEC2, cluster{}), p); len(out.Warnings) == 0 || !strings.Contains(strings.Join(out.Warnings, " "), "native") {
		t.Errorf("got %+v", out)
	}
}

func TestEnvironment(t *testing.T) {
	i := injector(ViaAgent, cluster{})
	i.Config.Env = []corev1.EnvVar{{Name: "AWS_REGION", Value: "us-west-2"}, {Name: "MULTUS_VPC_VIA", Value: "no"}}
	seconds := int64(12)
	after := injected(t, i, pod(annotations{networks: "n6", AnnotationSync: "native", AnnotationFloating: "10.10.1.90"}, func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = &seconds
	}))
	got := map[string]string{}
	for _, e := range after.Spec.InitContainers[0].Env {
		got[e.Name] = e.Value
		if e.ValueFrom != nil {
			got[e.Name] = e.ValueFrom.FieldRef.FieldPath
		}
	}
	want := map[string]string{
		"MULTUS_VPC_NETWORKS": "metadata.annotations['k8s.v1.cni.cncf.io/networks']", "MULTUS_VPC_NODE_ADDRESS": "status.hostIP",
		"MULTUS_VPC_VIA": "agent", "MULTUS_VPC_SYNC_SOCKET": "/run/multus-vpc/sync/sync.sock", "MULTUS_VPC_FLOATING": "10.10.1.90", "MULTUS_VPC_GRACE": "8s", "AWS_REGION": "us-west-2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAGuaranteedPodStaysGuaranteed(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	i := injector(ViaEC2, cluster{})
	i.Config.Resources = corev1.ResourceRequirements{Requests: list("10m", "32Mi"), Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}}
	for name, tt := range map[string]struct {
		app  corev1.ResourceRequirements
		want corev1.ResourceRequirements
	}{
		"guaranteed":  {corev1.ResourceRequirements{Limits: list("4", "8Gi"), Requests: list("4", "8Gi")}, corev1.ResourceRequirements{Limits: list("100m", "64Mi"), Requests: list("100m", "64Mi")}},
		"burstable":   {corev1.ResourceRequirements{Limits: list("4", "8Gi"), Requests: list("2", "8Gi")}, i.Config.Resources},
		"best effort": {corev1.ResourceRequirements{}, i.Config.Resources},
	} {
		t.Run(name, func(t *testing.T) {
			after := injected(t, i, pod(annotations{networks: "n6", AnnotationSync: "native"}, func(p *corev1.Pod) { p.Spec.Containers[0].Resources = tt.app }))
			if diff := cmp.Diff(tt.want, after.Spec.InitContainers[0].Resources); diff != "" {
				t.Error(diff)
			}
			if before := guaranteed(&corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Resources: tt.app}}}}); before {
				after.Spec.InitContainers[0].Name = "counts"
				if !guaranteed(after) {
					t.Error("the pod has lost its class")
				}
			}
		})
	}
}

func TestAPodWithResourcesOfItsOwnSharesThem(t *testing.T) {
	own := &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}}
	i := injector(ViaEC2, cluster{})
	i.Config.Resources.Requests = own.Limits
	after := injected(t, i, pod(annotations{networks: "n6", AnnotationSync: "native"}, func(p *corev1.Pod) { p.Spec.Resources = own }))
	if diff := cmp.Diff(corev1.ResourceRequirements{}, after.Spec.InitContainers[0].Resources); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkReview(b *testing.B) {
	object, err := json.Marshal(pod(annotations{networks: "n6", AnnotationSync: "native"}))
	if err != nil {
		b.Fatal(err)
	}
	i := injector(ViaAgent, cluster{})
	b.ReportAllocs()
	for b.Loop() {
		if out, err := i.Review(b.Context(), "default", object); err != nil || len(out.Patch) == 0 {
			b.Fatal(err)
		}
	}
}
