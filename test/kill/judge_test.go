// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

// judge knows what the runtimes were told and what the kernel says, and nothing of what agents believe.
type judge struct {
	ground *ground

	routes *stage.Routes

	mu       sync.Mutex
	carriers map[netip.Addr]holder      // who has an address by the answer to an ADD
	last     map[netip.Addr]lastCarrier // who gave it back last
}

// holder is a pod that was given an address.
type holder struct{ node, pod, id string }

// lastCarrier gave an address back at a moment.
type lastCarrier struct {
	holder
	at time.Time
}

func newJudge(g *ground) (*judge, error) {
	routes, err := stage.OpenRoutes(g.lab.Netns["vpc"])
	if err != nil {
		return nil, err
	}
	return &judge{ground: g, routes: routes, carriers: map[netip.Addr]holder{}, last: map[netip.Addr]lastCarrier{}}, nil
}

func (j *judge) close() { j.routes.Close() }

// given judges the answer to an ADD that came at a moment: nobody else has the address, nobody else had it within the
// cooldown, and the VPC routed it to the pod's worker by then. The fabric may be a little late on a busy machine, so what
// it must do by when is the cloud's to say, and the kernel has to follow.
func (j *judge) given(n *node, s *sandbox, at time.Time) {
	cloud := j.ground.lab.Cloud
	if route := cloud.View(at.Add(-cloud.Lags().Route)).Routes()[s.addr]; route != n.eni {
		j.ground.fail("ADD gave %s to %s on %s, and the VPC routes it to %q, not to %s", s.addr, s.id, n.name, route, n.eni)
	}
	ctx, cancel := context.WithTimeout(j.ground.ctx, patience)
	defer cancel()
	if err := j.routes.Await(ctx, s.addr, n.dev); err != nil {
		j.ground.fail("ADD gave %s to %s on %s: %v", s.addr, s.id, n.name, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	h := holder{n.name, s.pod, s.id}
	if other, taken := j.carriers[s.addr]; taken {
		j.ground.fail("ADD gave %s to %+v, and %+v has it", s.addr, h, other)
	}
	if last, ok := j.last[s.addr]; ok && last.pod != h.pod && at.Sub(last.at) < cooldown {
		j.ground.fail("ADD gave %s to %+v %v after %+v began to give it back", s.addr, h, at.Sub(last.at), last.holder)
	}
	j.carriers[s.addr] = h
}

// returned notes that the runtime begins to take the pod's address back.
func (j *judge) returned(s *sandbox) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if h, ok := j.carriers[s.addr]; ok {
		j.last[s.addr] = lastCarrier{h, time.Now()}
		delete(j.carriers, s.addr)
	}
}

// look reads every pod's namespace: no address may be in two.
func (j *judge) look() map[netip.Addr]string {
	carried := map[netip.Addr]string{}
	for _, n := range j.ground.nodes {
		files, err := os.ReadDir(n.place.Pods)
		if err != nil {
			j.ground.fail("%v", err)
		}
		for _, f := range files {
			path := filepath.Join(n.place.Pods, f.Name())
			addrs, err := stage.AddressesIn(path)
			if err != nil {
				continue // removed meanwhile
			}
			for _, a := range addrs {
				if other, taken := carried[a]; taken {
					j.ground.fail("%s and %s both carry %s", other, path, a)
				}
				carried[a] = path
			}
		}
	}
	return carried
}

// addresses lists a map's keys in order.
func addresses[V any](m map[netip.Addr]V) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}
