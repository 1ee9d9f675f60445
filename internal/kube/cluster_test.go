// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kube_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

// db3 is the pod db-3 as the StatefulSet controller makes it.
func db3() map[string]any {
	return map[string]any{
		"metadata": map[string]any{
			"name": "db-3", "labels": map[string]any{"apps.kubernetes.io/pod-index": "3"},
			"ownerReferences": []any{map[string]any{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "5e7", "controller": true}},
		},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "db", "image": "db"}}},
	}
}

// TestOfAnAPIServer asks a real API server, as the service account of examples/agent-rbac.yaml and before it may.
func TestOfAnAPIServer(t *testing.T) {
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if closeErr := c.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	must := func(problem error) {
		t.Helper()
		if problem != nil {
			t.Fatal(problem)
		}
	}
	var pod struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	const pods = "/api/v1/namespaces/default/pods"
	must(c.Do(t.Context(), http.MethodPost, pods, db3(), &pod))
	was := attachment.Pod{Namespace: "default", Name: "db-3", UID: pod.Metadata.UID}
	must(c.Apply(t.Context(), []byte("{apiVersion: v1, kind: Namespace, metadata: {name: multus-vpc}}\n---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: agent, namespace: multus-vpc}}\n")))
	as := account(t, c)
	agent := client(t, as)
	if _, _, err = agent.Ordinal(t.Context(), was); err == nil ||
		!strings.Contains(err.Error(), `pods "db-3" is forbidden: User "system:serviceaccount:multus-vpc:agent" cannot get resource "pods"`) ||
		!strings.Contains(err.Error(), "give the agent's service account get on pods") {
		t.Errorf("without a role: %v", err)
	}

	text, err := os.ReadFile("../../examples/agent-rbac.yaml")
	must(err)
	must(c.Apply(t.Context(), text))
	if set, n, ordinalErr := allowed(t, agent, was); set != "db" || n != 3 || ordinalErr != nil {
		t.Errorf("with the role: %q, %d, %v", set, n, ordinalErr)
	}
	if _, _, err = agent.Ordinal(t.Context(), attachment.Pod{Namespace: "default", Name: "db-4"}); err == nil || !strings.Contains(err.Error(), `pods "db-4" not found`) {
		t.Errorf("no such pod: %v", err)
	}
	listed(t, c, agent)
	welcomed(t, c, agent)
	recorded(t, c, agent, was)
	mayNothingElse(t, c, as)

	definitions, err := stack.Definitions(programs)
	must(err)
	example, err := os.ReadFile("../../examples/statefulset.yaml")
	must(err)
	must(c.Apply(t.Context(), append(definitions, "\n---\n"+string(example)...)))

	now := map[string]any{"gracePeriodSeconds": 0}
	must(c.Do(t.Context(), http.MethodDelete, pods+"/db-3", now, nil))
	must(c.Do(t.Context(), http.MethodPost, pods, db3(), &pod))
	if _, _, err = agent.Ordinal(t.Context(), was); err == nil || !strings.Contains(err.Error(), "has UID "+pod.Metadata.UID+", not "+was.UID+": it has been replaced") {
		t.Errorf("the pod's successor: %v", err)
	}
	write(t, filepath.Join(as.ServiceAccountDir, "token"), "of somebody")
	if _, _, err := client(t, as).Ordinal(t.Context(), was); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
		t.Errorf("with a token that is not known: %v", err)
	}
}

// listed demands that the agent is shown what Multus wrote about the pods of its node, and nothing about others.
func listed(t *testing.T, c *kubernetes.Cluster, agent *kube.Client) {
	t.Helper()
	for name, node := range map[string]string{"here": "node-1", "there": "node-2"} {
		pod := map[string]any{
			"metadata": map[string]any{"name": name, "annotations": map[string]any{
				"k8s.v1.cni.cncf.io/network-status": `[{"interface":"net1","ips":["10.10.1.80"]}]`,
			}},
			"spec": map[string]any{"nodeName": node, "containers": []any{map[string]any{"name": "a", "image": "a"}}},
		}
		if err := c.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/default/pods", pod, nil); err != nil {
			t.Fatal(err)
		}
	}
	found, err := agent.Networks(t.Context(), "node-1")
	if err != nil || len(found) != 1 || found[0].Pod.Name != "here" || len(found[0].Addrs["net1"]) != 1 {
		t.Errorf("pods of node-1: %+v, %v", found, err)
	}
}

// welcomed demands that the agent can take the startup taint off its node, and nothing else.
func welcomed(t *testing.T, c *kubernetes.Cluster, agent *kube.Client) {
	t.Helper()
	const nodes = "/api/v1/nodes"
	other := map[string]any{"key": "dedicated", "value": "upf", "effect": "NoSchedule"}
	node := map[string]any{"metadata": map[string]any{"name": "node-1"}, "spec": map[string]any{"taints": []any{other, taint(startup, "NoSchedule")}}}
	if err := c.Do(t.Context(), http.MethodPost, nodes, node, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if had, err := agent.RemoveTaint(t.Context(), "node-1", startup); err != nil || had != want {
			t.Errorf("the node had the taint %t, %v; want %t", had, err, want)
		}
	}
	var left struct {
		Spec struct{ Taints []map[string]any }
	}
	if err := c.Do(t.Context(), http.MethodGet, nodes+"/node-1", nil, &left); err != nil {
		t.Fatal(err)
	}
	for _, l := range left.Spec.Taints {
		if l["key"] == startup {
			t.Errorf("taints %v", left.Spec.Taints)
		}
	}
	if !slices.ContainsFunc(left.Spec.Taints, func(l map[string]any) bool { return maps.Equal(l, other) }) {
		t.Errorf("taints %v, want %v among them", left.Spec.Taints, other)
	}
}

// recorded demands that the agent's events are the pod's, as kubectl looks for them.
func recorded(t *testing.T, c *kubernetes.Cluster, agent *kube.Client, pod attachment.Pod) {
	t.Helper()
	for i := range 2 {
		event := kube.Event{Pod: pod, Warning: true, Reason: "AddressLost", Message: strings.Repeat("long ", 300), Time: time.Unix(1_800_000_000, int64(i)), Node: "node-1"}
		if err := agent.Record(t.Context(), event); err != nil {
			t.Fatal(err)
		}
	}
	var found struct {
		Items []struct{ Type, Reason, Message string }
	}
	of := url.Values{"fieldSelector": {"involvedObject.kind=Pod,involvedObject.name=" + pod.Name + ",involvedObject.uid=" + pod.UID + ",type=Warning"}}
	if err := c.Do(t.Context(), http.MethodGet, "/api/v1/namespaces/default/events?"+of.Encode(), nil, &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Items) != 2 || found.Items[0].Reason != "AddressLost" || !strings.HasPrefix(found.Items[0].Message, "long long ") {
		t.Errorf("events of the pod: %+v", found.Items)
	}
}

// allowed asks until the API server has heard of the role, which its authorizer watches for.
func allowed(t *testing.T, agent *kube.Client, pod attachment.Pod) (set string, n int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		set, n, err = agent.Ordinal(ctx, pod)
		if err == nil || !strings.Contains(err.Error(), "is forbidden") {
			return set, n, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return set, n, err
		}
	}
}

// account is the access of a pod that runs as the agent's service account.
func account(t *testing.T, c *kubernetes.Cluster) kube.Config {
	t.Helper()
	var issued struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	if err := c.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/multus-vpc/serviceaccounts/agent/token", map[string]any{}, &issued); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), issued.Status.Token)
	write(t, filepath.Join(dir, "ca.crt"), string(c.CA))
	return kube.Config{ServiceHost: at.Hostname(), ServicePort: at.Port(), ServiceAccountDir: dir, UserAgent: "agent/test"}
}

// mayNothingElse demands that the API server refuses the account whatever the agent does not do.
func mayNothingElse(t *testing.T, c *kubernetes.Cluster, as kube.Config) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(as.ServiceAccountDir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	asAgent := *c
	asAgent.Token = string(token)
	for _, r := range []struct{ method, path string }{
		{http.MethodGet, "/api/v1/namespaces/default/pods?watch=true"},
		{http.MethodPost, "/api/v1/namespaces/default/pods"},
		{http.MethodDelete, "/api/v1/namespaces/default/pods/db-3"},
		{http.MethodGet, "/api/v1/namespaces/default/pods/db-3/log"},
		{http.MethodPost, "/api/v1/namespaces/default/pods/db-3/exec"},
		{http.MethodGet, "/api/v1/namespaces/default/secrets/any"},
		{http.MethodGet, "/api/v1/namespaces/default/configmaps/any"},
		{http.MethodGet, "/api/v1/nodes"},
		{http.MethodGet, "/api/v1/namespaces/default/events"},
		{http.MethodGet, "/apis/apps/v1/namespaces/default/statefulsets/db"},
	} {
		var body any
		if r.method == http.MethodPost {
			body = db3()
		}
		refusal, ok := errors.AsType[*kubernetes.StatusError](asAgent.Do(context.WithoutCancel(t.Context()), r.method, r.path, body, nil))
		if !ok || refusal.Code != http.StatusForbidden {
			t.Errorf("%s %s as the agent: %v, want that it is forbidden", r.method, r.path, refusal)
		}
	}
}
