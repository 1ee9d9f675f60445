// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/multus-vpc/multus-vpc/internal/lab/fabric"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// follower keeps the fabric one route lag behind the cloud.
type follower struct {
	lab    *scenario.Lab
	fabric *fabric.Fabric
	open   func(ctx context.Context, worker string, at netip.AddrPort) (net.Listener, error)
	logger *log.Logger
	names  *names
	inside map[string]*services // by instance ID

	mu    sync.Mutex
	ready map[string]string // netns path of each instance whose namespace and services are there, by ID
	news  chan struct{}     // closed when ready changes
}

// services listen inside a worker's namespace.
type services struct {
	stop  context.CancelFunc
	group *errgroup.Group
}

func newFollower(l *scenario.Lab, f *fabric.Fabric) *follower {
	return &follower{
		lab: l, fabric: f, names: newNames(l), inside: map[string]*services{},
		ready: map[string]string{}, news: make(chan struct{}),
	}
}

// pause is until when the fabric is up to date.
type pause struct {
	changed <-chan struct{} // the cloud changes
	next    time.Time       // an earlier change reaches the data path; zero when there is none
}

// apply brings the fabric up to date, and the services inside the workers.
func (f *follower) apply(ctx, live context.Context) (pause, error) {
	now := time.Now()
	wait := pause{changed: f.lab.Cloud.Changed()} // taken before looking, so that nothing falls in between
	view := f.lab.Cloud.View(now.Add(-f.lab.Cloud.Lags().Route))
	if next, ok := f.lab.Cloud.NextChange(now); ok {
		wait.next = next
	}
	if err := f.fabric.Apply(ctx, topology(view, f.names, f.lab)); err != nil {
		return pause{}, err
	}
	return wait, f.serveInside(ctx, live, view)
}

// run applies every change when its time comes, until ctx ends.
func (f *follower) run(ctx context.Context, wait pause) error {
	for {
		due, stop := wait.due()
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-wait.changed:
		case <-due:
		}
		stop()
		var err error
		if wait, err = f.apply(ctx, ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("bring the fabric up to date: %w", err)
		}
	}
}

// due fires when the next change is due; without one it never does.
func (p pause) due() (due <-chan time.Time, stop func()) {
	if p.next.IsZero() {
		return nil, func() {}
	}
	t := time.NewTimer(time.Until(p.next))
	return t.C, func() { t.Stop() }
}

// serveInside opens the services of new instances and closes those of instances that are forgotten.
func (f *follower) serveInside(ctx, live context.Context, view vpc.View) error {
	listed := map[string]bool{}
	for _, i := range view.Instances() {
		listed[i.ID] = true
		if f.inside[i.ID] != nil {
			continue
		}
		if err := f.serveWorker(ctx, live, i.ID); err != nil {
			return err
		}
	}
	for id, s := range f.inside {
		if !listed[id] {
			s.close()
			delete(f.inside, id)
		}
	}
	f.announce()
	return nil
}

// announce tells who waits for an instance which ones are there.
func (f *follower) announce() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.ready)
	for id := range f.inside {
		f.ready[id] = f.fabric.Netns(f.names.of(id))
	}
	close(f.news)
	f.news = make(chan struct{})
}

// await waits until an instance is ready, and returns the path of its namespace.
func (f *follower) await(ctx context.Context, ended <-chan struct{}, id string) (string, error) {
	for {
		f.mu.Lock()
		path, ok := f.ready[id]
		news := f.news
		f.mu.Unlock()
		if ok {
			return path, nil
		}
		select {
		case <-news:
		case <-ended:
			return "", fmt.Errorf("wait for instance %s: the lab has ended", id)
		case <-ctx.Done():
			return "", fmt.Errorf("wait for instance %s: %w", id, context.Cause(ctx))
		}
	}
}

func (f *follower) serveWorker(ctx, live context.Context, id string) error {
	name := f.names.of(id)
	serving, stop := context.WithCancel(live)
	s := &services{stop: stop, group: new(errgroup.Group)}
	f.inside[id] = s
	for at, handler := range map[netip.AddrPort]http.Handler{IMDSInWorker: f.lab.MetadataOf(id), EC2InWorker: f.lab.Front} {
		l, err := f.open(ctx, name, at)
		if err != nil {
			return err
		}
		serve(serving, s.group, l, handler, f.logger)
	}
	return nil
}

func (s *services) close() {
	s.stop()
	_ = s.group.Wait() // a server that failed by itself takes nothing else along
}

// close ends all services; run must have returned.
func (f *follower) close() {
	for id, s := range f.inside {
		s.close()
		delete(f.inside, id)
	}
}
