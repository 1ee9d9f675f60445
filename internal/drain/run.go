// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// run is one call of [Flow.Drain] or [Flow.Return].
type run struct {
	*Flow
	instance eni.InstanceID
	since    time.Time
	log      *slog.Logger

	nodes            []string // those of the instance
	found            bool     // nodes is read, and they are cordoned
	evicted, deleted int      // pods

	fresh bool                 // the next look has to be what is true now
	last  []cluster.Resident   // what was there at the last look and should go
	pods  map[string]*progress // by UID
}

func (f *Flow) run(instance eni.InstanceID, since time.Time) *run {
	return &run{Flow: f, instance: instance, since: since, log: f.log.With("instance", instance), pods: map[string]*progress{}}
}

// progress is what is known of one pod.
type progress struct {
	next    time.Time // when to ask again
	why     string    // it could not be evicted, the last time
	evicted bool
	deleted bool
	stuck   bool
}

// later is what a step that has to come again waits for.
type later struct{ error }

func (l later) Unwrap() error { return l.error }

// until takes a step again and again until it succeeds, the limit since a time is over, access is denied for too long, or ctx ends. The
// error is what was in the way at last.
func (r *run) until(ctx context.Context, since time.Time, limit time.Duration, step func(context.Context) error) error {
	ctx, cancel := context.WithDeadlineCause(ctx, since.Add(limit), fmt.Errorf("not done in %s", limit))
	defer cancel()
	var last error
	var denied time.Time
	for pause := pollInterval; ctx.Err() == nil; {
		err := step(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil { // which is all that it says
			break
		}
		last = err
		wait := pause
		if _, waits := errors.AsType[later](err); waits {
			wait, pause, denied = pollInterval, pollInterval, time.Time{}
		} else {
			if denied.IsZero() && errors.Is(err, cluster.ErrDenied) {
				denied = time.Now()
			}
			if errors.Is(err, cluster.ErrDenied) && time.Since(denied) >= deniedTime {
				return err
			}
			r.log.Warn("the Kubernetes API does not do as it should; trying again", "in", wait.String(), "error", err.Error())
			pause = min(2*pause, longestPause)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	if last != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), last)
	}
	return context.Cause(ctx)
}

// empty looks at the nodes and evicts what is due. It returns nil when they are empty.
func (r *run) empty(ctx context.Context) error {
	if err := r.find(ctx); err != nil {
		return err
	}
	pods, err := r.look(ctx)
	if err != nil || len(pods) == 0 {
		return err
	}
	var due []cluster.Resident
	for _, p := range pods {
		if p.Leaves.IsZero() && !time.Now().Before(r.of(p).next) {
			due = append(due, p)
		}
	}
	if err = r.check(ctx, due); err != nil {
		return err
	}
	errs := all(ctx, due, func(ctx context.Context, p cluster.Resident) error { return r.api.Evict(ctx, p) })
	for i, p := range due {
		r.note(ctx, p, errs[i])
	}
	return later{fmt.Errorf("%d pods are on the node", len(pods))}
}

// note keeps what came of an eviction.
func (r *run) note(ctx context.Context, p cluster.Resident, err error) {
	s := r.of(p)
	s.next = time.Now().Add(retryInterval)
	refused, isRefused := errors.AsType[*cluster.RefusedError](err)
	if isRefused {
		s.next = time.Now().Add(min(max(refused.After, retryInterval), longestRetry))
	}
	switch {
	case err == nil:
		s.why = ""
		if !s.evicted {
			s.evicted = true
			r.evicted++
			r.log.Info("pod evicted", "pod", p.String(), "grace", p.Grace.String())
		}
	case errors.Is(err, cluster.ErrGone):
		s.why = ""
	case ctx.Err() != nil: // the time is up, which says nothing of the pod
	default:
		why := err.Error()
		if isRefused {
			why = refused.Why
		}
		if why != s.why {
			r.log.Info("pod cannot be evicted yet", "pod", p.String(), "reason", why)
		}
		s.why = why
	}
}

// find looks for the nodes, once, and cordons them.
func (r *run) find(ctx context.Context) error {
	if r.found {
		return nil
	}
	homes, err := r.api.Homes(ctx, r.instance)
	if err != nil {
		return err
	}
	var nodes []string
	for _, h := range homes {
		// A cordon of ours for something earlier is renewed, so that the return from there does not undo it.
		if !h.Unschedulable || !h.Cordoned.IsZero() && h.Cordoned.Before(r.since) {
			err = r.api.Cordon(ctx, h.Name, r.since)
			if errors.Is(err, cluster.ErrGone) {
				continue
			}
			if err != nil {
				return err
			}
			r.log.Info("node cordoned", "node", h.Name)
		}
		nodes = append(nodes, h.Name)
	}
	r.nodes, r.found = nodes, true
	return nil
}

// check drops a node that is another instance's by now, before pods that were seen on it are made to leave: nodes are named after
// addresses, and an address goes to the next instance.
func (r *run) check(ctx context.Context, due []cluster.Resident) error {
	if len(due) == 0 {
		return nil
	}
	for i, node := range r.nodes {
		is, err := r.api.Instance(ctx, node)
		if err != nil {
			return err
		}
		if is != r.instance {
			r.nodes = slices.Delete(slices.Clone(r.nodes), i, i+1)
			r.log.Info("node is not the instance's any more", "node", node)
			return later{fmt.Errorf("node %s is not the instance's any more", node)}
		}
	}
	return nil
}

// uncordon undoes what find did for an earlier event.
func (r *run) uncordon(ctx context.Context) error {
	homes, err := r.api.Homes(ctx, r.instance)
	if err != nil {
		return err
	}
	for _, h := range homes {
		if h.Cordoned.IsZero() || !h.Cordoned.Before(r.since) {
			continue
		}
		if err = r.api.Uncordon(ctx, h); errors.Is(err, cluster.ErrGone) {
			return later{err} // it has changed
		}
		if err != nil {
			return err
		}
		r.log.Info("node uncordoned", "node", h.Name)
	}
	return nil
}

// look lists the pods that should go and can be waited for. That there are none is said only of what is true now.
func (r *run) look(ctx context.Context) ([]cluster.Resident, error) {
	for {
		var waitFor, last []cluster.Resident
		for _, node := range r.nodes {
			pods, err := r.api.Residents(ctx, node, r.fresh)
			if err != nil {
				return nil, err
			}
			for _, p := range pods {
				if p.DaemonSet || p.Mirror || p.Ended {
					continue
				}
				last = append(last, p)
				if !r.stuck(p) {
					waitFor = append(waitFor, p)
				}
			}
		}
		r.last = last
		if len(waitFor) > 0 {
			r.fresh = false
			return waitFor, nil
		}
		if r.fresh || len(r.nodes) == 0 {
			return nil, nil
		}
		r.fresh = true
	}
}

// stuck reports whether a pod should have ended for so long that nothing but the end of its instance will end it.
func (r *run) stuck(p cluster.Resident) bool {
	if p.Leaves.IsZero() || time.Since(p.Leaves) < stuckTime {
		return false
	}
	if s := r.of(p); !s.stuck {
		s.stuck = true
		r.log.Warn("pod does not end and is not waited for", "pod", p.String(), "since", p.Leaves)
	}
	return true
}

// clear deletes what is there, whatever budgets say. It returns nil when the nodes are empty.
func (r *run) clear(ctx context.Context) error {
	if err := r.find(ctx); err != nil {
		return err
	}
	pods, err := r.look(ctx)
	if err != nil || len(pods) == 0 {
		return err
	}
	var due []cluster.Resident
	for _, p := range pods {
		if !r.of(p).deleted {
			due = append(due, p)
		}
	}
	if err = r.check(ctx, due); err != nil {
		return err
	}
	errs := all(ctx, due, func(ctx context.Context, p cluster.Resident) error {
		return r.api.Delete(ctx, p, min(p.Grace, forceGrace))
	})
	var failed error
	for i, p := range due {
		s := r.of(p)
		switch err := errs[i]; {
		case err == nil:
			s.deleted, s.why = true, ""
			r.deleted++
			r.log.Info("pod deleted", "pod", p.String())
		case !errors.Is(err, cluster.ErrGone):
			s.why, failed = err.Error(), err
		}
	}
	if failed != nil {
		return failed
	}
	return later{fmt.Errorf("%d pods are on the node", len(pods))}
}

func (r *run) of(p cluster.Resident) *progress {
	s := r.pods[p.UID]
	if s == nil {
		s = &progress{}
		r.pods[p.UID] = s
	}
	return s
}

// all does something with each pod, several at once, and returns the errors in the pods' order.
func all(ctx context.Context, pods []cluster.Resident, do func(context.Context, cluster.Resident) error) []error {
	errs := make([]error, len(pods))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, p := range pods {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			errs[i] = context.Cause(ctx)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(ctx, p)
		})
	}
	return errs
}
