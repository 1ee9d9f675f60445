// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sticky

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// statefulSet is what a Kubernetes API server answers about the pods of a StatefulSet, for workers that cannot have a real
// one. It wants a token, answers GETs of a pod's metadata and takes events of pods; anything else fails the test.
type statefulSet struct {
	t     *testing.T
	name  string
	token string

	mu   sync.Mutex
	uids map[string]string // of the pods that are, by name
	told map[string]bool   // the reasons of events
}

func newStatefulSet(t *testing.T, name string) *statefulSet {
	return &statefulSet{t: t, name: name, token: "of the agent's service account", uids: map[string]string{}, told: map[string]bool{}}
}

// heard reports whether an event had this reason.
func (s *statefulSet) heard(reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told[reason]
}

// event takes an event of a pod.
func (s *statefulSet) event(w http.ResponseWriter, r *http.Request) {
	var e struct {
		Reason         string
		InvolvedObject struct{ Kind, Namespace, Name, UID string }
	}
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Namespace != "default" || e.InvolvedObject.UID == "" {
		s.t.Errorf("event %+v, %v", e, err)
	}
	s.mu.Lock()
	s.told[e.Reason] = true
	s.mu.Unlock()
	answer(w, http.StatusCreated, object{"kind": "Event", "apiVersion": "v1", "metadata": object{"namespace": "default"}})
}

// recreate replaces the pod by one with another UID, as the controller does.
func (s *statefulSet) recreate(name string, life int) (uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uids[name] = fmt.Sprintf("%s.%d", name, life)
	return s.uids[name]
}

func (s *statefulSet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == "/api/v1/namespaces/default/events" && r.Header.Get("Authorization") == "Bearer "+s.token {
		s.event(w, r)
		return
	}
	const path = "/api/v1/namespaces/default/pods/"
	name, ok := strings.CutPrefix(r.URL.Path, path)
	if r.Method != http.MethodGet || !ok || strings.Contains(name, "/") || !strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata;g=meta.k8s.io;v=v1") {
		s.t.Errorf("the agent asks the Kubernetes API for more than a pod's metadata: %s %s, Accept %q", r.Method, r.RequestURI, r.Header.Get("Accept"))
	}
	s.mu.Lock()
	uid, known := s.uids[name]
	s.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer "+s.token:
		answer(w, http.StatusUnauthorized, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "message": "Unauthorized", "code": http.StatusUnauthorized})
	case !known:
		answer(w, http.StatusNotFound, object{
			"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound,
			"message": fmt.Sprintf("pods %q not found", name),
		})
	default:
		answer(w, http.StatusOK, object{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object{
			"namespace": "default", "name": name, "uid": uid,
			"labels":          object{"apps.kubernetes.io/pod-index": name[strings.LastIndex(name, "-")+1:]},
			"ownerReferences": []object{{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": s.name, "uid": "s1", "controller": true}},
		}})
	}
}

type object = map[string]any

func answer(w http.ResponseWriter, code int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a client that left does not matter
}

// serve answers at the listener, and returns a kubeconfig that reaches it. The caller closes the server.
func (s *statefulSet) serve(l net.Listener) (server *httptest.Server, kubeconfig string) {
	server = httptest.NewUnstartedServer(s)
	server.Listener.Close()
	server.Listener = l
	server.StartTLS()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return server, fmt.Sprintf(`
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {token: %q}}]
`, server.URL, base64.StdEncoding.EncodeToString(ca), s.token)
}
