// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package examples

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

const root = "../.."

// object is what is looked at of any kind.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name        string            `json:"name"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Template *template `json:"template"`
	} `json:"spec"`
}

// template is a pod's.
type template struct {
	Metadata struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec map[string]any `json:"spec"`
}

// notRestricted are the files whose pods the Pod Security level restricted does not admit, and why.
var notRestricted = map[string]string{
	"sidecar.yaml":          "volume \"multus-vpc-sync\" uses restricted volume type \"hostPath\"",
	"floating-pair.yaml":    "must not include \"NET_ADMIN\"",
	"floating-sidecar.yaml": "must not include \"NET_ADMIN\"",
	"statefulset.yaml":      "allowPrivilegeEscalation != false",
}

// TestExamples applies all files. What a webhook would keep from being made comes before the files that define one.
func TestExamples(t *testing.T) {
	t.Parallel()
	programs, err := stack.Programs()
	must(t, err)
	c, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	definitions, err := stack.Definitions(programs)
	must(t, err)
	must(t, c.Apply(t.Context(), definitions))
	must(t, c.Apply(t.Context(), []byte(`{apiVersion: v1, kind: Namespace, metadata: {name: strict, labels: {pod-security.kubernetes.io/enforce: restricted}}}`)))

	var last []string
	networks, templates := map[string]bool{}, map[string][]object{}
	for _, file := range files(t) {
		text, err := os.ReadFile(filepath.Join(root, file))
		must(t, err)
		if strings.Contains(string(text), "WebhookConfiguration") {
			last = append(last, file)
			continue
		}
		if err := c.Apply(t.Context(), text); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, o := range objects(t, text) {
			switch {
			case o.Kind == "NetworkAttachmentDefinition":
				networks[o.Metadata.Name] = true
			case o.Spec.Template != nil:
				templates[file] = append(templates[file], o)
			}
		}
	}
	if len(networks) < 15 || len(templates) < 8 {
		t.Errorf("found only %d networks and %d files with pods", len(networks), len(templates))
	}
	for file, owners := range templates {
		for _, o := range owners {
			checkTemplate(t, c, networks, file, o)
		}
	}
	for _, file := range last {
		text, err := os.ReadFile(filepath.Join(root, file))
		must(t, err)
		if err := c.Apply(t.Context(), text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// checkTemplate makes a pod of it, as the object's controller would, and demands that its networks are there, and that the
// strictest Pod Security level admits it or says what is known of it.
func checkTemplate(t *testing.T, c *kubernetes.Cluster, networks map[string]bool, file string, o object) {
	t.Helper()
	pod := map[string]any{
		"metadata": map[string]any{
			"generateName": o.Metadata.Name + "-", "labels": o.Spec.Template.Metadata.Labels, "annotations": o.Spec.Template.Metadata.Annotations,
		},
		"spec": o.Spec.Template.Spec,
	}
	if err := c.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/default/pods?fieldValidation=Strict", pod, nil); err != nil {
		t.Errorf("%s: a pod of %s %s: %v", file, o.Kind, o.Metadata.Name, err)
	}
	err := c.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/strict/pods?dryRun=All", pod, nil)
	if why := notRestricted[filepath.Base(file)]; (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
		t.Errorf("%s: a pod of %s %s under restricted: %v, want %q", file, o.Kind, o.Metadata.Name, err, why)
	}
	for _, name := range asked(t, o.Spec.Template.Metadata.Annotations["k8s.v1.cni.cncf.io/networks"]) {
		if !networks[name] {
			t.Errorf("%s: the pods of %s ask for network %q, which no example defines", file, o.Metadata.Name, name)
		}
	}
}

// asked are the networks of an annotation in either of its forms.
func asked(t *testing.T, annotation string) (names []string) {
	t.Helper()
	if !strings.HasPrefix(annotation, "[") {
		for name := range strings.SplitSeq(annotation, ",") {
			names = append(names, strings.TrimSpace(name))
		}
		return names
	}
	var list []struct {
		Name string `json:"name"`
	}
	must(t, json.Unmarshal([]byte(annotation), &list))
	for _, n := range list {
		names = append(names, n.Name)
	}
	return names
}

// TestVariablesAreThePrograms: each variable that an example gives a container of ours is one that it reads.
func TestVariablesAreThePrograms(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join(root, "internal/podprogram/options.go"))
	must(t, err)
	found := 0
	for _, file := range files(t) {
		text, err := os.ReadFile(filepath.Join(root, file))
		must(t, err)
		for _, m := range regexp.MustCompile(`\bname: (MULTUS_VPC_[A-Z_]+)`).FindAllStringSubmatch(string(text), -1) {
			found++
			if !strings.Contains(string(source), `"`+m[1]+`"`) && !strings.Contains(file, "injector") {
				t.Errorf("%s: the programs read no variable %s", file, m[1])
			}
		}
	}
	if found < 8 {
		t.Errorf("found only %d variables", found)
	}
}

// TestWorkloadsAreListed: each file with pods has its row.
func TestWorkloadsAreListed(t *testing.T) {
	t.Parallel()
	index, err := os.ReadFile(filepath.Join(root, "examples/workloads/README.md"))
	must(t, err)
	for _, file := range files(t) {
		if filepath.Base(filepath.Dir(file)) == "workloads" && !strings.Contains(string(index), "]("+filepath.Base(file)+")") {
			t.Errorf("%s is not listed in examples/workloads/README.md", file)
		}
	}
}

// files are those for a cluster: all but the lab's scenarios.
func files(t *testing.T) (names []string) {
	t.Helper()
	for _, pattern := range []string{"examples/*.yaml", "examples/*/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		must(t, err)
		for _, name := range found {
			rel, err := filepath.Rel(root, name)
			must(t, err)
			names = append(names, rel)
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "examples/lab/") })
	if len(names) < 20 {
		t.Fatalf("found only %d examples", len(names))
	}
	return names
}

// objects are those of a YAML stream.
func objects(t *testing.T, stream []byte) (all []object) {
	t.Helper()
	for _, text := range strings.Split(string(stream), "\n---\n") {
		doc, err := yaml.YAMLToJSON([]byte(text))
		must(t, err)
		var o object
		must(t, json.Unmarshal(doc, &o))
		all = append(all, o)
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
