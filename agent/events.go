// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"github.com/multus-vpc/multus-vpc/internal/kube"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

const (
	// waitingNotices is how many notices wait for the API server; later ones are dropped, for the log has them all.
	waitingNotices = 64
	// eventTimeout bounds one event.
	eventTimeout = 10 * time.Second
	// eventsEvery and eventBurst are what an agent asks of the API server at most, in a day on which much goes wrong: as client-go's
	// recorder allows one object. https://github.com/kubernetes/client-go/blob/master/tools/record/events_cache.go
	eventsEvery = 12 * time.Second
	eventBurst  = 25
	// sameAfter is how long the same notice about the same pod is not repeated: a floating address may go to and fro.
	sameAfter = 10 * time.Minute
)

// herald makes Kubernetes Events of what the pool tells. It never holds up who tells, and gives up what the API server does not take.
type herald struct {
	record func(context.Context, kube.Event) error // nil without a Kubernetes API: then nothing is told
	node   string
	log    *slog.Logger
	queue  chan kube.Event
}

func newHerald(client *kube.Client, node string, log *slog.Logger) *herald {
	h := &herald{node: node, log: log, queue: make(chan kube.Event, waitingNotices)}
	if client != nil {
		h.record = client.Record
	}
	return h
}

// tell queues an event, or drops it. It returns at once.
func (h *herald) tell(n pool.Notice) {
	if h.record == nil {
		return
	}
	e := kube.Event{Pod: n.Pod, Warning: n.About.Warns(), Reason: string(n.About), Message: n.Text, Time: time.Now(), Node: h.node}
	select {
	case h.queue <- e:
	default:
		h.log.Debug("event dropped: too many wait", "reason", e.Reason, "message", e.Message)
	}
}

// run makes events until ctx ends.
func (h *herald) run(ctx context.Context) {
	limit := rate.NewLimiter(rate.Every(eventsEvery), eventBurst)
	type subject struct{ namespace, name, uid, message string }
	said := map[subject]time.Time{}
	failing := ""
	for {
		var e kube.Event
		select {
		case e = <-h.queue:
		case <-ctx.Done():
			return
		}
		for s, at := range said {
			if time.Since(at) > sameAfter {
				delete(said, s)
			}
		}
		about := subject{e.Pod.Namespace, e.Pod.Name, e.Pod.UID, e.Message}
		if _, again := said[about]; again {
			continue
		}
		said[about] = e.Time
		if limit.Wait(ctx) != nil {
			return
		}
		call, cancel := context.WithTimeout(ctx, eventTimeout)
		err := h.record(call, e)
		cancel()
		switch {
		case err == nil:
			failing = ""
		case ctx.Err() == nil && err.Error() != failing: // a cluster may do without the permission
			failing = err.Error()
			h.log.Warn("event not made; the log says what it would have said", "reason", e.Reason, "error", err)
		}
	}
}
