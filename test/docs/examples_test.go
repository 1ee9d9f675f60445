// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"encoding/json"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// kubernetesObject is what the examples' objects have in common with what we look at.
type kubernetesObject struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Config   string `json:"config"`
		Replicas int    `json:"replicas"`
		Template struct {
			Metadata struct {
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
		} `json:"template"`
	} `json:"spec"`
}

// TestExampleOfAStatefulSet: its network is the file's, is sticky for it, and has an address for each of its pods. That an
// API server takes the objects is a test of package kube.
func TestExampleOfAStatefulSet(t *testing.T) {
	t.Parallel()
	objects := map[string]kubernetesObject{}
	for _, text := range strings.Split(read(t, "examples/statefulset.yaml"), "\n---\n") {
		var o kubernetesObject
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		objects[o.Kind] = o
	}
	nad, set := objects["NetworkAttachmentDefinition"], objects["StatefulSet"]
	if err := accept(nad.Spec.Config, nad.Metadata.Name); err != nil {
		t.Fatal(err)
	}
	c, err := netconf.ParseVPCIpvlan(json.RawMessage(nad.Spec.Config), env)
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Spec.Template.Metadata.Annotations["k8s.v1.cni.cncf.io/networks"]; got != nad.Metadata.Name {
		t.Errorf("the pods' network is %q, want %q", got, nad.Metadata.Name)
	}
	if c.IPAM.Sticky == nil || c.IPAM.Sticky.StatefulSet != set.Metadata.Name {
		t.Fatalf("the network is not sticky for StatefulSet %q", set.Metadata.Name)
	}
	if _, ok := attachment.Nth(c.IPAM.Ranges, uint64(set.Spec.Replicas-1)); !ok || set.Spec.Replicas == 0 {
		t.Errorf("ranges %v have no address for %d pods", c.IPAM.Ranges, set.Spec.Replicas)
	}
}
