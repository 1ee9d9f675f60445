// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// statefulSets is an API server that knows the pod db-3 of StatefulSet db, and the pod loner of nobody.
func statefulSets(t *testing.T) *httptest.Server {
	t.Helper()
	const pod = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"namespace":"prod","uid":"u1",`
	mux := http.NewServeMux()
	answer := func(name, rest string) {
		mux.HandleFunc("GET /api/v1/namespaces/prod/pods/"+name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, "%s\"name\":%q%s}}", pod, name, rest)
		})
	}
	answer("db-3", `,"labels":{"apps.kubernetes.io/pod-index":"3"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"StatefulSet","name":"db","uid":"s1","controller":true}]`)
	answer("loner", "")
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// TestStickyAddressesFollowTheOrdinal: from the request on the socket through the Kubernetes API to EC2 and back.
func TestStickyAddressesFollowTheOrdinal(t *testing.T) {
	t.Parallel()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, kubeconfig, fmt.Sprintf(`
current-context: here
contexts: [{name: here, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: %q}}]
`, statefulSets(t).URL), 0o600)
	running := served(t)
	tests := map[string]struct {
		env       []string
		pod, want string
	}{
		"its address":              {[]string{"KUBECONFIG=" + kubeconfig}, "db-3", "10.71.1.35/24"},
		"not a StatefulSet's":      {[]string{"KUBECONFIG=" + kubeconfig}, "loner", `pod prod/loner belongs to no StatefulSet`},
		"unknown to the API":       {[]string{"KUBECONFIG=" + kubeconfig}, "db-4", `ask the Kubernetes API whose pod it is: get pod prod/db-4: `},
		"without a Kubernetes API": {nil, "db-3", "the agent has no access to the Kubernetes API"},
	}
	for name, tc := range tests {
		d := started(t, running, running.IMDSURL["worker-1"], tc.env...)
		query := onIndex(1)
		query.Sticky = &attachment.Sticky{StatefulSet: "db"}
		r, err := attachment.ParseRange("10.71.1.32/30")
		if err != nil {
			t.Fatal(err)
		}
		query.Ranges = []attachment.Range{r}
		asks := attached(name)
		asks.Pod = attachment.Pod{Namespace: "prod", Name: tc.pod, UID: "u1"}
		resp, err := agentapi.Client{Socket: d.socket, Timeout: time.Minute}.Call(t.Context(), agentapi.Request{
			Method: agentapi.MethodAdd, Attachment: asks, Query: query,
		})
		got := fmt.Sprint(err)
		if err == nil && len(resp.Add.Addresses) == 1 {
			got = resp.Add.Addresses[0].String()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
		d.stop()
	}
}
