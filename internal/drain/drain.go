// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package drain empties the Kubernetes node of an instance that ends: it keeps new pods away and evicts those that are there, as
// `kubectl drain` does, while PodDisruptionBudgets say how fast. Whoever learns that an instance ends calls it (a lifecycle hook's
// Lambda), before the instance's interfaces go.
//
// It promises to come back: at the configured time, counted from when the instance began to end and not from the call, or when the
// caller's time is up. An API server that is away, a budget that never allows it, a kubelet that does not answer cannot hold an
// instance for longer. Calling it again goes on from there, and calling it twice at once does no harm. Pods that DaemonSets keep and
// pods of the kubelet's own files stay, as do those that have ended. It lets pods back onto a node only when its instance comes out of a warm pool.
package drain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// Kubernetes is what the flow needs of the API. Each call is bounded in time, and is tried once.
type Kubernetes interface {
	// Homes finds the nodes of an instance.
	Homes(ctx context.Context, instance eni.InstanceID) ([]cluster.Home, error)
	// Instance is whose node it is now; empty when there is none of the name.
	Instance(ctx context.Context, node string) (eni.InstanceID, error)
	// Cordon keeps new pods away from a node, and notes when what it is for happened.
	Cordon(ctx context.Context, node string, since time.Time) error
	// Uncordon lets them back, unless the node has changed since it was read.
	Uncordon(ctx context.Context, h cluster.Home) error
	// Residents lists the pods of a node; one that is not fresh may be seconds old.
	Residents(ctx context.Context, node string, fresh bool) ([]cluster.Resident, error)
	// Evict begins a pod's end, unless a [*cluster.RefusedError] says that it may not be now.
	Evict(ctx context.Context, p cluster.Resident) error
	// Delete begins a pod's end, whatever budgets say.
	Delete(ctx context.Context, p cluster.Resident, grace time.Duration) error
}

// ErrUnfinished is a caller whose time was up before the drain's own. Calling again goes on from there.
var ErrUnfinished = errors.New("drain is not finished")

const (
	// pollInterval is how often the node is looked at while pods end. It asks the API server's memory, not its store.
	pollInterval = 2 * time.Second
	// retryInterval is how long a refused eviction waits at least; it is kubectl's.
	// https://github.com/kubernetes/kubectl/blob/v0.36.0/pkg/drain/drain.go
	retryInterval = 5 * time.Second
	// longestRetry bounds what an answer may ask for.
	longestRetry = time.Minute
	// longestPause is the most between two tries while the API is away.
	longestPause = 20 * time.Second
	// deniedTime is how long access that is denied is tried: a new access entry of a cluster takes a while to count.
	deniedTime = time.Minute
	// stuckTime is how long a pod is waited for after its grace: then its kubelet does not act, or a finalizer holds its record.
	stuckTime = time.Minute
	// forceGrace is the most that a pod may take to end when its time was up, and forceTime how long that is watched.
	forceGrace = 30 * time.Second
	forceTime  = forceGrace + 15*time.Second
	// returnTime is how long a worker that comes out of a warm pool waits for the API.
	returnTime = 2 * time.Minute
	// atOnce is how many evictions are asked for at the same time.
	atOnce = 10
)

// Flow drains nodes. Its methods may be called concurrently, also for the same instance.
type Flow struct {
	cfg Config
	api Kubernetes
	log *slog.Logger
}

// New makes a flow. The configuration must be one that [Parse] returned without an error. A nil logger logs nowhere.
func New(cfg Config, api Kubernetes, log *slog.Logger) *Flow {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Flow{cfg: cfg, api: api, log: log}
}

// Error is a node that is not empty. The instance ends whatever becomes of its pods, so it is for people to read.
type Error struct {
	Err  error  // why no more was done
	Left []Left // the pods that should have gone; none is known where the API did not answer
}

// Left is a pod that is there still.
type Left struct {
	Pod string
	Why string
}

func (e *Error) Error() string {
	const most = 20
	if len(e.Left) == 0 {
		return e.Err.Error()
	}
	var names []string
	for _, l := range e.Left[:min(most, len(e.Left))] {
		names = append(names, l.Pod+" ("+l.Why+")")
	}
	if n := len(e.Left) - most; n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	return e.Err.Error() + ": " + strings.Join(names, ", ")
}

func (e *Error) Unwrap() error { return e.Err }

// Drain empties the nodes of an instance that began to end at the given time; the zero time means now. An instance without a node is
// drained. An error is an [*Error]; it matches [ErrUnfinished] when ctx ended before the drain's own time was over.
func (f *Flow) Drain(ctx context.Context, instance eni.InstanceID, since time.Time) error {
	if since.IsZero() {
		since = time.Now()
	}
	r := f.run(instance, since)
	err := r.until(ctx, since, f.cfg.Timeout, r.empty)
	if err != nil && ctx.Err() == nil && f.cfg.OnTimeout == Force && !errors.Is(err, cluster.ErrDenied) {
		r.log.Warn("the drain takes too long: the pods that remain are deleted", "reason", err.Error())
		err = r.until(ctx, since, f.cfg.Timeout+forceTime, r.clear)
	}
	if err == nil {
		r.log.Info("node drained", "nodes", r.nodes, "evicted", r.evicted, "deleted", r.deleted, "after", time.Since(since).Round(time.Second).String())
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrUnfinished, err)
	}
	failure := &Error{Err: fmt.Errorf("drain the node of %s: %w", instance, err), Left: r.left()}
	r.log.Warn("node not drained", "nodes", r.nodes, "evicted", r.evicted, "deleted", r.deleted, "error", failure.Error())
	return failure
}

// Return lets pods back onto the nodes of an instance that was drained, lived on in a warm pool, and came back at the given time. What
// others cordoned, or we for something later, stays as it is. It tries for two minutes, and returns at once when there is nothing to do.
func (f *Flow) Return(ctx context.Context, instance eni.InstanceID, since time.Time) error {
	r := f.run(instance, since)
	if err := r.until(ctx, time.Now(), returnTime, r.uncordon); err != nil {
		return fmt.Errorf("uncordon the node of %s: %w", instance, err)
	}
	return nil
}

// left are the pods that the last look showed.
func (r *run) left() (all []Left) {
	for _, p := range r.last {
		why := "has not ended yet"
		if s := r.pods[p.UID]; s != nil && s.why != "" && p.Leaves.IsZero() {
			why = s.why
		}
		all = append(all, Left{Pod: p.String(), Why: why})
	}
	slices.SortFunc(all, func(a, b Left) int { return cmp.Compare(a.Pod, b.Pod) })
	return all
}
