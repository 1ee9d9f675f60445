// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package migrate_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/migrate"
)

// TestDocument: of the object, all but the configuration and what the API server wrote stays.
func TestDocument(t *testing.T) {
	t.Parallel()
	config, err := json.Marshal(ipvlan(`{"type": "static"}`))
	if err != nil {
		t.Fatal(err)
	}
	nad := `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "n", "namespace": "multus", "labels": {"a": "b"},
		"annotations": {"k8s.v1.cni.cncf.io/resourceName": "x/y", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
		"creationTimestamp": "2024-04-02T00:00:00Z", "generation": 1, "managedFields": [], "resourceVersion": "12", "uid": "u"}, "spec": {"config": ` + string(config) + `}}`
	ours, err := json.Marshal(onENI1(`{"type": "vpcipam"}`))
	if err != nil {
		t.Fatal(err)
	}
	all := migrate.Document(json.RawMessage(`{"kind": "List", "items": [`+nad+`,
		{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}},
		{"kind": "NetworkAttachmentDefinition", "metadata": {"name": "file"}},
		{"kind": "NetworkAttachmentDefinition", "metadata": {"name": "mac", "namespace": "a"}, "spec": {"config": "{\"type\": \"macvlan\"}"}},
		{"kind": "NetworkAttachmentDefinition", "metadata": {"name": "ours"}, "spec": {"config": `+string(ours)+`}},
		{"kind": 5}]}`), migrate.Options{})
	want := []struct{ name, note, err string }{
		{"multus/n", "pods that ask", ""},
		{"Pod p", "is no NetworkAttachmentDefinition, and left out", ""},
		{"file", "", "spec.config: missing"},
		{"a/mac", "", "type: macvlan"},
		{"ours", "is for multus-vpc already", ""},
		{"a document", "", "kind: 5 is no string"},
	}
	if len(all) != len(want) {
		t.Fatalf("%d outcomes, want %d: %+v", len(all), len(want), all)
	}
	for i, w := range want {
		got := all[i]
		if got.Name != w.name || !strings.Contains(strings.Join(got.Notes, "\n"), w.note) || (got.Err == nil) != (w.err == "") || got.Err != nil && !strings.Contains(got.Err.Error(), w.err) {
			t.Errorf("%+v, want %+v", got, w)
		}
	}
	replaced, err := json.Marshal(strings.TrimSuffix(onENI1(`{"type": "vpcipam"}`), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	if err := json.Unmarshal(all[0].Object, &got); err != nil {
		t.Fatal(err)
	}
	spec := got["spec"].(map[string]any)
	spec["config"] = canonical(t, spec["config"].(string))
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var config2 string
	if err := json.Unmarshal(replaced, &config2); err != nil {
		t.Fatal(err)
	}
	inCanonical, err := json.Marshal(canonical(t, config2))
	if err != nil {
		t.Fatal(err)
	}
	if g, w := canonical(t, string(text)), canonical(t, `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "n", "namespace": "multus",
		"labels": {"a": "b"}, "annotations": {"k8s.v1.cni.cncf.io/resourceName": "x/y"}}, "spec": {"config": `+string(inCanonical)+`}}`); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	for doc, want := range map[string]int{`null`: 0, `{}`: 0, `5`: 1, `{"kind": "List", "items": {}}`: 1, `{"kind": "NetworkAttachmentDefinitionList"}`: 0} {
		if got := migrate.Document(json.RawMessage(doc), migrate.Options{}); len(got) != want {
			t.Errorf("%s: %+v", doc, got)
		}
	}
}
