// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/kube"
)

const startup = "multus-vpc.io/agent-not-ready"

// nodeServer has one node, and carries out the patches that the client makes, as https://www.rfc-editor.org/rfc/rfc6902 says.
type nodeServer struct {
	t       *testing.T
	taints  []any
	deny    string // the verb that RBAC refuses
	between func() // runs between a GET and its answer
	patches int
}

func taint(key, effect string) any { return map[string]any{"key": key, "effect": effect} }

func (s *nodeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/nodes/node-1" {
		refuse(w, http.StatusNotFound, "NotFound", "nodes not found")
		return
	}
	verb := map[string]string{http.MethodGet: "get", http.MethodPatch: "patch"}[r.Method]
	if verb == s.deny || verb == "" {
		refuse(w, http.StatusForbidden, "Forbidden", "nodes is forbidden: cannot "+verb+" resource")
		return
	}
	answer := map[string]any{"kind": "Node", "apiVersion": "v1", "metadata": map[string]any{"name": "node-1"}, "spec": map[string]any{}}
	if s.taints != nil {
		answer["spec"] = map[string]any{"taints": s.taints}
	}
	if verb == "patch" {
		s.patches++
		var ops []struct {
			Op, Path string
			Value    []any
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &ops)
		}
		if err != nil || len(ops) != 2 || ops[0].Op != "test" || ops[1].Op != "replace" || ops[0].Path != "/spec/taints" || ops[1].Path != "/spec/taints" {
			s.t.Errorf("patch %s: %v", body, err)
		}
		if !cmp.Equal(ops[0].Value, s.taints) {
			refuse(w, http.StatusUnprocessableEntity, "Invalid", "the server rejected our request due to an error in our request")
			return
		}
		s.taints = ops[1].Value
	} else if s.between != nil {
		defer s.between()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func TestRemoveTaint(t *testing.T) {
	other := taint("node.kubernetes.io/not-ready", "NoSchedule")
	for name, tt := range map[string]struct {
		taints  []any
		deny    string
		node    string
		changed bool
		had     bool
		left    []any
		says    string
	}{
		"it has none":        {taints: nil, left: nil},
		"it has others":      {taints: []any{other}, left: []any{other}},
		"alone":              {taints: []any{taint(startup, "NoSchedule")}, had: true, left: []any{}},
		"with both effects":  {taints: []any{taint(startup, "NoSchedule"), other, taint(startup, "NoExecute")}, had: true, left: []any{other}},
		"may not look":       {taints: []any{taint(startup, "NoSchedule")}, deny: "get", left: []any{taint(startup, "NoSchedule")}, says: "give the agent's service account get and patch on nodes"},
		"may not patch":      {taints: []any{taint(startup, "NoSchedule")}, deny: "patch", had: true, left: []any{taint(startup, "NoSchedule")}, says: "give the agent's service account get and patch on nodes"},
		"no such node":       {node: "node-2", says: "get node node-2: nodes not found"},
		"no node's name":     {node: "../pods", says: "no such name can be"},
		"somebody is faster": {taints: []any{taint(startup, "NoSchedule")}, changed: true, had: true, left: []any{taint(startup, "NoSchedule"), other}, says: "its taints changed meanwhile"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &nodeServer{t: t, taints: tt.taints, deny: tt.deny}
			if tt.changed {
				s.between = func() { s.taints = append(s.taints, other) }
			}
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			file := filepath.Join(t.TempDir(), "kubeconfig")
			write(t, file, "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: "+server.URL+"}}]\n")
			if tt.node == "" {
				tt.node = "node-1"
			}
			had, err := client(t, kube.Config{Kubeconfig: file}).RemoveTaint(t.Context(), tt.node, startup)
			if had != tt.had || (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("had %t, %v; want %t, %q", had, err, tt.had, tt.says)
			}
			if diff := cmp.Diff(tt.left, s.taints); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
			if s.patches > 0 && !tt.had {
				t.Errorf("%d patches of a node that needs none", s.patches)
			}
		})
	}
}
