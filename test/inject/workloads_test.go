// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package inject

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// workload is one that the API server has accepted and given its defaults.
func (c *cluster) workload(kind, path string, spec object) object {
	c.t.Helper()
	var stored object
	c.must(c.Do(c.t.Context(), http.MethodPost, path, object{"metadata": object{"name": strings.ToLower(kind)}, "spec": spec}, &stored))
	return stored
}

// podOf is what the workload's controller makes of its template.
func podOf(kind, group string, w object) object {
	template := w["spec"].(object)["template"].(object)
	meta := template["metadata"].(object)
	name := w["metadata"].(object)["name"].(string)
	pod := object{"metadata": object{
		"annotations": meta["annotations"], "labels": meta["labels"],
		"ownerReferences": []object{{"apiVersion": group, "kind": kind, "name": name, "uid": w["metadata"].(object)["uid"], "controller": true}},
	}, "spec": template["spec"]}
	if kind == "StatefulSet" {
		pod["metadata"].(object)["name"] = name + "-0"
	} else {
		pod["metadata"].(object)["generateName"] = name + "-"
	}
	return pod
}

func podsOfWorkloads(t *testing.T, c *cluster) {
	for _, mode := range []string{"init", "sidecar", "native"} {
		labels := object{"app": mode}
		template := func(policy string) object {
			return object{
				"metadata": object{"labels": labels, "annotations": object{networks: "quiet", asks: mode, "multus-vpc.io/floating": map[string]string{"init": "", "sidecar": "10.10.1.90", "native": "10.10.1.90"}[mode]}},
				"spec": object{
					"restartPolicy":  policy,
					"initContainers": []object{{"name": "setup", "image": "setup"}},
					"containers":     []object{{"name": "app", "image": "app", "resources": object{"limits": object{"cpu": "2", "memory": "1Gi"}, "requests": object{"cpu": "1", "memory": "1Gi"}}}, {"name": "helper", "image": "helper"}},
					"volumes":        []object{{"name": "data", "emptyDir": object{}}},
				},
			}
		}
		c.namespace(mode, "")
		c.network(mode, "quiet", nil)
		for kind, w := range map[string]object{
			"Deployment":  c.workload("Deployment", "/apis/apps/v1/namespaces/"+mode+"/deployments", object{"selector": object{"matchLabels": labels}, "template": template("Always")}),
			"StatefulSet": c.workload("StatefulSet", "/apis/apps/v1/namespaces/"+mode+"/statefulsets", object{"serviceName": "s", "selector": object{"matchLabels": labels}, "template": template("Always")}),
			"Job":         c.workload("Job", "/apis/batch/v1/namespaces/"+mode+"/jobs", object{"template": template("OnFailure")}),
		} {
			t.Run(mode+" in a "+kind, func(t *testing.T) {
				group := map[bool]string{true: "batch/v1", false: "apps/v1"}[kind == "Job"]
				pod := podOf(kind, group, w)
				got := c.create(t.Context(), mode, "?fieldValidation=Strict", pod)
				if got.err != nil {
					t.Fatal(got.err)
				}
				onlyAdded(t, pod["spec"].(object), got.pod["spec"].(object), mode)
				// The warning is the Job's alone: a sidecar that is no native one would keep it from completing.
				if warned := len(got.warnings) > 0; warned != (kind == "Job" && mode == "sidecar") {
					t.Errorf("warnings: %q", got.warnings)
				}
				again := got.pod
				again["metadata"] = object{"generateName": "again-", "annotations": got.pod["metadata"].(object)["annotations"]}
				delete(again, "status")
				twice := c.create(t.Context(), mode, "", again)
				if twice.err != nil {
					t.Fatal(twice.err)
				}
				if diff := cmp.Diff(got.pod["spec"], twice.pod["spec"]); diff != "" {
					t.Errorf("a pod that has it all is changed: %s", diff)
				}
			})
		}
	}
}

// onlyAdded checks a pod's spec against its template: what was there is there in its order, and what is new is ours, and is as
// Pod Security, probes and the downward API want it.
func onlyAdded(t *testing.T, before, after object, mode string) {
	t.Helper()
	const ours = "multus-vpc-"
	found := 0
	for _, list := range []string{"initContainers", "containers", "volumes"} {
		var rest []any
		for i, item := range after[list].([]any) {
			if named := item.(object); !strings.HasPrefix(named["name"].(string), ours) {
				rest = append(rest, item)
			} else if list != "volumes" {
				if found++; i != 0 {
					t.Errorf("ours is number %d of %s", i, list)
				}
				asItShouldBe(t, named, mode)
			}
		}
		if diff := cmp.Diff(before[list], any(rest)); diff != "" {
			t.Errorf("%s: %s", list, diff)
		}
	}
	if found != 1 {
		t.Errorf("%d containers of ours", found)
	}
}

func asItShouldBe(t *testing.T, container object, mode string) {
	t.Helper()
	text, err := json.Marshal(container)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`"runAsNonRoot":true`, `"allowPrivilegeEscalation":false`, `"drop":["ALL"]`, `"type":"RuntimeDefault"`, `"readOnlyRootFilesystem":true`,
		`"fieldPath":"metadata.annotations['k8s.v1.cni.cncf.io/networks']"`, `"fieldPath":"status.hostIP"`, `"mountPath":"/run/multus-vpc/sync"`,
		`"requests":{"cpu":"10m","memory":"32Mi"}`, `"image":"multus-vpc:test"`,
	}
	want = append(want, map[string][]string{
		"init":    {`"command":["/initcontainer"]`},
		"sidecar": {`"command":["/sidecar"]`, `"readinessProbe"`, `"postStart"`, `"value":"10.10.1.90"`},
		"native":  {`"command":["/sidecar"]`, `"startupProbe"`, `"restartPolicy":"Always"`, `"value":"10.10.1.90"`},
	}[mode]...)
	for _, part := range want {
		if !strings.Contains(string(text), part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
}

// reinvocation: another webhook, called after ours, puts its container before all others; then ours is called again.
func reinvocation(t *testing.T, c *cluster) {
	var calls int
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		var review struct {
			Request struct {
				UID    string `json:"uid"`
				Object object `json:"object"`
			} `json:"request"`
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &review) != nil {
			t.Errorf("%v: %s", err, body)
			return
		}
		response := object{"uid": review.Request.UID, "allowed": true}
		if have := containers(review.Request.Object, "initContainers"); !slices.Contains(have, "other") {
			patch, err := json.Marshal([]object{{"op": "add", "path": "/spec/initContainers/0", "value": object{"name": "other", "image": "other"}}})
			if err != nil {
				t.Error(err)
			}
			response["patch"], response["patchType"] = patch, "JSONPatch"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(object{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}) // the API server says when it is not taken
	}))
	defer server.Close()
	const others = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	c.namespace("shared", "")
	c.network("shared", "quiet", nil)
	c.must(c.Do(t.Context(), http.MethodPost, others, object{
		"metadata": object{"name": "zz-another"},
		"webhooks": []object{{
			"name": "another.example.com", "admissionReviewVersions": []string{"v1"}, "sideEffects": "None", "reinvocationPolicy": "IfNeeded", "failurePolicy": "Fail",
			"clientConfig":      object{"url": server.URL, "caBundle": ca},
			"namespaceSelector": object{"matchLabels": object{"kubernetes.io/metadata.name": "shared"}},
			"rules":             []object{{"operations": []string{"CREATE"}, "apiGroups": []string{""}, "apiVersions": []string{"v1"}, "resources": []string{"pods"}}},
		}},
	}, nil))
	var got created
	eventually(t, "the other webhook is called", func() error {
		got = c.create(t.Context(), "shared", "", bare(map[string]string{networks: "quiet", asks: "native"}))
		if got.err == nil && calls == 0 {
			return io.ErrNoProgress
		}
		return got.err
	})
	if diff := cmp.Diff([]string{"other", "multus-vpc-sync"}, containers(got.pod, "initContainers")); diff != "" {
		t.Error(diff)
	}
	c.must(c.Do(t.Context(), http.MethodDelete, others+"/zz-another", nil, nil))
}
