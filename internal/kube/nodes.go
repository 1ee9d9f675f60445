// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

// errTaintsChanged says that somebody else changed the node's taints meanwhile.
var errTaintsChanged = errors.New("its taints changed meanwhile")

// RemoveTaint takes the taints of that key off a node, and says whether it had one. Others stay, also those that somebody sets in this moment: then
// it is an error, and to be called again. Needed of RBAC: get and patch on nodes.
func (c *Client) RemoveTaint(ctx context.Context, node, key string) (had bool, err error) {
	// The client resolves "..", and the name comes from a flag.
	if wrong := validation.IsDNS1123Subdomain(node); len(wrong) > 0 {
		return false, fmt.Errorf("node %q: no such name can be: %s", node, wrong[0])
	}
	nodes := c.objects.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"})
	found, err := nodes.Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return false, fmt.Errorf("get node %s: %w", node, allow(err))
	}
	patch, err := withoutTaint(found, key)
	if err != nil {
		return false, fmt.Errorf("node %s: %w", node, err)
	}
	if patch == nil {
		return false, nil
	}
	switch _, err = nodes.Patch(ctx, node, types.JSONPatchType, patch, metav1.PatchOptions{}); {
	case apierrors.IsInvalid(err) || apierrors.IsConflict(err): // what the patch tests for is not there
		return true, fmt.Errorf("remove the taint %s of node %s: %w: %w", key, node, errTaintsChanged, err)
	case err != nil:
		return true, fmt.Errorf("remove the taint %s of node %s: %w", key, node, allow(err))
	}
	return true, nil
}

func allow(err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%w; give the agent's service account get and patch on nodes", err)
	}
	return err
}

// operation is one of a JSON patch. A test that fails makes the whole patch fail. https://www.rfc-editor.org/rfc/rfc6902#section-4.6
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// withoutTaint is the patch that takes the taints of the key away, nil when there is none. The list of taints has no key to merge by: it is replaced,
// and only if it still is as it was read.
func withoutTaint(node *unstructured.Unstructured, key string) ([]byte, error) {
	all, _, err := unstructured.NestedSlice(node.Object, "spec", "taints")
	if err != nil {
		return nil, err
	}
	rest := []any{}
	for _, t := range all {
		if taint, ok := t.(map[string]any); !ok || taint["key"] != key {
			rest = append(rest, t)
		}
	}
	if len(rest) == len(all) {
		return nil, nil
	}
	const path = "/spec/taints"
	return json.Marshal([]operation{{"test", path, all}, {"replace", path, rest}})
}
