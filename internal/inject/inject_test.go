// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"
)

func pod(annotations map[string]string) Pod {
	return Pod{Pod: &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
	}}
}

func TestWanted(t *testing.T) {
	type annotations = map[string]string
	tests := map[string]struct {
		pod      annotations
		networks []annotations
		want     Wish
	}{
		"nobody asks":                     {nil, nil, Wish{Mode: None}},
		"the pod asks":                    {annotations{AnnotationSync: "init"}, nil, Wish{Mode: Init}},
		"a network asks":                  {nil, []annotations{{}, {AnnotationSync: "sidecar"}}, Wish{Mode: Sidecar}},
		"the strongest network counts":    {nil, []annotations{{AnnotationSync: "native"}, {AnnotationSync: "init"}}, Wish{Mode: Native}},
		"the pod has the last word":       {annotations{AnnotationSync: "none"}, []annotations{{AnnotationSync: "native"}}, Wish{Mode: None}},
		"as the samples do":               {annotations{AnnotationSamples: "Yes"}, nil, Wish{Mode: Sidecar}},
		"as the samples do not":           {annotations{AnnotationSamples: "no"}, nil, Wish{Mode: None}},
		"ours comes before the samples'":  {annotations{AnnotationSamples: "yes", AnnotationSync: "native"}, nil, Wish{Mode: Native}},
		"floating ranges of two networks": {nil, []annotations{{AnnotationSync: "native", AnnotationFloating: "10.10.1.90"}, {AnnotationFloating: "10.10.2.0/30"}}, Wish{Native, "10.10.1.90,10.10.2.0/30"}},
		"the pod's floating ranges alone": {annotations{AnnotationFloating: "10.10.1.91"}, []annotations{{AnnotationSync: "native", AnnotationFloating: "10.10.1.90/31"}}, Wish{Native, "10.10.1.91"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := pod(tt.pod)
			p.Networks = tt.networks
			got, err := Wanted(p)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWantedNamesAllThatIsWrong(t *testing.T) {
	p := pod(map[string]string{AnnotationSync: "always", AnnotationFloating: "10.10.1.1/24"})
	_, err := Wanted(p)
	for _, says := range []string{AnnotationSync, `"always"`, `"native"`, AnnotationFloating, "10.10.1.0/24"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

func TestPatchAddsOurContainerAndNothingElse(t *testing.T) {
	with := func(p Pod, change func(*corev1.PodSpec)) Pod {
		change(&p.Spec)
		return p
	}
	ours := func(list []corev1.Container) []corev1.Container { return append(list, corev1.Container{Name: Name}) }
	tests := map[string]struct {
		pod   Pod
		mode  Mode
		agent bool
		want  []string // paths
	}{
		"none":                          {pod(nil), None, false, nil},
		"init":                          {pod(nil), Init, false, []string{"/spec/initContainers"}},
		"init before others":            {with(pod(nil), func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{Name: "a"}} }), Init, false, []string{"/spec/initContainers/0"}},
		"native":                        {pod(nil), Native, true, []string{"/spec/initContainers", "/spec/volumes"}},
		"sidecar":                       {pod(nil), Sidecar, true, []string{"/spec/containers/-", "/spec/volumes"}},
		"beside other volumes":          {with(pod(nil), func(s *corev1.PodSpec) { s.Volumes = []corev1.Volume{{Name: "a"}} }), Sidecar, true, []string{"/spec/containers/-", "/spec/volumes/-"}},
		"again":                         {with(pod(nil), func(s *corev1.PodSpec) { s.Containers = ours(s.Containers) }), Sidecar, true, nil},
		"again, native":                 {with(pod(nil), func(s *corev1.PodSpec) { s.InitContainers = ours(s.InitContainers) }), Native, true, nil},
		"a volume of ours is there":     {with(pod(nil), func(s *corev1.PodSpec) { s.Volumes = []corev1.Volume{{Name: Name}} }), Native, true, []string{"/spec/initContainers"}},
		"the user's own, in other mode": {with(pod(nil), func(s *corev1.PodSpec) { s.Containers = ours(s.Containers) }), Native, true, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, op := range (Config{Image: "multus-vpc:test", Agent: tt.agent, SyncDir: "/run/multus-vpc/sync"}).Patch(tt.pod, Wish{Mode: tt.mode}) {
				if op.Op != "add" {
					t.Errorf("%s %s", op.Op, op.Path)
				}
				got = append(got, op.Path)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusalNamesTheRemedy(t *testing.T) {
	restricted := pod(nil)
	restricted.Enforce = "restricted"
	host := pod(nil)
	host.Spec.HostNetwork = true
	for name, tt := range map[string]struct {
		pod   Pod
		agent bool
		says  string
	}{
		"host network":                  {host, false, "hostNetwork"},
		"restricted, by the agent":      {restricted, true, "--via=ec2"},
		"restricted, directly":          {restricted, false, ""},
		"no level, by the agent":        {pod(nil), true, ""},
		"host network takes precedence": {host, true, "hostNetwork"},
	} {
		err := Config{Agent: tt.agent}.Refusal(tt.pod)
		if (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
