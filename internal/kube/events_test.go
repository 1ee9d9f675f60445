// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/kube"
)

// eventServer takes events, and refuses what RBAC forbids.
type eventServer struct {
	t           *testing.T
	deny        bool
	terminating bool // the namespace
	got         []map[string]any
}

func (s *eventServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces/core/events" {
		s.t.Errorf("unexpected request %s %s", r.Method, r.URL)
	}
	if s.deny {
		refuse(w, http.StatusForbidden, "Forbidden", "events is forbidden: cannot create resource")
		return
	}
	if s.terminating {
		const message = "events \"amf-0\" is forbidden: unable to create new content in namespace core because it is being terminated"
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "Forbidden", "code": http.StatusForbidden,
			"details": map[string]any{"causes": []any{map[string]any{"reason": "NamespaceTerminating", "message": "namespace core is being terminated", "field": "metadata.namespace"}}},
		})
		return
	}
	var event map[string]any
	if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
		s.t.Error(err)
	}
	s.got = append(s.got, event)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(event)
}

func (s *eventServer) client() *kube.Client {
	server := httptest.NewServer(s)
	s.t.Cleanup(server.Close)
	path := filepath.Join(s.t.TempDir(), "config")
	write(s.t, path, `{"clusters":[{"name":"c","cluster":{"server":"`+server.URL+`"}}],"contexts":[{"name":"x","context":{"cluster":"c","user":"u"}}],"current-context":"x","users":[{"name":"u"}]}`)
	c, err := kube.New(kube.Config{Kubeconfig: path, UserAgent: "agent/test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func anEvent() kube.Event {
	return kube.Event{
		Pod: attachment.Pod{Namespace: "core", Name: "amf-0", UID: "u1"}, Warning: true, Reason: "AddressLost", Message: "gone",
		Time: time.Date(2026, 11, 22, 10, 0, 0, 255, time.UTC), Node: "node-1",
	}
}

func TestRecord(t *testing.T) {
	s := &eventServer{t: t}
	if err := s.client().Record(t.Context(), anEvent()); err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{{
		"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "AddressLost", "message": "gone", "count": 1.0,
		"metadata":       map[string]any{"name": "amf-0.18ea55ac4e7b40ff", "namespace": "core"},
		"involvedObject": map[string]any{"apiVersion": "v1", "kind": "Pod", "namespace": "core", "name": "amf-0", "uid": "u1"},
		"source":         map[string]any{"component": "multus-vpc-agent", "host": "node-1"},
		"firstTimestamp": "2026-11-22T10:00:00Z", "lastTimestamp": "2026-11-22T10:00:00Z",
	}}
	if diff := cmp.Diff(want, s.got); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
}

func TestRecordFitsTheAPI(t *testing.T) {
	s := &eventServer{t: t}
	e := anEvent()
	e.Pod.Name, e.Message = strings.Repeat("a", 253), strings.Repeat("ä", 600)
	if err := s.client().Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	metadata, _ := s.got[0]["metadata"].(map[string]any)
	if name, _ := metadata["name"].(string); len(name) > 253 || strings.Contains(name, "..") {
		t.Errorf("name %q of %d characters", name, len(name))
	}
	if message, _ := s.got[0]["message"].(string); len(message) > 1024 || !utf8.ValidString(message) || strings.ContainsRune(message, utf8.RuneError) {
		t.Errorf("message of %d bytes: %q", len(message), message)
	}
}

// TestRecordInANamespaceThatEnds: Kubernetes says that as it says that a right is missing, which is not what is wrong.
func TestRecordInANamespaceThatEnds(t *testing.T) {
	s := &eventServer{t: t, terminating: true}
	if err := s.client().Record(t.Context(), anEvent()); err == nil || !strings.Contains(err.Error(), "is being terminated") || strings.Contains(err.Error(), "service account") {
		t.Error(err)
	}
}

func TestRecordIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		deny      bool
		namespace string
		says      string
	}{
		"not allowed":       {deny: true, namespace: "core", says: "give the agent's service account create on events"},
		"no namespace":      {namespace: "", says: "no such name can be"},
		"no namespace name": {namespace: "../kube-system", says: "no such name can be"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &eventServer{t: t, deny: tt.deny}
			e := anEvent()
			e.Pod.Namespace = tt.namespace
			if err := s.client().Record(t.Context(), e); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}
