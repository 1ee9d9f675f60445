// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
)

// programs are the folders that subjects come from.
type programs struct {
	ours, peers string
	stack       string // empty: without the subjects that need a control plane
}

// builtin is a subject of the document.
type builtin struct {
	name    string
	ipvlan  bool // needs the kernel's ipvlan
	ours    bool // must pass every row
	agent   bool // talks to the agent
	control bool // needs a Kubernetes control plane
	settled bool // its outcomes depend on nothing but the programs, so that a test can demand the same ones
	set     func(*subject, *node)
}

// builtins are the columns of the document, in its order.
func builtins() []builtin {
	return []builtin{
		{name: "vpcipam", ours: true, agent: true, settled: true, set: (*subject).vpcipam},
		{name: "host-local", settled: true, set: (*subject).hostLocal},
		{name: "static", settled: true, set: (*subject).static},
		{name: "whereabouts", control: true, set: (*subject).whereabouts},
		{name: "vpcipvlan + vpcipam", ipvlan: true, ours: true, agent: true, settled: true, set: (*subject).vpcipvlan},
		{name: "vpcipvlan + host-local", ipvlan: true, ours: true, agent: true, settled: true, set: (*subject).vpcipvlanHostLocal},
		{name: "vpcipvlan + static", ipvlan: true, ours: true, agent: true, settled: true, set: (*subject).vpcipvlanStatic},
		{name: "ipvlan + vpcipam", ipvlan: true, agent: true, settled: true, set: (*subject).ipvlanVPCIPAM},
		{name: "ipvlan + host-local", ipvlan: true, settled: true, set: (*subject).ipvlanHostLocal},
	}
}

// judge raises the subject's ground, runs the rows, and removes the ground.
func (b builtin) judge(ctx context.Context, serial int, from programs, filter func(row) bool, watch io.Writer) (out outcomes, err error) {
	n, err := raise(ctx, serial, from.ours, watch)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nthe agent said:\n%s", err, n.worker.Log())
		}
		err = errors.Join(err, n.close())
	}()
	s := &subject{Name: b.name, Path: []string{from.ours, from.peers}, Versions: versions, Slow: b.ipvlan || b.control}
	if b.agent {
		s.Env = []string{"MULTUS_VPC_AGENT_SOCKET=" + n.worker.Socket()}
		s.Outside = n.agent()
		if err = n.startAgent(ctx); err != nil {
			return nil, err
		}
	}
	if b.control {
		var c *control
		if c, err = startControl(ctx, n, from.stack); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		s.Outside, s.Path = c.outside(), []string{from.stack}
	}
	b.set(s, n)
	return judge(ctx, s, &n.ground, filter, watch)
}

// under is what upstream's ipvlan hands to its IPAM plugin, on one of the worker's ENIs by turns.
func under(ipam func(n int) object) func(n int) object {
	return func(n int) object {
		return object{"type": "ipvlan", "master": fmt.Sprint("eth", 1+n%podENIs), "ipam": ipam(n)}
	}
}

// over is vpcipvlan's configuration, on one of the worker's ENIs by turns.
func over(ipam func(n int) object) func(n int) object {
	return func(n int) object {
		return object{"type": "vpcipvlan", "eni": object{"deviceIndex": 1 + n%podENIs}, "ipam": ipam(n)}
	}
}

const (
	parallelIPAM      = 110 // pods that kubelet runs on a node by default
	parallelInterface = 16
)

func (s *subject) vpcipam(n *node) {
	s.Program, s.Chooses, s.Parallel = "vpcipam", true, parallelIPAM
	s.Config = under(fromVPC)
	s.Minimal = object{"type": "ipvlan", "ipam": object{"type": "vpcipam"}}
	s.Broken = object{"master": "none0"}
	s.vpcSmall(n, object{"master": "eth1"})
}

// fromVPC asks for addresses of the large reservation.
func fromVPC(int) object {
	return object{"type": "vpcipam", "reservationTags": object{sizeTag: "large"}}
}

// vpcSmall leaves room for three, on one ENI, and requests addresses that agents leave alone.
func (s *subject) vpcSmall(n *node, on object) {
	s.Capacity = 3
	s.Small = func(i int) object {
		first := 4 + s.Capacity*(i%20)
		return merge(on, object{"ipam": object{
			"reservationTags": object{sizeTag: "small"}, "ranges": []any{fmt.Sprintf("%s-%s", n.host(26, first), n.host(26, first+s.Capacity-1))},
		}})
	}
	s.Hasty = object{"ipam": object{"timeout": "2s"}}
	s.Requests = map[way]string{
		byCapability: n.host(28, 210).String(), byArgs: n.host(28, 211).String(), byCNIArgs: n.host(28, 212).String(),
	}
}

// hostLocalIPAM gives addresses of the reservation that agents leave alone.
func (s *subject) hostLocalIPAM(n *node) func(int) object {
	dir := filepath.Join(n.dir, "host-local")
	ranges := func(from, to int) []any {
		return []any{[]any{object{
			"subnet": n.pods.String(), "rangeStart": n.host(28, from).String(), "rangeEnd": n.host(28, to).String(),
		}}}
	}
	s.Chooses = true
	s.Small, s.Capacity = func(int) object { return object{"ipam": object{"ranges": ranges(10, 12)}} }, 3
	s.Requests = map[way]string{
		byCapability: n.host(28, 90).String(), byArgs: n.host(28, 91).String(), byCNIArgs: n.host(28, 92).String(),
	}
	s.Outside.Held = most(s.Outside.Held, func(context.Context) (int, error) { return files(dir) })
	return func(int) object { return object{"type": "host-local", "dataDir": dir, "ranges": ranges(10, 200)} }
}

// files counts host-local's reservations: a file for each, named by the address.
func files(dir string) (int, error) {
	list, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	n := 0
	for _, name := range list {
		if _, noAddr := netip.ParseAddr(filepath.Base(name)); noAddr == nil {
			n++
		}
	}
	return n, err
}

// most is the larger of two accounts, of which the first may be missing: the agent registers what host-local reserves.
func most(a, b func(context.Context) (int, error)) func(context.Context) (int, error) {
	if a == nil {
		return b
	}
	return func(ctx context.Context) (int, error) {
		x, err := a(ctx)
		y, errY := b(ctx)
		return max(x, y), errors.Join(err, errY)
	}
}

func (s *subject) hostLocal(n *node) {
	s.Program, s.Parallel = "host-local", parallelIPAM
	s.Config = under(s.hostLocalIPAM(n))
	s.Minimal = object{"type": "ipvlan", "ipam": object{"type": "host-local", "dataDir": filepath.Join(n.dir, "host-local")}}
}

// staticIPAM gives each attachment an address of its own, by its number.
func (s *subject) staticIPAM(n *node) func(int) object {
	s.Requests = map[way]string{
		byCapability: n.host(28, 90).String() + "/20", byArgs: n.host(28, 91).String() + "/20", byCNIArgs: n.host(28, 92).String() + "/20",
	}
	return func(i int) object {
		return object{"type": "static", "addresses": []any{object{
			"address": fmt.Sprintf("%s/%d", n.host(28, 10+i%80), n.pods.Bits()), "gateway": n.pods.Addr().Next().String(),
		}}}
	}
}

func (s *subject) static(n *node) {
	s.Program = "static"
	s.Config = under(s.staticIPAM(n))
	s.Minimal = object{"type": "ipvlan", "ipam": object{"type": "static"}}
}

// isVPCIpvlan is what vpcipvlan has with every IPAM plugin.
func (s *subject) isVPCIpvlan(ipam string) {
	s.Program, s.Interface, s.Parallel = "vpcipvlan", true, parallelInterface
	s.Broken = object{"eni": object{"deviceIndex": 9}}
	s.Minimal = object{"type": "vpcipvlan", "ipam": object{"type": ipam}}
}

// starts is for those whose IPAM plugin is a process of its own.
func (s *subject) starts(ipam string, n *node) {
	s.Executes = ipam
	first := n.host(28, 0).As4()
	s.Spare = fmt.Sprintf("%d.%d.%d.%%d/%d", first[0], first[1], first[2], n.pods.Bits())
}

func (s *subject) vpcipvlan(n *node) {
	s.Config, s.Chooses = over(fromVPC), true
	s.vpcSmall(n, object{"eni": object{"deviceIndex": 1}})
	s.isVPCIpvlan("vpcipam")
}

func (s *subject) vpcipvlanHostLocal(n *node) {
	s.Config = over(s.hostLocalIPAM(n))
	s.isVPCIpvlan("host-local")
	s.Minimal["ipam"] = s.Config(0)["ipam"] // host-local's DEL needs its ranges
	s.starts("host-local", n)
}

func (s *subject) vpcipvlanStatic(n *node) {
	s.Config = over(s.staticIPAM(n))
	s.isVPCIpvlan("static")
	s.starts("static", n)
}

// isIPVlan makes upstream's ipvlan the program.
func (s *subject) isIPVlan(ipam string, n *node) {
	s.Program, s.Interface, s.Parallel = "ipvlan", true, parallelInterface
	s.Broken = object{"master": "none0"}
	s.starts(ipam, n)
}

func (s *subject) ipvlanVPCIPAM(n *node) {
	s.vpcipam(n)
	s.isIPVlan("vpcipam", n)
}

func (s *subject) ipvlanHostLocal(n *node) {
	s.hostLocal(n)
	s.isIPVlan("host-local", n)
}

// folders finds the programs as the Makefile says where they are.
func folders(getenv func(string) string) (p programs, err error) {
	for _, f := range []struct {
		variable string
		to       *string
	}{{"MULTUS_VPC_BIN", &p.ours}, {"MULTUS_VPC_PEERS", &p.peers}} {
		*f.to = getenv(f.variable)
		if info, statErr := os.Stat(*f.to); !filepath.IsAbs(*f.to) || statErr != nil || !info.IsDir() {
			err = errors.Join(err, fmt.Errorf("%s must name a folder absolutely (make conformance sets it): %q", f.variable, *f.to))
		}
	}
	p.stack = getenv("MULTUS_VPC_STACK")
	return p, err
}
