// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/guard"
	"github.com/multus-vpc/multus-vpc/internal/netns"
	"github.com/multus-vpc/multus-vpc/internal/podlink"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// lookInterval is how often it is seen whether the watched namespaces are still there. A socket in one keeps it alive, and with it
// the addresses on its links, which no other pod can have meanwhile.
const lookInterval = time.Second

// watchers has the agent do for attachments with floating what a sidecar would do for its pod: one watcher for each of them.
type watchers struct {
	node    *pool.Node
	ports   guard.Ports
	log     *slog.Logger
	tell    func(pool.Notice)
	running map[attachment.Key]*watcher
	wg      sync.WaitGroup
}

// watcher is one attachment under watch.
type watcher struct {
	of   pool.Floating
	over chan struct{} // closed when the attachment is over
	stop context.CancelFunc
	done chan struct{}
}

// run watches until ctx ends, and waits for what it started.
func (w *watchers) run(ctx context.Context) {
	defer w.wg.Wait()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		w.follow(ctx)
		select {
		case <-ctx.Done():
			return
		case <-w.node.FloatingChanged():
		case <-tick.C:
		}
	}
}

// follow starts what is to be watched and is not, and stops what is not to be watched any more.
func (w *watchers) follow(ctx context.Context) {
	wanted := slices.DeleteFunc(w.node.Floating(), func(f pool.Floating) bool { return netns.Look(f.Netns) != netns.Alive })
	for key, one := range w.running {
		if !slices.ContainsFunc(wanted, func(f pool.Floating) bool { return reflect.DeepEqual(f, one.of) }) {
			one.end()
		}
		select {
		case <-one.done:
			delete(w.running, key)
		default:
		}
	}
	for _, f := range wanted {
		if w.running[f.Key] == nil {
			w.running[f.Key] = w.start(ctx, f)
		}
	}
}

// end stops a watcher whose attachment is over. It may be called again.
func (o *watcher) end() {
	select {
	case <-o.over:
	default:
		close(o.over)
		o.stop()
	}
}

// start watches one attachment.
func (w *watchers) start(ctx context.Context, f pool.Floating) *watcher {
	ctx, stop := context.WithCancel(ctx)
	one := &watcher{f, make(chan struct{}), stop, make(chan struct{})}
	log := w.log.With("containerID", f.ContainerID, "pod", f.Pod.Namespace+"/"+f.Pod.Name)
	_, known := w.node.HeldIn(f.Netns)
	cfg := podsync.DefaultConfig()
	cfg.Floating, cfg.Grace, cfg.Log = f.Ranges, 0, log // the pool has a cooldown of its own
	cfg.Known = func(a netip.Addr) bool { return slices.Contains(known, a) }
	cfg.Contested = func(by attachment.Interface, a netip.Addr) {
		w.tell(pool.Notice{Pod: f.Pod, About: pool.AddressContested, Text: fmt.Sprintf(
			"%s is on %s, and another ENI has it; it is left there until it appears here anew, or nobody has it", a, by.Name)})
	}
	pod := podsync.Narrow(podlink.Namespace(f.Netns.Path), f.IfName, f.Ranges)
	s := podsync.New(cfg, pod, agentAlone{guard.New(guard.Config{Floating: f.Ranges, OnConflict: attachment.Never, Log: log}, w.ports), tenant{f.Netns}})
	w.wg.Go(func() {
		defer close(one.done)
		defer stop()
		if err := s.Run(ctx); err != nil {
			log.Warn("interface not watched for floating addresses", "ifName", f.IfName, "netns", f.Netns.Path, "error", err)
		}
		select {
		case <-one.over:
			if err := s.Leave(context.WithoutCancel(ctx)); err != nil {
				log.Warn("floating addresses wait for their namespace to go", "error", err)
			}
		default: // the agent stops, and the pod goes on
		}
	})
	return one
}

// tenant is a pod that the agent asks in the stead of.
type tenant struct{ netns attachment.Netns }

func (t tenant) Netns() attachment.Netns { return t.netns }

func (t tenant) Look(ifName string) (guard.Seen, error) { return lookAt(t.netns.Path, ifName) }

// agentAlone is the [podsync.Registrar] of a pod without a container of ours. Each request to the guard is about no more addresses than
// a pod's own may be.
type agentAlone struct {
	guard *guard.Guard
	who   guard.Caller
}

func (r agentAlone) Register(ctx context.Context, i attachment.Interface, addrs []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]podsync.Result {
	results := map[netip.Addr]podsync.Result{}
	for part := range slices.Chunk(addrs, guard.MaxAddresses) {
		for a, got := range r.guard.Claim(ctx, r.who, i.Name, part, conflict) {
			results[a] = podsync.Result{New: got.New, Err: inPodsync(got.Err)}
		}
	}
	return results
}

func (r agentAlone) Release(ctx context.Context, i attachment.Interface, addrs []netip.Addr) error {
	for part := range slices.Chunk(addrs, guard.MaxAddresses) {
		if err := r.guard.Yield(ctx, r.who, i.Name, part); err != nil {
			return err
		}
	}
	return nil
}

func (r agentAlone) Standing(ctx context.Context, i attachment.Interface, addrs []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	standings := map[netip.Addr]attachment.Standing{}
	for part := range slices.Chunk(addrs, guard.MaxAddresses) {
		got, err := r.guard.Standing(ctx, r.who, i.Name, part)
		if err != nil {
			return nil, err
		}
		maps.Copy(standings, got)
	}
	return standings, nil
}

// inPodsync says an error of the guard in the words of the flow that asked.
func inPodsync(err error) error {
	switch {
	case errors.Is(err, guard.ErrRefused):
		return fmt.Errorf("%w: %w", podsync.ErrRefused, err)
	case errors.Is(err, guard.ErrContested):
		return fmt.Errorf("%w: %w", podsync.ErrContested, err)
	}
	return err
}
