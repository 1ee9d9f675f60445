// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	words "github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// soon is an event of so long ago that the drain's ten minutes end in a few seconds.
func soon() time.Time { return time.Now().Add(2*time.Second - 10*time.Minute) }

// TestDrain starts one API server for all of its parts: it takes seconds.
func TestDrain(t *testing.T) {
	t.Parallel()
	c := raise(t)
	c.apply("drain-rbac.yaml")
	t.Run("force needs a right of its own", func(t *testing.T) { forceWithoutRight(t, c) })
	c.apply("drain-force-rbac.yaml")
	t.Run("parts", func(t *testing.T) {
		for name, part := range map[string]func(*testing.T, *cluster){
			"a budget is respected":                respect,
			"two drains at once respect it":        twice,
			"the time is up: the pods stay":        giveUp,
			"the time is up: the pods are deleted": force,
			"a caller comes back":                  comeBack,
			"two budgets for one pod":              twoBudgets,
			"a pod of the same name is not it":     sameName,
			"strangers are denied":                 strangers,
			"a group that shrinks":                 shrink,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				part(t, c)
			})
		}
	})
}

// respect empties a worker with two of the three pods of an app, of which two have to be ready at any time, beside pods that stay.
func respect(t *testing.T, all *cluster) {
	c, worker, instance := all.in(t, "respect")
	ctx := t.Context()
	for name, node := range map[string]string{"upf-0": worker, "upf-1": worker, "upf-2": "respect-other"} {
		c.must(c.run(ctx, name, node, 30, app("upf")))
	}
	c.must(c.run(ctx, "agent-1", worker, 30, object{"ownerReferences": []object{{
		"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "1", "controller": true,
	}}}))
	c.must(c.run(ctx, "kube-proxy", worker, 30, object{"annotations": object{"kubernetes.io/config.mirror": "0123"}}))
	c.must(c.run(ctx, "job-1", worker, 30, nil))
	c.must(c.status(ctx, "job-1", "Succeeded", false))
	c.must(c.run(ctx, "elsewhere", "respect-other", 30, nil))
	c.budget("upf", 2)
	a := (&actors{cluster: c, app: "upf", replicas: 3, node: "respect-other", startup: 700 * time.Millisecond}).start()

	flow, log := c.flow(drain.Continue)
	began := time.Now()
	if err := flow.Drain(ctx, instance, began); err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	if !c.cordoned(worker) || c.cordoned("respect-other") {
		t.Error("the wrong nodes are cordoned")
	}
	if diff := cmp.Diff([]string{"agent-1", "job-1", "kube-proxy"}, c.on(worker)); diff != "" {
		t.Errorf("left on the node (-want +got):\n%s", diff)
	}
	if n := a.worst(); n != 2 {
		t.Errorf("%d of the app were ready at the least", n)
	}
	// What follows the name depends on whether the budget's status has caught up with the eviction before.
	if !strings.Contains(log.String(), "The disruption budget upf ") {
		t.Errorf("the log does not say which budget refused:\n%s", log)
	}
	t.Logf("drained in %s", time.Since(began).Round(time.Millisecond))

	again, log := c.flow(drain.Continue)
	if err := again.Drain(ctx, instance, began); err != nil || strings.Contains(log.String(), "evicted=1") {
		t.Errorf("the second time: %v\n%s", err, log)
	}
	if err := again.Return(ctx, instance, began.Add(-time.Minute)); err != nil || !c.cordoned(worker) {
		t.Errorf("an old event: %v, cordoned %t", err, c.cordoned(worker))
	}
	if err := again.Return(ctx, instance, time.Now()); err != nil || c.cordoned(worker) {
		t.Errorf("out of the warm pool: %v, cordoned %t", err, c.cordoned(worker))
	}
}

// twice has an event delivered twice.
func twice(t *testing.T, all *cluster) {
	c, worker, instance := all.in(t, "twice")
	for i := range 2 {
		c.must(c.run(t.Context(), fmt.Sprintf("upf-%d", i), worker, 30, app("upf")))
	}
	c.budget("upf", 1)
	a := (&actors{cluster: c, app: "upf", replicas: 2, node: "twice-other", startup: 700 * time.Millisecond}).start()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			flow, log := c.flow(drain.Force)
			if err := flow.Drain(t.Context(), instance, time.Now()); err != nil {
				t.Errorf("%v\n%s", err, log)
			}
		})
	}
	wg.Wait()
	if n, left := a.worst(), c.on(worker); n != 1 || len(left) != 0 {
		t.Errorf("%d were ready at the least, left %v", n, left)
	}
}

// stubborn has a worker with one pod that its budget never lets go.
func stubborn(t *testing.T, all *cluster, name string, grace int) (c *cluster, worker string, instance eni.InstanceID) {
	t.Helper()
	c, worker, instance = all.in(t, name)
	c.must(c.run(t.Context(), "db-0", worker, grace, app("db")))
	c.budget("db", 1)
	(&actors{cluster: c, app: "db", replicas: 1, node: name + "-other"}).start()
	return c, worker, instance
}

func giveUp(t *testing.T, all *cluster) {
	c, worker, instance := stubborn(t, all, "give-up", 30)
	flow, log := c.flow(drain.Continue)
	began := time.Now()
	err := flow.Drain(t.Context(), instance, soon())
	failure, ok := errors.AsType[*drain.Error](err)
	if !ok || errors.Is(err, drain.ErrUnfinished) || time.Since(began) > 10*time.Second {
		t.Fatalf("%v after %s\n%s", err, time.Since(began), log)
	}
	if len(failure.Left) != 1 || failure.Left[0].Pod != "give-up/db-0" || !strings.HasPrefix(failure.Left[0].Why, "The disruption budget db ") {
		t.Errorf("left %+v", failure.Left)
	}
	if diff := cmp.Diff([]string{"db-0"}, c.on(worker)); diff != "" || !c.cordoned(worker) {
		t.Errorf("cordoned %t, %s", c.cordoned(worker), diff)
	}
}

func force(t *testing.T, all *cluster) {
	c, worker, instance := stubborn(t, all, "force", 3600)
	flow, log := c.flow(drain.Force)
	err := flow.Drain(t.Context(), instance, soon())
	if err != nil || len(c.on(worker)) != 0 || !c.cordoned(worker) {
		t.Errorf("%v, left %v\n%s", err, c.on(worker), log)
	}
	if !strings.Contains(log.String(), "deleted=1") || !strings.Contains(log.String(), "The disruption budget db needs 1 healthy pods and has 1 currently") {
		t.Errorf("log:\n%s", log)
	}
}

func forceWithoutRight(t *testing.T, all *cluster) {
	c, worker, instance := stubborn(t, all, "no-right", 30)
	flow, log := c.flow(drain.Force)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	err := flow.Drain(ctx, instance, soon())
	if !errors.Is(err, words.ErrDenied) || !strings.Contains(err.Error(), `cannot delete resource "pods"`) || len(c.on(worker)) != 1 {
		t.Errorf("%v, left %v\n%s", err, c.on(worker), log)
	}
}

// comeBack has a function whose time is up, and its next invocation.
func comeBack(t *testing.T, all *cluster) {
	c, worker, instance := all.in(t, "come-back")
	c.must(c.run(t.Context(), "a", worker, 30, nil))
	flow, log := c.flow(drain.Continue)
	event := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := flow.Drain(ctx, instance, event); !errors.Is(err, drain.ErrUnfinished) {
		t.Errorf("%v\n%s", err, log)
	}
	(&actors{cluster: c}).start()
	flow, log = c.flow(drain.Continue)
	if err := flow.Drain(t.Context(), instance, event); err != nil || strings.Contains(log.String(), "node cordoned") || len(c.on(worker)) != 0 {
		t.Errorf("%v, left %v\n%s", err, c.on(worker), log)
	}
}

// twoBudgets is a mistake that the API server answers with 500.
func twoBudgets(t *testing.T, all *cluster) {
	c, worker, instance := stubborn(t, all, "two-budgets", 30)
	c.do(http.MethodPost, c.budgets(), object{
		"metadata": object{"name": "db-too"}, "spec": object{"minAvailable": 0, "selector": object{"matchLabels": object{"app": "db"}}},
	}, nil)
	flow, log := c.flow(drain.Continue)
	err := flow.Drain(t.Context(), instance, soon())
	if err == nil || !strings.Contains(err.Error(), "has more than one PodDisruptionBudget") || len(c.on(worker)) != 1 {
		t.Errorf("%v, left %v\n%s", err, c.on(worker), log)
	}
}

// sameName evicts a pod of a StatefulSet that has moved since it was listed.
func sameName(t *testing.T, all *cluster) {
	c, worker, _ := all.in(t, "same-name")
	c.must(c.run(t.Context(), "db-0", worker, 0, nil))
	client := c.client(function)
	old, err := client.Residents(t.Context(), worker, true)
	if err != nil || len(old) != 1 {
		t.Fatalf("%v, %v", old, err)
	}
	c.do(http.MethodDelete, c.pods()+"/db-0", object{"gracePeriodSeconds": 0}, nil)
	c.must(c.run(t.Context(), "db-0", "same-name-other", 0, nil))
	for what, err := range map[string]error{
		"evict": client.Evict(t.Context(), old[0]), "delete": client.Delete(t.Context(), old[0], 0),
	} {
		if !errors.Is(err, words.ErrGone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := client.Cordon(t.Context(), "no-such-node", time.Now()); !errors.Is(err, words.ErrGone) {
		t.Errorf("cordon: %v", err)
	}
	if diff := cmp.Diff([]string{"db-0"}, c.on("same-name-other")); diff != "" {
		t.Error(diff)
	}
}

// strangers are roles without an access entry, and with one whose group is bound to nothing.
func strangers(t *testing.T, all *cluster) {
	c, worker, instance := all.in(t, "strangers")
	for keyID, want := range map[string]string{stranger: "Unauthorized", misconfigured: `cannot list resource "nodes"`} {
		_, err := c.client(keyID).Homes(t.Context(), instance)
		if !errors.Is(err, words.ErrDenied) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", keyID, err)
		}
	}
	if _, err := c.client(function).Residents(t.Context(), worker, false); err != nil {
		t.Error(err)
	}
	// What the example does not grant.
	var refused int
	for _, path := range []string{"/api/v1/secrets", "/api/v1/configmaps", "/api/v1/namespaces"} {
		if !all.may(t, function, path) {
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("only %d of 3 were refused", refused)
	}
}
