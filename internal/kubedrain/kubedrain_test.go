// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kubedrain_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/kubedrain"
)

// serve answers requests, of which it keeps method, path, query and body.
func serve(t *testing.T, answer http.HandlerFunc) (client *kubedrain.Client, requests *[]string) {
	t.Helper()
	var seen []string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if got := r.Header.Get("Authorization"); got != "Bearer token" {
			t.Errorf("authorization %q", got)
		}
		if got := r.Header.Get("User-Agent"); got != "us" {
			t.Errorf("user agent %q", got)
		}
		query := r.URL.Query()
		if query.Get("timeout") != "30s" {
			t.Errorf("%s is not bounded", r.URL)
		}
		query.Del("timeout")
		seen = append(seen, strings.TrimSpace(r.Method+" "+strings.TrimSuffix(r.URL.Path+"?"+query.Encode(), "?")+" "+string(body)))
		w.Header().Set("Content-Type", "application/json")
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	client, err := kubedrain.New(kubedrain.Config{
		Endpoint: s.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), UserAgent: "us",
		Token: func(context.Context) (string, error) { return "token", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return client, &seen
}

func TestHomesReadsAllPages(t *testing.T) {
	t.Parallel()
	client, requests := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("continue") == "" {
			fmt.Fprint(w, `{"metadata":{"continue":"more"},"items":[{"metadata":{"name":"a"},"spec":{"providerID":"aws:///us-west-2a/i-1"}},{"metadata":{"name":"joins"}}]}`)
			return
		}
		fmt.Fprint(w, `{"metadata":{},"items":[{"metadata":{"name":"b","resourceVersion":"7","annotations":{"multus-vpc.io/cordoned":"2026-11-22T10:00:00Z"}},"spec":{"providerID":"aws:///us-west-2a/i-2","unschedulable":true}},{"metadata":{"name":"c"},"spec":{"providerID":"aws:///us-west-2b/i-22"}}]}`)
	})
	homes, err := client.Homes(t.Context(), "i-2")
	if diff := cmp.Diff([]cluster.Home{{Name: "b", Version: "7", Unschedulable: true, Cordoned: when}}, homes); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if diff := cmp.Diff([]string{"GET /api/v1/nodes?limit=500", "GET /api/v1/nodes?continue=more&limit=500"}, *requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestInstance(t *testing.T) {
	t.Parallel()
	client, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[{"metadata":{"name":"a"},"spec":{"providerID":"aws:///us-west-2a/i-1"}}]}`)
	})
	for name, want := range map[string]eni.InstanceID{"a": "i-1", "b": ""} {
		if got, err := client.Instance(t.Context(), name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	slices.Sort(*requests)
	want := []string{"GET /api/v1/nodes?fieldSelector=metadata.name%3Da", "GET /api/v1/nodes?fieldSelector=metadata.name%3Db"}
	if diff := cmp.Diff(want, *requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestResidents(t *testing.T) {
	t.Parallel()
	client, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[
			{"metadata":{"namespace":"core","name":"upf-0","uid":"1","ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","controller":true}]},"spec":{"terminationGracePeriodSeconds":30},"status":{"phase":"Running"}},
			{"metadata":{"namespace":"core","name":"agent","uid":"2","ownerReferences":[{"apiVersion":"apps/v1","kind":"DaemonSet","controller":true}]}},
			{"metadata":{"namespace":"core","name":"not-a-daemon","uid":"3","ownerReferences":[{"apiVersion":"example.com/v1","kind":"DaemonSet","controller":true},{"apiVersion":"apps/v1","kind":"DaemonSet"}]}},
			{"metadata":{"namespace":"kube-system","name":"static","uid":"4","annotations":{"kubernetes.io/config.mirror":""}}},
			{"metadata":{"namespace":"core","name":"job","uid":"5"},"status":{"phase":"Failed"}},
			{"metadata":{"namespace":"core","name":"goes","uid":"6","deletionTimestamp":"2026-11-22T10:00:30Z"},"spec":{"terminationGracePeriodSeconds":30},"status":{"phase":"Running"}}]}`)
	})
	got, err := client.Residents(t.Context(), "node-1", false)
	want := []cluster.Resident{
		{Namespace: "core", Name: "upf-0", UID: "1", Grace: 30 * time.Second},
		{Namespace: "core", Name: "agent", UID: "2", DaemonSet: true},
		{Namespace: "core", Name: "not-a-daemon", UID: "3"},
		{Namespace: "kube-system", Name: "static", UID: "4", Mirror: true},
		{Namespace: "core", Name: "job", UID: "5", Ended: true},
		{Namespace: "core", Name: "goes", UID: "6", Grace: 30 * time.Second, Leaves: time.Date(2026, 11, 22, 10, 0, 30, 0, time.UTC)},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(time.Time.Equal)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err = client.Residents(t.Context(), "node-1", true); err != nil {
		t.Error(err)
	}
	wantRequests := []string{
		"GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0",
		"GET /api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&limit=500",
	}
	if diff := cmp.Diff(wantRequests, *requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestChangesAreAskedForOnce(t *testing.T) {
	t.Parallel()
	upf := cluster.Resident{Namespace: "core", Name: "upf-0", UID: "1"}
	status := func(code int, reason, message, details string) string {
		return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":%q,"details":%s}`, code, reason, message, details)
	}
	refused := func(err error, why string, after time.Duration) bool {
		r, ok := errors.AsType[*cluster.RefusedError](err)
		return ok && r.Why == why && r.After == after
	}
	for name, tc := range map[string]struct {
		code   int
		answer string
		header string
		check  func(error) bool
	}{
		"done": {code: 201, answer: `{"kind":"Status","status":"Success"}`, check: func(err error) bool { return err == nil }},
		"a budget refuses": {
			code:   429,
			answer: status(429, "TooManyRequests", "Cannot evict pod.", `{"causes":[{"reason":"DisruptionBudget","message":"The disruption budget upf needs 2 healthy pods and has 2 currently"}]}`),
			check: func(err error) bool {
				return refused(err, "The disruption budget upf needs 2 healthy pods and has 2 currently", 0)
			},
		},
		"a budget is not counted yet": {
			code: 429, header: "10",
			answer: status(429, "TooManyRequests", "Cannot evict pod.", `{"retryAfterSeconds":10,"causes":[{"reason":"DisruptionBudget","message":"The disruption budget upf is still being processed by the server."}]}`),
			check: func(err error) bool {
				return refused(err, "The disruption budget upf is still being processed by the server.", 10*time.Second)
			},
		},
		"the server is busy": {
			code: 429, header: "1", answer: status(429, "TooManyRequests", "too many requests", `{"retryAfterSeconds":1}`),
			check: func(err error) bool { return refused(err, "too many requests", time.Second) },
		},
		"a webhook refuses": {
			code: 403, answer: status(403, "Forbidden", `admission webhook "drain.example.com" denied the request`, `{}`),
			check: func(err error) bool {
				return refused(err, `admission webhook "drain.example.com" denied the request`, 0)
			},
		},
		"two budgets": {
			code: 500, answer: status(500, "", "This pod has more than one PodDisruptionBudget", "null"),
			check: func(err error) bool { return refused(err, "This pod has more than one PodDisruptionBudget", 0) },
		},
		"the pod is gone":          {code: 404, answer: status(404, "NotFound", "not found", `{}`), check: func(err error) bool { return errors.Is(err, cluster.ErrGone) }},
		"the pod is another":       {code: 409, answer: status(409, "Conflict", "UID", `{}`), check: func(err error) bool { return errors.Is(err, cluster.ErrGone) }},
		"the token is not good":    {code: 401, answer: status(401, "Unauthorized", "Unauthorized", `{}`), check: func(err error) bool { return errors.Is(err, cluster.ErrDenied) }},
		"the server is away":       {code: 503, header: "1", answer: "no backends", check: func(err error) bool { return err != nil && !refused(err, "", 0) }},
		"the budget was contested": {code: 504, header: "10", answer: status(504, "Timeout", "couldn't update PodDisruptionBudget", `{"retryAfterSeconds":10}`), check: func(err error) bool { return err != nil && !errors.Is(err, cluster.ErrGone) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				if tc.header != "" {
					w.Header().Set("Retry-After", tc.header)
				}
				w.WriteHeader(tc.code)
				fmt.Fprint(w, tc.answer)
			})
			err := client.Evict(t.Context(), upf)
			if !tc.check(err) || err != nil && !strings.HasPrefix(err.Error(), "evict pod core/upf-0: ") {
				t.Errorf("got %v", err)
			}
			want := []string{`POST /api/v1/namespaces/core/pods/upf-0/eviction {"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"upf-0","namespace":"core"},"deleteOptions":{"preconditions":{"uid":"1"}}}`}
			if diff := cmp.Diff(want, *requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// when something happened.
var when = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func TestChangesAreSmall(t *testing.T) {
	t.Parallel()
	client, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) })
	if err := client.Cordon(t.Context(), "node-1", when); err != nil {
		t.Error(err)
	}
	if err := client.Uncordon(t.Context(), cluster.Home{Name: "node-1", Version: "7"}); err != nil {
		t.Error(err)
	}
	if err := client.Delete(t.Context(), cluster.Resident{Namespace: "core", Name: "upf-0", UID: "1"}, 30*time.Second); err != nil {
		t.Error(err)
	}
	want := []string{
		`PATCH /api/v1/nodes/node-1 {"metadata":{"annotations":{"multus-vpc.io/cordoned":"2026-11-22T10:00:00Z"}},"spec":{"unschedulable":true}}`,
		`PATCH /api/v1/nodes/node-1 {"metadata":{"resourceVersion":"7","annotations":{"multus-vpc.io/cordoned":null}},"spec":{"unschedulable":null}}`,
		`DELETE /api/v1/namespaces/core/pods/upf-0 {"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":30,"preconditions":{"uid":"1"}}`,
	}
	if diff := cmp.Diff(want, *requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestWhatAConflictMeans: what a request names has changed; a cordon names nothing but the node, which others write at the same time.
func TestWhatAConflictMeans(t *testing.T) {
	t.Parallel()
	client, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":409,"reason":"Conflict","message":"the object has been modified"}`)
	})
	for name, tc := range map[string]struct {
		err  error
		gone bool
	}{
		"cordon":   {client.Cordon(t.Context(), "node-1", when), false},
		"uncordon": {client.Uncordon(t.Context(), cluster.Home{Name: "node-1", Version: "7"}), true},
		"delete":   {client.Delete(t.Context(), cluster.Resident{Namespace: "core", Name: "upf-0", UID: "1"}, 0), true},
	} {
		if tc.err == nil || errors.Is(tc.err, cluster.ErrGone) != tc.gone {
			t.Errorf("%s: %v; gone is to be %t", name, tc.err, tc.gone)
		}
	}
}

// TestNamesAreNoPaths: names come from the API, but a request never goes where they lead.
func TestNamesAreNoPaths(t *testing.T) {
	t.Parallel()
	client, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) })
	for _, name := range []string{"", "..", "a/b"} {
		p := cluster.Resident{Namespace: "core", Name: name}
		if client.Cordon(t.Context(), name, when) == nil || client.Evict(t.Context(), p) == nil || client.Delete(t.Context(), p, 0) == nil {
			t.Errorf("%q is a name", name)
		}
	}
	if len(*requests) != 0 {
		t.Errorf("requests %q", *requests)
	}
}

func TestWithoutATokenNothingIsAsked(t *testing.T) {
	t.Parallel()
	none := errors.New("no credentials")
	client, err := kubedrain.New(kubedrain.Config{Endpoint: "https://127.0.0.1:1", Token: func(context.Context) (string, error) { return "", none }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Homes(t.Context(), "i-1"); !errors.Is(err, none) || !strings.HasPrefix(err.Error(), "list nodes: ") {
		t.Errorf("got %v", err)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	client, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // an answer could still be read
	})
	if err := client.Cordon(ctx, "node-1", when); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestIdleConnectionsAreClosed: the next invocation of a function that was frozen finds none.
func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	var peers []string
	client, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		peers = append(peers, r.RemoteAddr)
		fmt.Fprint(w, `{}`)
	})
	for i := range 3 {
		if i == 2 {
			client.CloseIdle()
		}
		if err := client.Cordon(t.Context(), "node-1", when); err != nil {
			t.Fatal(err)
		}
	}
	if peers[0] != peers[1] || peers[1] == peers[2] {
		t.Errorf("connections from %v", peers)
	}
}

// TestAListIsAskedForOnce, too, and begins anew with the next call when its state is forgotten between two pages.
func TestAListIsAskedForOnce(t *testing.T) {
	t.Parallel()
	answers := []int{http.StatusOK, http.StatusGone, http.StatusServiceUnavailable, http.StatusOK}
	client, requests := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		code := answers[0]
		if answers = answers[1:]; code != http.StatusOK {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d}`, code)
			return
		}
		if len(answers) > 0 {
			fmt.Fprint(w, `{"metadata":{"continue":"more"},"items":[{"metadata":{"name":"a"},"spec":{"providerID":"aws:///us-west-2a/i-1"}}]}`)
			return
		}
		fmt.Fprint(w, `{"items":[{"metadata":{"name":"a"},"spec":{"providerID":"aws:///us-west-2a/i-1"}}]}`)
	})
	for range 2 { // the second page is gone, the server is away
		if homes, err := client.Homes(t.Context(), "i-1"); err == nil || homes != nil {
			t.Errorf("%v, %v", homes, err)
		}
	}
	if homes, err := client.Homes(t.Context(), "i-1"); err != nil || len(homes) != 1 {
		t.Errorf("%v, %v", homes, err)
	}
	if len(*requests) != 4 {
		t.Errorf("requests %q", *requests)
	}
}
