// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/ledger"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
	"github.com/multus-vpc/multus-vpc/internal/tombstone"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

// audit waits until agents, EC2 and the network namespaces agree, and then has every pod reach the others. In the end
// there are no pods, and nothing that they had is left.
func (g *ground) audit(end bool) {
	ctx, cancel := context.WithTimeoutCause(g.ctx, patience, fmt.Errorf("not settled within %v", patience))
	defer cancel()
	var ops operations
	for _, n := range g.nodes {
		leave := n.liveCount() / 2
		if end {
			leave = 0
		}
		n.begin(&ops, 0, n.liveCount()-leave)
	}
	ops.wg.Wait()
	if end { // a pod that was made again by the last of its endings
		for _, n := range g.nodes {
			for s := n.takeLive(); s != nil; s = n.takeLive() {
				n.remove(ctx, s, orderly)
			}
		}
	}
	began := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var differences []string
	for {
		now := g.differences(ctx, end)
		if len(now) == 0 {
			break
		}
		differences = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			g.fail("%v:\n\t%s", context.Cause(ctx), strings.Join(differences, "\n\t"))
			return
		}
	}
	g.t.Logf("settled after %v, the last was %.300q", time.Since(began).Round(time.Millisecond), differences)
	g.reachEachOther(ctx)
}

// differences says where ledger (as the agents report it), EC2 and the namespaces do not agree, and what is not
// settled.
func (g *ground) differences(ctx context.Context, end bool) (all []string) {
	carried := g.judge.Look(g.places()...)
	for _, n := range g.nodes {
		for _, d := range n.differences(ctx, carried, end) {
			all = append(all, n.name+": "+d)
		}
	}
	if len(carried) > 0 {
		all = append(all, fmt.Sprintf("in namespaces, and held by no agent: %v", carried))
	}
	return all
}

// differences compares one worker. What it has accounted for is removed from carried.
func (n *node) differences(ctx context.Context, carried map[netip.Addr]string, end bool) (all []string) {
	differs := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	status, err := n.agent.Status(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range status.Problems {
		differs("problem: %s", p)
	}
	held := map[netip.Addr]bool{}
	known := map[netip.Addr]bool{}
	for _, a := range n.pool(status).Addresses {
		known[a.Addr] = true
		switch a.State {
		case ownership.Held.String():
			held[a.Addr] = true
		case ownership.Free.String():
		default:
			differs("%s is %s", a.Addr, a.State)
		}
	}
	if diff := cmp.Diff(n.inEC2(), addresses(known), cmp.Comparer(sameAddr)); diff != "" {
		differs("EC2 (-) and the agent (+) know different addresses:\n%s", diff)
	}
	for _, s := range n.livePods() {
		where := carried[s.Addr]
		delete(carried, s.Addr)
		switch {
		case where != s.Path:
			differs("%s of %s is in namespace %q", s.Addr, s.ID, where)
		case !held[s.Addr]:
			differs("%s of %s is not held", s.Addr, s.ID)
		}
		delete(held, s.Addr)
		if dev, err := n.ground.routes.Of(s.Addr); err != nil || dev != n.dev {
			differs("%s of %s is routed to %q, not %s (%v)", s.Addr, s.ID, dev, n.dev, err)
		}
	}
	if len(held) > 0 {
		differs("held, and in no pod's namespace: %v", addresses(held))
	}
	if got, want := len(status.Attachments), len(n.livePods()); got != want {
		differs("%d attachments for %d pods: %+v", got, want, status.Attachments)
	}
	if notes, damaged, err := tombstone.Dir(n.agent.Tombstones()).List(); err != nil || len(notes)+damaged > 0 {
		differs("tombstones: %v, %d damaged (%v)", notes, damaged, err)
	}
	if stock := len(known); end && stock > max(warmTarget, minTarget) {
		differs("%d addresses are kept, wanted are %d", stock, max(warmTarget, minTarget))
	}
	return all
}

func sameAddr(a, b netip.Addr) bool { return a == b }

// pool is the ENI for pods in the agent's words.
func (n *node) pool(s *agentapi.Status) agentapi.ENIStatus {
	for _, e := range s.ENIs {
		if string(e.ID) == n.eni {
			return e
		}
	}
	return agentapi.ENIStatus{}
}

// inEC2 is what the ENI for pods holds beside its primary address, in order.
func (n *node) inEC2() []netip.Addr {
	e, _ := n.ground.lab.Cloud.View(time.Now()).ENI(n.eni)
	addrs := slices.DeleteFunc(e.Addresses(), func(a netip.Addr) bool { return a == e.Primary })
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

func (n *node) livePods() []*stage.Sandbox {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.live)
}

// reachEachOther has every pod ping the next one: over the VPC when that is on the other worker.
func (g *ground) reachEachOther(ctx context.Context) {
	var pods []*stage.Sandbox
	for i := range g.nodes[0].livePods() { // alternating between the workers
		for _, n := range g.nodes {
			if live := n.livePods(); i < len(live) {
				pods = append(pods, live[i])
			}
		}
	}
	for i, s := range pods {
		to := pods[(i+1)%len(pods)]
		if _, err := pod.Ping(ctx, s.Path, to.Addr); err != nil {
			g.fail("%s (%s) to %s (%s): %v", s.ID, s.Addr, to.ID, to.Addr, err)
		}
	}
}

// closeBooks stops the agents in order and compares what their ledgers say with EC2.
func (g *ground) closeBooks() {
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		g.fail("%v", err)
		return
	}
	for _, n := range g.nodes {
		if !n.agent.End(syscall.SIGTERM) {
			g.fail("%s: the agent did not stop in order", n.name)
			continue
		}
		book, found, err := ledger.Open(n.agent.StateDir(), ledger.Identity{
			InstanceID: g.lab.Instances[n.name], BootID: strings.TrimSpace(string(bootID)),
		})
		if err != nil {
			g.fail("%v", err)
			continue
		}
		if err := book.Close(); err != nil {
			g.fail("%v", err)
		}
		if found.Rebooted || found.SetAside != "" || found.Damaged > 0 {
			g.fail("%s: the ledger was not whole: %+v", n.name, found)
		}
		var want, got []string
		for _, a := range n.inEC2() {
			want = append(want, "address/"+n.eni+"/"+a.String())
		}
		for key := range found.Entries {
			if !strings.HasPrefix(key, "active/") {
				got = append(got, key)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			g.fail("%s: EC2 (-) and the ledger (+):\n%s", n.name, diff)
		}
	}
}

// addresses lists a map's keys in order.
func addresses[V any](m map[netip.Addr]V) []netip.Addr {
	return slices.SortedFunc(maps.Keys(m), netip.Addr.Compare)
}
