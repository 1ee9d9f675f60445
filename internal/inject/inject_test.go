// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"
)

// cluster has NADs by namespace/name, and namespaces' Pod Security levels.
type cluster struct {
	networks map[string]annotations
	levels   map[string]string
	err      error
}

type annotations = map[string]string

func (c cluster) NetworkAnnotations(_ context.Context, namespace, name string) (map[string]string, bool, error) {
	found, ok := c.networks[namespace+"/"+name]
	return found, ok, c.err
}

func (c cluster) NamespaceLabels(_ context.Context, name string) (map[string]string, error) {
	return map[string]string{LabelEnforce: c.levels[name]}, c.err
}

func injector(via Via, c cluster) *Injector {
	return &Injector{Config: Config{Image: "multus-vpc:test", Via: via, SyncDir: "/run/multus-vpc/sync"}, Cluster: c}
}

func pod(a annotations, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Annotations: a},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func review(t *testing.T, i *Injector, p *corev1.Pod) Outcome {
	t.Helper()
	object, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	out, err := i.Review(t.Context(), p.Namespace, object)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWanted(t *testing.T) {
	tests := map[string]struct {
		pod      annotations
		networks []annotations
		want     Wish
	}{
		"nobody asks":                     {nil, nil, Wish{Mode: None}},
		"the pod asks":                    {annotations{AnnotationSync: "init"}, nil, Wish{Mode: Init, explicit: true}},
		"a network asks":                  {nil, []annotations{{}, {AnnotationSync: "sidecar"}}, Wish{Mode: Sidecar}},
		"the strongest network counts":    {nil, []annotations{{AnnotationSync: "native"}, {AnnotationSync: "init"}}, Wish{Mode: Native}},
		"the pod has the last word":       {annotations{AnnotationSync: "none"}, []annotations{{AnnotationSync: "native"}}, Wish{Mode: None, explicit: true}},
		"as the samples do":               {annotations{AnnotationSamples: "Yes"}, nil, Wish{Mode: Sidecar, explicit: true}},
		"as the samples do, on a network": {nil, []annotations{{AnnotationSync: "init"}, {AnnotationSamples: "on"}}, Wish{Mode: Sidecar}},
		"as the samples do not":           {annotations{AnnotationSamples: "no"}, nil, Wish{Mode: None}},
		"ours comes before the samples'":  {annotations{AnnotationSamples: "yes", AnnotationSync: "native"}, nil, Wish{Mode: Native, explicit: true}},
		"the pod chooses its way":         {annotations{AnnotationVia: "ec2"}, []annotations{{AnnotationSync: "init", AnnotationVia: "agent"}}, Wish{Mode: Init, Via: ViaEC2}},
		"floating ranges of two networks": {nil, []annotations{{AnnotationSync: "native", AnnotationFloating: "10.10.1.90"}, {AnnotationFloating: "10.10.2.0/30"}}, Wish{Mode: Native, Floating: "10.10.1.90,10.10.2.0/30"}},
		"the pod's floating ranges alone": {annotations{AnnotationFloating: "10.10.1.91"}, []annotations{{AnnotationSync: "native", AnnotationFloating: "10.10.1.90/31"}}, Wish{Mode: Native, Floating: "10.10.1.91"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var selected []network
			for _, a := range tt.networks {
				selected = append(selected, network{"core/n6", a})
			}
			got, err := wanted(tt.pod, selected)
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestWantedNamesAllThatIsWrong(t *testing.T) {
	_, err := wanted(annotations{AnnotationSync: "always", AnnotationFloating: "10.10.1.1/24", AnnotationVia: "imds"}, []network{{"core/n6", annotations{AnnotationSync: "on"}}})
	for _, says := range []string{
		`NetworkAttachmentDefinition core/n6: annotation multus-vpc.io/sync: "on"`, AnnotationSync, `"always"`, "none, init, sidecar or native", AnnotationFloating, "10.10.1.0/24", AnnotationVia, `"imds"`, "agent or ec2",
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

const networks = AnnotationNetworks

// many selects so many networks.
func many(count int) string {
	var list []string
	for i := range count {
		list = append(list, fmt.Sprintf("n%d", i))
	}
	return strings.Join(list, ",")
}

func TestAPodForWindowsIsLeftAlone(t *testing.T) {
	p := pod(annotations{networks: "n6", AnnotationSync: "native"}, func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} })
	if out := review(t, injector(ViaEC2, cluster{}), p); len(out.Patch) > 0 || out.Refused != nil {
		t.Errorf("got %+v", out)
	}
}

func TestReviewFindsTheNetworksThatAPodSelects(t *testing.T) {
	c := cluster{networks: map[string]annotations{
		"default/quiet": {}, "default/asks": {AnnotationSync: "init"}, "core/n6": {AnnotationSync: "native"},
	}}
	tests := map[string]struct {
		annotations annotations
		want        Mode
		warns       string
	}{
		"no networks":                           {nil, None, ""},
		"asks without networks":                 {annotations{AnnotationSync: "init"}, None, "nothing was added"},
		"a quiet network":                       {annotations{networks: "quiet"}, None, ""},
		"a network that asks":                   {annotations{networks: "quiet,asks@n6"}, Init, ""},
		"one of another namespace":              {annotations{networks: `[{"name":"n6","namespace":"core"}]`}, Native, ""},
		"one that is not there":                 {annotations{networks: "n6"}, None, "no NetworkAttachmentDefinition default/n6"},
		"asks itself, and none is there":        {annotations{networks: "n6", AnnotationSync: "sidecar"}, Sidecar, "no NetworkAttachmentDefinition default/n6"},
		"says no":                               {annotations{networks: "asks", AnnotationSync: "none"}, None, ""},
		"an annotation that Multus cannot read": {annotations{networks: "a b", AnnotationSync: "init"}, None, "networks annotation"},
		"floating without a mode":               {annotations{networks: "quiet", AnnotationFloating: "10.10.1.90"}, None, "no effect"},
		"more networks than can be":             {annotations{networks: many(65), AnnotationSync: "init"}, None, "more than 64"},
		"one network many times":                {annotations{networks: strings.Repeat("asks,", 100) + "asks"}, Init, ""},
		"a static pod's mirror":                 {annotations{networks: "asks", annotationMirror: "x"}, None, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out := review(t, injector(ViaEC2, c), pod(tt.annotations))
			if out.Mode != tt.want || out.Refused != nil || (len(out.Patch) > 0) != (tt.want != None) {
				t.Errorf("got %+v", out)
			}
			if warns := strings.Join(out.Warnings, "\n"); (warns != "") != (tt.warns != "") || !strings.Contains(warns, tt.warns) {
				t.Errorf("warns %q, want %q", warns, tt.warns)
			}
		})
	}
}

func TestReviewRefusesWithARemedy(t *testing.T) {
	asks := func(more ...string) annotations {
		a := annotations{networks: "n6", AnnotationSync: "native"}
		for i := 0; i < len(more); i += 2 {
			a[more[i]] = more[i+1]
		}
		return a
	}
	host := func(p *corev1.Pod) { p.Spec.HostNetwork = true }
	for name, tt := range map[string]struct {
		pod   *corev1.Pod
		via   Via
		level string
		says  string
	}{
		"host network":                     {pod(asks(), host), ViaEC2, "", "remove hostNetwork"},
		"restricted, by the agent":         {pod(asks()), ViaAgent, "restricted", AnnotationVia + ": ec2"},
		"baseline, by the agent":           {pod(asks()), ViaAgent, "baseline", AnnotationVia + ": ec2"},
		"restricted, directly":             {pod(asks()), ViaEC2, "restricted", ""},
		"restricted, the pod knows":        {pod(asks(AnnotationVia, "ec2")), ViaAgent, "restricted", ""},
		"restricted, the pod wants it so":  {pod(asks(AnnotationVia, "agent")), ViaEC2, "restricted", AnnotationVia + ": ec2"},
		"privileged, by the agent":         {pod(asks()), ViaAgent, "privileged", ""},
		"no level, by the agent":           {pod(asks()), ViaAgent, "", ""},
		"an unknown mode":                  {pod(asks(AnnotationSync, "yes")), ViaEC2, "", "none, init, sidecar or native"},
		"an init container cannot float":   {pod(asks(AnnotationSync, "init", AnnotationFloating, "10.10.1.90")), ViaEC2, "", "native or sidecar"},
		"ranges that are none, of no mode": {pod(annotations{networks: "n6", AnnotationFloating: "ten"}), ViaEC2, "", AnnotationFloating},
		"host network, a network asks":     {pod(annotations{networks: "asks"}, host), ViaEC2, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster{networks: map[string]annotations{"default/n6": {}, "default/asks": {AnnotationSync: "init"}}, levels: map[string]string{"default": tt.level}}
			out := review(t, injector(tt.via, c), tt.pod)
			if (out.Refused != nil) != (tt.says != "") || out.Refused != nil && !strings.Contains(out.Refused.Error(), tt.says) {
				t.Errorf("refused: %v, want %q", out.Refused, tt.says)
			}
			if out.Refused != nil && len(out.Patch) > 0 {
				t.Error("a pod that is refused is patched")
			}
		})
	}
}

func TestReviewFailsWhenTheAPIDoes(t *testing.T) {
	away := errors.New("no API")
	object, err := json.Marshal(pod(annotations{networks: "n6"}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = injector(ViaEC2, cluster{err: away}).Review(t.Context(), "default", object)
	if !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
	// A pod that says no needs no answer.
	if object, err = json.Marshal(pod(annotations{networks: "n6", AnnotationSync: "none"})); err != nil {
		t.Fatal(err)
	}
	if _, err = injector(ViaEC2, cluster{err: away}).Review(t.Context(), "default", object); err != nil {
		t.Error(err)
	}
}

func FuzzReview(f *testing.F) {
	for _, p := range []*corev1.Pod{pod(nil), pod(annotations{networks: "n6", AnnotationSync: "native"}), pod(annotations{networks: "a", AnnotationSamples: "on"})} {
		object, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(object, true)
	}
	f.Add([]byte(`{"spec":{"initContainers":[{"name":"multus-vpc-sync"}]}}`), false)
	f.Add([]byte("null"), false)
	f.Add([]byte(`{"metadata":{"annotations":{"k8s.v1.cni.cncf.io/networks":"n6","multus-vpc.io/sync":"sidecar"}},"spec":{"containers":[]}}`), false)
	f.Fuzz(func(t *testing.T, object []byte, agent bool) {
		i := injector(ViaEC2, cluster{})
		if agent {
			i.Config.Via = ViaAgent
		}
		var p corev1.Pod
		if json.Unmarshal(object, &p) == nil { // as an API server would write it
			if again, err := json.Marshal(p); err == nil {
				object = again
			}
		}
		out, err := i.Review(t.Context(), "default", object)
		if err != nil || out.Refused != nil {
			if len(out.Patch) > 0 {
				t.Error("patched, though not allowed")
			}
			return
		}
		if len(out.Patch) == 0 {
			return
		}
		after := apply(t, object, out.Patch)
		if diff := cmp.Diff(others(t, object), others(t, after)); diff != "" {
			t.Errorf("something else is changed: %s", diff)
		}
		again, err := i.Review(t.Context(), "default", after)
		if err != nil || again.Refused != nil || len(again.Patch) > 0 {
			t.Errorf("once more: %v, %+v", err, again)
		}
		if diff := cmp.Diff(out.Mode, again.Mode); diff != "" {
			t.Error(diff)
		}
	})
}

// others is the pod without what is ours.
func others(t *testing.T, object []byte) *corev1.Pod {
	t.Helper()
	var p corev1.Pod
	if err := json.Unmarshal(object, &p); err != nil {
		t.Fatal(err)
	}
	strip(&p)
	return &p
}
