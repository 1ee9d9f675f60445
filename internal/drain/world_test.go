// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

const (
	node   = "node-1"
	worker = eni.InstanceID("i-0123456789abcdef0")
)

// world is a Kubernetes API with one node and a kubelet. It fails the test when it is asked for what must never be.
type world struct {
	t *testing.T

	mu        sync.Mutex
	began     time.Time
	homes     []cluster.Home
	owner     eni.InstanceID              // whose they are
	pods      map[string]cluster.Resident // by UID
	cache     []cluster.Resident          // what a list that is not fresh shows, if it is not nil
	calls     []string                    // with the time since the beginning
	busy      int                         // evictions that are being asked for
	limit     int                         // of busy
	noKubelet bool

	before func(ctx context.Context, call string) error               // fails calls, or holds them
	evict  func(p cluster.Resident, after time.Duration, n int) error // refuses the nth eviction of a pod
	asked  map[string]int
}

func newWorld(t *testing.T, pods ...cluster.Resident) *world {
	w := &world{t: t, began: time.Now(), homes: []cluster.Home{{Name: node}}, owner: worker, pods: map[string]cluster.Resident{}, asked: map[string]int{}, limit: 10}
	for _, p := range pods {
		w.add(p)
	}
	return w
}

// pod is one that takes ten seconds to end.
func pod(name string, change ...func(*cluster.Resident)) cluster.Resident {
	p := cluster.Resident{Namespace: "core", Name: name, UID: "uid-" + name, Grace: 10 * time.Second}
	for _, c := range change {
		c(&p)
	}
	return p
}

func (w *world) add(p cluster.Resident) { w.pods[p.UID] = p }

// call notes a call and lets it fail.
func (w *world) call(ctx context.Context, text string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	w.calls = append(w.calls, fmt.Sprintf("%s %s", time.Since(w.began), text))
	before := w.before
	w.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(ctx, text)
}

func (w *world) Homes(ctx context.Context, instance eni.InstanceID) ([]cluster.Home, error) {
	if instance != worker {
		w.t.Errorf("asked for the node of %s", instance)
	}
	if err := w.call(ctx, "homes"); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.homes), nil
}

func (w *world) Instance(ctx context.Context, name string) (eni.InstanceID, error) {
	if err := w.call(ctx, "instance of "+name); err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(w.homes, func(h cluster.Home) bool { return h.Name == name }) {
		return w.owner, nil
	}
	return "", nil
}

func (w *world) Uncordon(ctx context.Context, h cluster.Home) error {
	if err := w.call(ctx, "uncordon "+h.Name); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, is := range w.homes {
		if is.Name == h.Name && is == h {
			w.homes[i] = cluster.Home{Name: h.Name}
			return nil
		}
	}
	return cluster.ErrGone
}

func (w *world) Cordon(ctx context.Context, name string, since time.Time) error {
	if err := w.call(ctx, "cordon "+name); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, h := range w.homes {
		if h.Name == name {
			w.homes[i].Unschedulable, w.homes[i].Cordoned = true, since
			return nil
		}
	}
	return cluster.ErrGone
}

func (w *world) Residents(ctx context.Context, name string, fresh bool) ([]cluster.Resident, error) {
	if err := w.call(ctx, fmt.Sprintf("list %s fresh=%t", name, fresh)); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !fresh && w.cache != nil {
		return slices.Clone(w.cache), nil
	}
	return w.now(), nil
}

// now are the pods that are there: the kubelet has ended those whose grace is over.
func (w *world) now() (all []cluster.Resident) {
	for _, uid := range slices.Sorted(maps.Keys(w.pods)) {
		p := w.pods[uid]
		if !w.noKubelet && !p.Leaves.IsZero() && !time.Now().Before(p.Leaves) {
			delete(w.pods, uid)
			continue
		}
		all = append(all, p)
	}
	return all
}

func (w *world) Evict(ctx context.Context, p cluster.Resident) error {
	w.mu.Lock()
	if w.busy++; w.busy > w.limit {
		w.t.Errorf("%d evictions at once", w.busy)
	}
	w.mu.Unlock()
	err := w.call(ctx, "evict "+p.Name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy--
	if err != nil {
		return err
	}
	if !w.homes[0].Unschedulable {
		w.t.Errorf("%s is evicted before the node is cordoned", p)
	}
	w.asked[p.Name]++
	if w.evict != nil {
		if err := w.evict(p, time.Since(w.began), w.asked[p.Name]); err != nil {
			return err
		}
	}
	return w.leave(p, p.Grace)
}

func (w *world) Delete(ctx context.Context, p cluster.Resident, grace time.Duration) error {
	if err := w.call(ctx, fmt.Sprintf("delete %s in %s", p.Name, grace)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leave(p, grace)
}

// leave begins a pod's end, or brings it nearer.
func (w *world) leave(p cluster.Resident, grace time.Duration) error {
	is, ok := w.pods[p.UID]
	if is.DaemonSet || is.Mirror || is.Ended {
		w.t.Errorf("%s is to stay", p)
	}
	if !ok {
		return cluster.ErrGone
	}
	if end := time.Now().Add(grace); is.Leaves.IsZero() || end.Before(is.Leaves) {
		is.Leaves = end
		w.pods[p.UID] = is
	}
	return nil
}

// happened are the calls that have the prefix.
func (w *world) happened(prefix string) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if _, text, _ := strings.Cut(c, " "); strings.HasPrefix(text, prefix) {
			all = append(all, c)
		}
	}
	return all
}

// there are the names of the pods that are left.
func (w *world) there() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.now() {
		names = append(names, p.Name)
	}
	return names
}

func (w *world) flow(change ...func(*drain.Config)) *drain.Flow {
	cfg := drain.Config{Nodes: true, Timeout: 10 * time.Minute, OnTimeout: drain.Continue}
	for _, c := range change {
		c(&cfg)
	}
	return drain.New(cfg, w, nil)
}

func force(c *drain.Config) { c.OnTimeout = drain.Force }
