// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/plugins/pkg/netlinksafe"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

// judge knows what the runtimes were told and what the kernel says, and nothing of what agents believe.
type judge struct {
	ground *ground

	mu       sync.Mutex
	vpc      netlinksafe.Handle         // rtnetlink in the VPC's namespace
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
	h, err := pod.Handle(g.lab.Netns["vpc"])
	if err != nil {
		return nil, err
	}
	return &judge{ground: g, vpc: h, carriers: map[netip.Addr]holder{}, last: map[netip.Addr]lastCarrier{}}, nil
}

func (j *judge) close() { j.vpc.Close() }

// given judges the answer to an ADD that came at a moment: nobody else has the address, nobody else had it within the
// cooldown, and the VPC routed it to the pod's worker by then. The fabric may be a little late on a busy machine, so what
// it must do by when is the cloud's to say, and the kernel has to follow.
func (j *judge) given(n *node, s *sandbox, at time.Time) {
	cloud := j.ground.lab.Cloud
	if route := cloud.View(at.Add(-cloud.Lags().Route)).Routes()[s.addr]; route != n.eni {
		j.ground.fail("ADD gave %s to %s on %s, and the VPC routes it to %q, not to %s", s.addr, s.id, n.name, route, n.eni)
	}
	if err := j.awaitRoute(s.addr, n.dev); err != nil {
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

// linkOf is the name of an ENI's link in the VPC's namespace. The fabric keeps the ID in the link's alias.
func (j *judge) linkOf(eniID string) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	links, err := j.vpc.LinkList()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Alias, eniID+" ") {
			return l.Attrs().Name, nil
		}
	}
	return "", fmt.Errorf("the fabric has no link for %s", eniID)
}

// awaitRoute waits until the kernel of the VPC routes an address to a link.
func (j *judge) awaitRoute(addr netip.Addr, dev string) error {
	ctx, cancel := context.WithTimeout(j.ground.ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		route, err := j.routeOf(addr)
		if err != nil || route == dev {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the fabric routes it to %q, not to %s", route, dev)
		}
	}
}

// routeOf is the link to which the kernel of the VPC routes an address; empty when to none.
func (j *judge) routeOf(addr netip.Addr) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	routes, err := j.vpc.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Dst: ipNet(netip.PrefixFrom(addr, addr.BitLen())), Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return "", fmt.Errorf("read the VPC's route to %s: %w", addr, err)
	}
	if len(routes) == 0 {
		return "", nil
	}
	link, err := j.vpc.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", err
	}
	return link.Attrs().Name, nil
}

// look reads every pod's namespace: no address may be in two.
func (j *judge) look() map[netip.Addr]string {
	carried := map[netip.Addr]string{}
	for _, n := range j.ground.nodes {
		files, err := os.ReadDir(n.place.pods)
		if err != nil {
			j.ground.fail("%v", err)
		}
		for _, f := range files {
			path := filepath.Join(n.place.pods, f.Name())
			addrs, err := addressesIn(path)
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
