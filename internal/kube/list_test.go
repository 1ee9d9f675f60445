// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/kube"
)

// pager is an API server that lists, page by page, as many pods as it has.
type pager struct {
	t       *testing.T
	objects []string // JSON
	expire  int      // so many times, the second page is asked for too late
	refuse  int      // status of every answer instead
	pages   []string // what was asked for
}

func (l *pager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	l.pages = append(l.pages, r.URL.Path+" from "+query.Get("continue"))
	var from, limit int
	if _, err := fmt.Sscan(query.Get("limit"), &limit); err != nil || limit < 1 {
		l.t.Errorf("%s asks for all at once", r.RequestURI)
	}
	_, _ = fmt.Sscan(query.Get("continue"), &from) // none is the first
	switch {
	case l.refuse != 0:
		refuse(w, l.refuse, http.StatusText(l.refuse), "the server says no")
		return
	case from > 0 && l.expire > 0:
		l.expire--
		refuse(w, http.StatusGone, "Expired", "The provided continue parameter is too old")
		return
	}
	to, next := min(from+limit, len(l.objects)), ""
	if to < len(l.objects) {
		next = fmt.Sprint(to)
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"kind":"List","apiVersion":"v1","metadata":{"continue":%q},"items":[%s]}`, next, strings.Join(l.objects[from:to], ","))
}

func (l *pager) reader(t *testing.T) *kube.Reader {
	t.Helper()
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	config, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "elsewhere",
		"clusters": []any{map[string]any{"name": "here", "cluster": map[string]any{"server": server.URL}}},
		"users":    []any{map[string]any{"name": "me", "user": map[string]any{}}},
		"contexts": []any{map[string]any{"name": "this", "context": map[string]any{"cluster": "here", "user": "me"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := kube.NewReader(kube.Config{Kubeconfig: file, Context: "this", UserAgent: "vpcctl/test"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func somePods(n int) (pods []string) {
	for i := range n {
		pods = append(pods, fmt.Sprintf(`{"kind":"Pod","metadata":{"name":"p-%d","namespace":"n"}}`, i))
	}
	return pods
}

func TestListsComeInPages(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pager pager
		want  int
		pages int
		err   string
	}{
		"none":                     {pager{}, 0, 1, ""},
		"a page":                   {pager{objects: somePods(500)}, 500, 1, ""},
		"three pages":              {pager{objects: somePods(1001)}, 1001, 3, ""},
		"the second page too late": {pager{objects: somePods(700), expire: 1}, 700, 4, ""},
		"always too late":          {pager{objects: somePods(700), expire: 9}, 0, 4, "list pods: The provided continue parameter is too old"},
		"forbidden":                {pager{refuse: http.StatusForbidden}, 0, 1, "list pods: the server says no"},
		"not known":                {pager{refuse: http.StatusNotFound}, 0, 1, "list pods: the server says no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.pager.t = t
			pods, err := tc.pager.reader(t).Pods(t.Context())
			if got := fmt.Sprint(err); len(pods) != tc.want || tc.err == "" && err != nil || !strings.Contains(got, tc.err) {
				t.Errorf("%d pods, %v; want %d, %q", len(pods), err, tc.want, tc.err)
			}
			if len(tc.pager.pages) != tc.pages {
				t.Errorf("asked for %q, want %d pages", tc.pager.pages, tc.pages)
			}
		})
	}
}

func TestWhatIsReadOfObjects(t *testing.T) {
	t.Parallel()
	none := &pager{t: t, refuse: http.StatusNotFound}
	if networks, err := none.reader(t).Networks(t.Context()); err != nil || len(networks) != 0 {
		t.Errorf("a cluster without the kind: %v, %v", networks, err)
	}
	pods := &pager{t: t, objects: []string{
		`{"metadata": {"name": "a", "namespace": "n", "annotations": {"k": "v"}}, "spec": {"nodeName": "w", "hostNetwork": true,
			"initContainers": [{"command": ["/sidecar"], "args": ["--floating", "10.0.0.1"]}], "containers": [{"args": ["x"], "env": [{"name": "E", "value": "1"}, {"name": "F", "valueFrom": {}}]}]},
			"status": {"phase": "Running", "startTime": "2026-01-02T03:04:05Z", "podIPs": [{"ip": "10.0.0.2"}, {"ip": "2001:db8::2"}]}}`,
		`{"metadata": {"name": "b", "namespace": "n"}, "status": {"phase": "Succeeded", "startTime": null}}`,
	}}
	got, err := pods.reader(t).Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []cluster.Pod{
		{
			Namespace: "n", Name: "a", Node: "w", HostNetwork: true, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Annotations: map[string]string{"k": "v"},
			IPs:        []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")},
			Containers: []cluster.Container{{Command: []string{"/sidecar", "--floating", "10.0.0.1"}}, {Command: []string{"x"}, Env: map[string]string{"E": "1", "F": ""}}},
		},
		{Namespace: "n", Name: "b", Ended: true},
	}
	same := []cmp.Option{cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(want, got, same...); diff != "" {
		t.Errorf("pods (want, got):\n%s", diff)
	}
	bad := &pager{t: t, objects: []string{`{"metadata": {"name": "a", "namespace": "n"}, "status": {"podIPs": [{"ip": "ten"}]}}`}}
	if _, err = bad.reader(t).Pods(t.Context()); err == nil || !strings.Contains(err.Error(), `list pods: n/a: status.podIPs: ParseAddr("ten")`) {
		t.Errorf("an address that is none: %v", err)
	}
	nodes := &pager{t: t, objects: []string{
		`{"metadata": {"name": "w"}, "spec": {"providerID": "aws:///us-west-2a/i-0123"}}`, `{"metadata": {"name": "x"}, "spec": {"providerID": "kind://docker/kind/i-0"}}`, `{"metadata": {"name": "y"}}`,
		`{"metadata": {"name": "z"}, "status": {"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}}`,
		`{"metadata": {"name": "lost"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}`,
	}}
	found, err := nodes.reader(t).Nodes(t.Context())
	if diff := cmp.Diff([]cluster.Node{{Name: "w", Instance: "i-0123"}, {Name: "x"}, {Name: "y"}, {Name: "z"}, {Name: "lost", Lost: true}}, found); err != nil || diff != "" {
		t.Errorf("nodes: %v (want, got):\n%s", err, diff)
	}
	networks := &pager{t: t, objects: []string{`{"metadata": {"name": "a", "namespace": "n", "annotations": {"k": "v"}}, "spec": {"config": "{}"}}`, `{"metadata": {"name": "b", "namespace": "n"}}`}}
	defined, err := networks.reader(t).Networks(t.Context())
	if diff := cmp.Diff([]cluster.Network{{Namespace: "n", Name: "a", Config: "{}", Annotations: map[string]string{"k": "v"}}, {Namespace: "n", Name: "b"}}, defined); err != nil || diff != "" {
		t.Errorf("networks: %v (want, got):\n%s", err, diff)
	}
	if got := networks.pages[0]; got != "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions from " {
		t.Errorf("asked for %s", got)
	}
}

// TestKubeconfigsAreMerged: a list of files is what KUBECONFIG may be.
func TestKubeconfigsAreMerged(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(&pager{t: t, objects: somePods(3)})
	t.Cleanup(server.Close)
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	write(t, one, `{"apiVersion": "v1", "kind": "Config", "current-context": "this", "contexts": [{"name": "this", "context": {"cluster": "here"}}]}`)
	write(t, two, `{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "here", "cluster": {"server": "`+server.URL+`"}}]}`)
	list := strings.Join([]string{one, filepath.Join(dir, "absent"), two}, string(filepath.ListSeparator))
	r, err := kube.NewReader(kube.Config{Kubeconfig: list})
	if err != nil {
		t.Fatal(err)
	}
	if pods, err := r.Pods(t.Context()); err != nil || len(pods) != 3 {
		t.Errorf("%v, %v", pods, err)
	}
}

func TestReaderNeedsAnAPI(t *testing.T) {
	t.Parallel()
	if _, err := kube.NewReader(kube.Config{}); err == nil || !strings.Contains(err.Error(), kube.ErrNoAPI.Error()) {
		t.Errorf("%v", err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, file, `{"apiVersion": "v1", "kind": "Config"}`)
	if _, err := kube.NewReader(kube.Config{Kubeconfig: file, Context: "nowhere"}); err == nil || !strings.Contains(err.Error(), "context was not found for specified context: nowhere") {
		t.Errorf("%v", err)
	}
}
