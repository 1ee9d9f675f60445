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
		"annotations": {"k8s.v1.cni.cncf.io/resourceName": "x/y", "multus-vpc.io/sync": "native", "multus-vpc.io/via": "ec2", "aws-multus-eni-mgmt-sidecar/inject": "yes", "multus-vpc.io/floating": "10.10.1.90, 10.10.1.96/31", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
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
		{"kind": "NetworkAttachmentDefinition", "metadata": {"name": "odd", "annotations": {"multus-vpc.io/floating": "x"}}, "spec": {"config": "{}"}},
		{"kind": 5}]}`), migrate.Options{})
	want := []struct{ name, note, err string }{
		{"multus/n", "metadata.annotations.multus-vpc.io/sync: is not carried over: pods need no container of ours any more\n" +
			"metadata.annotations.multus-vpc.io/via: is not carried over: it says how that container reaches EC2\n" +
			"metadata.annotations.aws-multus-eni-mgmt-sidecar/inject: is not carried over: the injector would give pods a sidecar\nmetadata.annotations.multus-vpc.io/floating: becomes the key \"floating\"", ""},
		{"Pod p", "is no NetworkAttachmentDefinition, and left out", ""},
		{"file", "", "spec.config: missing"},
		{"a/mac", "", "type: macvlan"},
		{"ours", "is for multus-vpc already", ""},
		{"odd", "", "metadata.annotations.multus-vpc.io/floating: \"x\" is neither"},
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
	var got struct {
		Metadata json.RawMessage `json:"metadata"`
		Spec     struct {
			Config string `json:"config"`
		} `json:"spec"`
	}
	if err = json.Unmarshal(all[0].Object, &got); err != nil {
		t.Fatal(err)
	}
	if g, w := canonical(t, string(got.Metadata)), canonical(t, `{"name": "n", "namespace": "multus", "labels": {"a": "b"}, "annotations": {"k8s.v1.cni.cncf.io/resourceName": "x/y"}}`); g != w {
		t.Errorf("metadata is\n%s\nwant\n%s", g, w)
	}
	if g, w := canonical(t, got.Spec.Config), canonical(t, strings.Replace(onENI1(`{"type": "vpcipam"}`), `"ipam"`, `"floating": ["10.10.1.90", "10.10.1.96-10.10.1.97"], "ipam"`, 1)); g != w || !strings.HasSuffix(got.Spec.Config, "}\n") {
		t.Errorf("config is\n%q\nwant\n%s", got.Spec.Config, w)
	}
	for doc, want := range map[string]int{`null`: 0, `{}`: 0, `5`: 1, `{"kind": "List", "items": {}}`: 1, `{"kind": "NetworkAttachmentDefinitionList"}`: 0} {
		if got := migrate.Document(json.RawMessage(doc), migrate.Options{}); len(got) != want {
			t.Errorf("%s: %+v", doc, got)
		}
	}
}
