// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/ekstoken"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/kubedrain"
	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
)

type object = map[string]any

// cluster is a namespace of a real API server that knows the function's role by its token.
type cluster struct {
	*kubernetes.Cluster
	t         *testing.T
	namespace string
}

const clusterName = "prod"

// raise starts an API server.
func raise(t *testing.T) *cluster {
	t.Helper()
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubernetes.Start(t.Context(), kubernetes.Config{Programs: programs, Authenticate: authenticate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if closeErr := k.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	return &cluster{Cluster: k, t: t, namespace: "default"}
}

// apply applies a file of the examples.
func (c *cluster) apply(name string) {
	c.t.Helper()
	text, err := os.ReadFile("../../examples/" + name)
	c.must(err)
	c.must(c.Apply(c.t.Context(), text))
}

// in is a new namespace for a test, with a worker, its instance, and another worker.
func (c *cluster) in(t *testing.T, name string) (space *cluster, worker string, instance eni.InstanceID) {
	t.Helper()
	space = &cluster{Cluster: c.Cluster, t: t, namespace: name}
	space.do(http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": name}}, nil)
	worker, instance = name+".us-west-2.compute.internal", eni.InstanceID("i-"+name)
	space.node(worker, instance)
	space.node(name+"-other", eni.InstanceID("i-"+name+"-other"))
	return space, worker, instance
}

func (c *cluster) pods() string { return "/api/v1/namespaces/" + c.namespace + "/pods" }

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// do sends a request as the administrator, whose refusal fails the test.
func (c *cluster) do(method, path string, in, out any) {
	c.t.Helper()
	c.must(c.Do(c.t.Context(), method, path, in, out))
}

// client is what a function has: its role's token, and the cluster's endpoint and authority.
func (c *cluster) client(keyID string) *kubedrain.Client {
	c.t.Helper()
	source := ekstoken.New(aws.Config{
		Region: "us-west-2", Credentials: credentials.NewStaticCredentialsProvider(keyID, secrets[keyID], "session"),
	}, clusterName)
	client, err := kubedrain.New(kubedrain.Config{Endpoint: c.URL, CA: c.CA, Token: source.Token, UserAgent: "bootstrap/test"})
	c.must(err)
	return client
}

// node makes a worker.
func (c *cluster) node(name string, instance eni.InstanceID) {
	c.t.Helper()
	c.do(http.MethodPost, "/api/v1/nodes", object{"metadata": object{"name": name}, "spec": object{"providerID": "aws:///us-west-2a/" + string(instance)}}, nil)
}

func (c *cluster) cordoned(name string) bool {
	c.t.Helper()
	var n struct {
		Spec struct{ Unschedulable bool }
	}
	c.do(http.MethodGet, "/api/v1/nodes/"+name, nil, &n)
	return n.Spec.Unschedulable
}

// pod is what the tests read of one.
type pod struct {
	Metadata struct {
		Name              string
		Namespace         string
		Labels            map[string]string
		DeletionTimestamp *time.Time
	}
	Spec struct {
		NodeName                      string
		TerminationGracePeriodSeconds int
	}
	Status struct {
		Phase      string
		Conditions []struct{ Type, Status string }
	}
}

func (p pod) leaving() bool { return p.Metadata.DeletionTimestamp != nil }

func (p pod) ready() bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c struct{ Type, Status string }) bool { return c.Type == "Ready" && c.Status == "True" })
}

// run makes a pod that runs on a node. change adds to its metadata.
func (c *cluster) run(ctx context.Context, name, node string, grace int, change object) error {
	meta := object{"name": name}
	for k, v := range change {
		meta[k] = v
	}
	err := c.Do(ctx, http.MethodPost, c.pods(), object{
		"metadata": meta,
		"spec": object{
			"nodeName": node, "terminationGracePeriodSeconds": grace, "containers": []object{{"name": "c", "image": "c"}},
		},
	}, nil)
	if err != nil {
		return err
	}
	return c.status(ctx, name, "Running", true)
}

// status sets what a kubelet would.
func (c *cluster) status(ctx context.Context, name, phase string, ready bool) error {
	state := map[bool]string{true: "True", false: "False"}[ready]
	var p object
	if err := c.Do(ctx, http.MethodGet, c.pods()+"/"+name, nil, &p); err != nil {
		return err
	}
	p["status"] = object{"phase": phase, "conditions": []object{{"type": "Ready", "status": state}}}
	return c.Do(ctx, http.MethodPut, c.pods()+"/"+name+"/status", p, nil)
}

func (c *cluster) list(ctx context.Context) ([]pod, error) {
	var all struct{ Items []pod }
	err := c.Do(ctx, http.MethodGet, c.pods(), nil, &all)
	return all.Items, err
}

// on are the names of the pods on a node.
func (c *cluster) on(node string) (names []string) {
	c.t.Helper()
	all, err := c.list(c.t.Context())
	c.must(err)
	for _, p := range all {
		if p.Spec.NodeName == node {
			names = append(names, p.Metadata.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *cluster) budgets() string {
	return "/apis/policy/v1/namespaces/" + c.namespace + "/poddisruptionbudgets"
}

// budget makes a PodDisruptionBudget for the label app=NAME.
func (c *cluster) budget(name string, minAvailable int) {
	c.t.Helper()
	c.do(http.MethodPost, c.budgets(), object{
		"metadata": object{"name": name},
		"spec":     object{"minAvailable": minAvailable, "selector": object{"matchLabels": object{"app": name}}},
	}, nil)
}

// app labels a pod as one of an app.
func app(name string) object { return object{"labels": object{"app": name}} }

// actors does what a Deployment's controller, the disruption controller and kubelets do in a namespace, until its test ends.
type actors struct {
	*cluster
	app      string // of which one replaces each pod that goes, on the node
	replicas int
	node     string
	startup  time.Duration

	mu     sync.Mutex
	least  int // ready pods of the app at any time
	serial int
	made   map[string]time.Time
}

// worst is how many pods of the app were ready when there were fewest.
func (a *actors) worst() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.least
}

func (a *actors) start() *actors {
	a.least, a.made = a.replicas, map[string]time.Time{}
	a.must(a.act(a.t.Context()))
	ctx, cancel := context.WithCancel(a.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if err := a.act(ctx); err != nil && ctx.Err() == nil {
				a.t.Errorf("controllers: %v", err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	a.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return a
}

// act is one round of all of them. A replacement is ready when its startup time is over.
func (a *actors) act(ctx context.Context) error {
	all, err := a.list(ctx)
	if err != nil {
		return err
	}
	var there []pod
	ready := map[string]bool{}
	for _, p := range all {
		name := p.Metadata.Name
		switch {
		case p.leaving():
			err = a.Do(ctx, http.MethodDelete, a.pods()+"/"+name, object{"gracePeriodSeconds": 0}, nil)
			if err != nil && !isStatus(err, http.StatusNotFound) {
				return err
			}
			continue
		case p.Metadata.Labels["app"] != a.app:
			continue
		case p.ready():
			ready[name] = true
		case time.Since(a.made[name]) > a.startup:
			if err = a.status(ctx, name, "Running", true); err != nil {
				return err
			}
		}
		there = append(there, p)
	}
	a.mu.Lock()
	a.least = min(a.least, len(ready))
	a.mu.Unlock()
	for range a.replicas - len(there) {
		a.serial++
		name := fmt.Sprintf("%s-new-%d", a.app, a.serial)
		a.made[name] = time.Now()
		err = a.Do(ctx, http.MethodPost, a.pods(), object{
			"metadata": object{"name": name, "labels": object{"app": a.app}},
			"spec":     object{"nodeName": a.node, "containers": []object{{"name": "c", "image": "c"}}},
		}, nil)
		if err != nil {
			return err
		}
	}
	return a.allow(ctx, ready)
}

// allow is the disruption controller: a pod whose eviction was granted does not count as healthy although it may not have begun to end.
// https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/#PodDisruptionBudgetStatus
func (a *actors) allow(ctx context.Context, ready map[string]bool) error {
	if a.app == "" {
		return nil
	}
	at := a.budgets() + "/" + a.app
	var whole object
	if err := a.Do(ctx, http.MethodGet, at, nil, &whole); err != nil {
		if isStatus(err, http.StatusNotFound) {
			return nil
		}
		return err
	}
	healthy, granted := len(ready), object{}
	status, _ := whole["status"].(object)
	disrupted, _ := status["disruptedPods"].(object)
	for name, since := range disrupted {
		if ready[name] {
			granted[name] = since
			healthy--
		}
	}
	least := int(whole["spec"].(object)["minAvailable"].(float64))
	whole["status"] = object{
		"observedGeneration": whole["metadata"].(object)["generation"], "expectedPods": a.replicas, "currentHealthy": healthy,
		"desiredHealthy": least, "disruptionsAllowed": max(0, healthy-least), "disruptedPods": granted,
	}
	err := a.Do(ctx, http.MethodPut, at+"/status", whole, nil)
	if isStatus(err, http.StatusConflict) { // an eviction was faster
		return nil
	}
	return err
}

func isStatus(err error, code int) bool {
	refusal, ok := errors.AsType[*kubernetes.StatusError](err)
	return ok && refusal.Code == code
}

// lines collects the log as text.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// config is one that Parse accepts, for the cluster.
func (c *cluster) config(action drain.Action) drain.Config {
	c.t.Helper()
	variables := map[string]string{
		drain.VarNodes: "true", drain.VarOnTimeout: string(action), drain.VarClusterName: clusterName, drain.VarClusterEndpoint: c.URL,
		drain.VarClusterCA: base64.StdEncoding.EncodeToString(c.CA),
	}
	cfg, err := drain.Parse(func(name string) string { return variables[name] })
	c.must(err)
	return cfg
}

// flow is the function's, with its log.
func (c *cluster) flow(action drain.Action) (*drain.Flow, *lines) {
	c.t.Helper()
	var log lines
	return drain.New(c.config(action), c.client(function), slog.New(slog.NewTextHandler(&log, nil))), &log
}

// may reports whether a principal can read what is at a path.
func (c *cluster) may(t *testing.T, keyID, path string) bool {
	t.Helper()
	token, err := ekstoken.New(aws.Config{
		Region: "us-west-2", Credentials: credentials.NewStaticCredentialsProvider(keyID, secrets[keyID], "session"),
	}, clusterName).Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := *c.Cluster
	other.Token = token
	err = other.Do(t.Context(), http.MethodGet, path, nil, nil)
	if err != nil && !isStatus(err, http.StatusForbidden) {
		t.Fatal(err)
	}
	return err == nil
}
