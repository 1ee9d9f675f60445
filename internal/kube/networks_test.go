// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/kube"
)

// lister is an API server that lists pods of node-1, two to a page, and fails the test on every other question.
type lister struct {
	t    *testing.T
	pods []string // metadata
	deny bool
}

func (l *lister) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const living = "spec.nodeName=node-1,status.phase!=Succeeded,status.phase!=Failed"
	if got := r.URL.Query().Get("fieldSelector"); r.Method != http.MethodGet || r.URL.Path != "/api/v1/pods" || got != living {
		l.t.Errorf("unexpected request %s %s", r.Method, r.RequestURI)
	}
	if accept := r.Header.Get("Accept"); !strings.Contains(accept, "as=PartialObjectMetadataList") {
		l.t.Errorf("asks for more than metadata: %s", accept)
	}
	if l.deny {
		refuse(w, http.StatusForbidden, "Forbidden", `pods is forbidden: User "agent" cannot list resource`)
		return
	}
	from, next := 0, ""
	if r.URL.Query().Get("continue") != "" {
		_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &from)
	}
	page := l.pods[from:]
	if len(page) > 2 {
		page, next = page[:2], fmt.Sprint(from+2)
	}
	items := make([]string, len(page))
	for i, metadata := range page {
		items[i] = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":` + metadata + `}`
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"continue":%q},"items":[%s]}`, next, strings.Join(items, ","))
}

func (l *lister) client() *kube.Client {
	l.t.Helper()
	s := httptest.NewServer(l)
	l.t.Cleanup(s.Close)
	file := filepath.Join(l.t.TempDir(), "kubeconfig")
	write(l.t, file, fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","clusters":[{"name":"c","cluster":{"server":%q}}],"contexts":[{"name":"c","context":{"cluster":"c"}}],"current-context":"c"}`, s.URL))
	return client(l.t, kube.Config{Kubeconfig: file, UserAgent: "agent/test"})
}

// podWith is a pod's metadata with what Multus wrote.
func podWith(t *testing.T, name, status, more string) string {
	t.Helper()
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"name":%q,"namespace":"core","uid":"u-%[1]s","annotations":{"k8s.v1.cni.cncf.io/network-status":%s}%s}`, name, text, more)
}

func TestNetworksAreWhatMultusWrote(t *testing.T) {
	t.Parallel()
	const both = `[{"name":"aws-cni","interface":"eth0","ips":["10.10.12.80"],"default":true,"dns":{}},
		{"name":"core/n6","interface":"net1","ips":["10.10.1.80","2001:db8::80"],"mac":"02:00:00:00:00:01","dns":{}}]`
	l := &lister{t: t, pods: []string{
		podWith(t, "a", both, ""),
		`{"name":"without","namespace":"core"}`,
		podWith(t, "going", both, `,"deletionTimestamp":"2026-01-01T00:00:00Z"`),
		podWith(t, "garbled", "[{", ""),
		podWith(t, "odd", `[{"interface":"net1","ips":["ten","10.10.1.81/24"]}]`, ""),
	}}
	got, err := l.client().Networks(t.Context(), "node-1")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr
	want := []kube.PodNetworks{
		{
			Pod: attachment.Pod{Namespace: "core", Name: "a", UID: "u-a"}, Default: []netip.Addr{addr("10.10.12.80")},
			Addrs: map[string][]netip.Addr{"eth0": {addr("10.10.12.80")}, "net1": {addr("10.10.1.80"), addr("2001:db8::80")}},
		},
		{Pod: attachment.Pod{Namespace: "core", Name: "odd", UID: "u-odd"}, Addrs: map[string][]netip.Addr{"net1": {addr("10.10.1.81")}}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
}

func TestNetworksSaysWhyItCannotTell(t *testing.T) {
	t.Parallel()
	l := &lister{t: t, deny: true}
	if _, err := l.client().Networks(t.Context(), "node-1"); err == nil || !strings.Contains(err.Error(), "list pods of node node-1: pods is forbidden") ||
		!strings.Contains(err.Error(), "give the agent's service account list on pods") {
		t.Errorf("forbidden: %v", err)
	}
	if _, err := l.client().Networks(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "set --node-name") {
		t.Errorf("without a node: %v", err)
	}
}
