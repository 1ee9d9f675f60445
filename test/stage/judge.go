// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package stage

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Judge knows what the runtimes were told and what the kernel says, and nothing of what agents believe. Make it with
// [NewJudge]. Its methods are safe for concurrent use.
type Judge struct {
	cloud    *vpc.Cloud
	routes   *Routes
	cooldown time.Duration
	fail     func(format string, args ...any)

	mu       sync.Mutex
	carriers map[netip.Addr]Carrier     // who has an address by the answer to an ADD
	last     map[netip.Addr]lastCarrier // who gave it back last
}

// Carrier is a pod that was given an address.
type Carrier struct {
	Worker, Pod, ID string
	ENI             string
}

// lastCarrier gave an address back at a moment.
type lastCarrier struct {
	Carrier
	at time.Time
}

// patience is for what must happen on a machine that is busy with other tests.
const patience = 90 * time.Second

// NewJudge makes a judge for agents with that cooldown; fail is told of what must not be.
func NewJudge(cloud *vpc.Cloud, routes *Routes, cooldown time.Duration, fail func(format string, args ...any)) *Judge {
	return &Judge{
		cloud: cloud, routes: routes, cooldown: cooldown, fail: fail,
		carriers: map[netip.Addr]Carrier{}, last: map[netip.Addr]lastCarrier{},
	}
}

// Given judges the answer to an ADD that came at a moment: nobody else has the address, nobody else had it within the
// cooldown, and the VPC routed it to the pod's ENI by then. The fabric may be a little late on a busy machine, so what it
// must do by when is the cloud's to say, and the kernel has to follow: dev is the ENI's link there.
func (j *Judge) Given(ctx context.Context, c Carrier, dev string, addr netip.Addr, at time.Time) {
	if route := j.cloud.View(at.Add(-j.cloud.Lags().Route)).Routes()[addr]; route != c.ENI {
		j.fail("ADD gave %s to %s on %s, and the VPC routes it to %q, not to %s", addr, c.ID, c.Worker, route, c.ENI)
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := j.routes.Await(waiting, addr, dev); err != nil && ctx.Err() == nil {
		j.fail("ADD gave %s to %s on %s: %v", addr, c.ID, c.Worker, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if other, taken := j.carriers[addr]; taken {
		j.fail("ADD gave %s to %+v, and %+v has it", addr, c, other)
	}
	if last, ok := j.last[addr]; ok && last.Pod != c.Pod && at.Sub(last.at) < j.cooldown {
		j.fail("ADD gave %s to %+v %v after %+v began to give it back", addr, c, at.Sub(last.at), last.Carrier)
	}
	j.carriers[addr] = c
}

// Returned notes that the runtime begins to take an address back.
func (j *Judge) Returned(addr netip.Addr) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if c, ok := j.carriers[addr]; ok {
		j.last[addr] = lastCarrier{c, time.Now()}
		delete(j.carriers, addr)
	}
}

// Lost notes that a worker ends with all its pods and ENIs: its addresses are anybody's at once.
func (j *Judge) Lost(worker string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	maps.DeleteFunc(j.carriers, func(_ netip.Addr, c Carrier) bool { return c.Worker == worker })
	maps.DeleteFunc(j.last, func(_ netip.Addr, l lastCarrier) bool { return l.Worker == worker })
}

// Carriers is who has which address.
func (j *Judge) Carriers() map[netip.Addr]Carrier {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.carriers)
}

// Look reads the namespaces of all pods in the places: no address may be in two. It returns in which each is.
func (j *Judge) Look(places ...*Place) map[netip.Addr]string {
	carried := map[netip.Addr]string{}
	for _, p := range places {
		files, err := os.ReadDir(p.Pods)
		if err != nil {
			j.fail("%v", err)
		}
		for _, f := range files {
			path := filepath.Join(p.Pods, f.Name())
			addrs, err := AddressesIn(path)
			if err != nil {
				continue // removed meanwhile
			}
			for _, a := range addrs {
				if other, taken := carried[a]; taken {
					j.fail("%s and %s both carry %s", other, path, a)
				}
				carried[a] = path
			}
		}
	}
	return carried
}
