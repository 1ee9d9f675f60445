// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sticky

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/ledger"
)

// twoWorkers have late links, which the operating system leaves without an address: nothing of the host's forwards what is
// sent to an address that has left the ENI, and hides a stale neighbour entry.
const twoWorkers = `
vpc: {cidr: 10.69.0.0/16}
subnets:
- {name: primary, cidr: 10.69.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.69.1.0/24, az: us-west-2a,
   reservations: [{cidr: 10.69.1.64/26}, {cidr: 10.69.1.192/28, tags: {multus-vpc.io/role: static}}]}
- {name: others, cidr: 10.69.2.0/24, az: us-west-2a, reservations: [{cidr: 10.69.2.64/26}]}
instances:
- name: worker-1
  enis:
  - {subnet: primary}
  - {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
  - {subnet: others, tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}
- name: worker-2
  enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}, link: late}]
ec2: {latency: 50ms, propagation: {route: 500ms, imds: 800ms, describe: 500ms}}
`

const (
	agentConfig = "warmIPTarget: 1\nminimumIPTarget: 2\n"
	ifName      = "net1"
	// heals is far above what neighbours need to find a pod at its new place, also in an emulated machine that is busy. A
	// stale neighbour entry is believed for 20 to 40 s.
	heals = 12 * time.Second
)

// db0 is the address of the pod db-0.
var db0 = netip.MustParseAddr("10.69.1.192")

// stage is the ground with db-0 and the pods that talk to it.
type stage struct {
	*ground
	life int
	at   *sandbox // db-0's present sandbox
	app  *app
	// watches by where they ask from.
	watches map[string]*watch
}

func config(deviceIndex int, ipam string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "n%d", "type": "vpcipvlan", "eni": {"deviceIndex": %[1]d},
		"ipam": {"type": "vpcipam", "routes": [{"dst": "10.69.0.0/16"}]%s}}`, deviceIndex, ipam)
}

// sticky is the network of StatefulSet db.
var sticky = config(1, `, "ranges": ["10.69.1.192/28"], "sticky": {"statefulSet": "db"}`)

// place has db-0 run on a worker, and returns how long ADD took. In an emulated machine that is very busy it may take
// longer than the agent waits; then the kubelet tries again.
func (g *stage) place(worker string) (add time.Duration) {
	g.t.Helper()
	g.life++
	uid := g.api.recreate("db-0", g.life)
	start := time.Now()
	for try := 1; ; try++ {
		g.at = g.sandbox(worker, "db-0", uid)
		got, err := g.call(g.at, "vpcipvlan", "ADD", ifName, sticky).Address()
		if err == nil && got.Addr() == db0 {
			break
		}
		if try == 3 {
			g.t.Fatalf("ADD of db-0 on %s: %v, %v; want %s", worker, got, err, db0)
		}
		g.t.Logf("ADD of db-0 on %s: %v; it is tried again", worker, err)
		g.must(g.call(g.at, "vpcipvlan", "DEL", ifName, sticky).Err())
		g.must(g.at.Delete())
	}
	add = time.Since(start)
	g.app = g.serve(g.at, db0, g.at.Name)
	return add
}

// end is what the kubelet does with a pod that is deleted: its app stops, DEL, and its namespace goes.
func (g *stage) end(s *sandbox, a *app) {
	g.t.Helper()
	a.stop()
	g.must(g.call(s, "vpcipvlan", "DEL", ifName, sticky).Err())
	g.must(s.Delete())
}

// outages waits until everybody reaches db-0 where it is now, and returns how long each could not. from leaves out those
// who still reach the old one.
func (g *stage) outages(from ...string) map[string]time.Duration {
	g.t.Helper()
	all := map[string]time.Duration{}
	for _, name := range from {
		_, outage, err := g.watches[name].first(g.ctx, g.at.Name)
		if err != nil {
			g.t.Fatalf("%s never reached db-0 on %s: %v", name, g.at.worker, err)
		}
		all[name] = outage
	}
	return all
}

// TestStatefulSetPodKeepsItsAddress moves db-0 between two workers in order, then away from each while it is cut off, and
// has the old one come back.
func TestStatefulSetPodKeepsItsAddress(t *testing.T) {
	g := &stage{ground: up(t, twoWorkers, agentConfig), watches: map[string]*watch{}}
	everybody := []string{"worker-1, same subnet", "worker-2, same subnet", "another subnet"}
	for i, from := range []struct {
		worker string
		index  int
	}{{"worker-1", 1}, {"worker-2", 1}, {"worker-1", 2}} {
		s := g.sandbox(from.worker, fmt.Sprint("peer-", i), "")
		if err := g.call(s, "vpcipvlan", "ADD", ifName, config(from.index, "")).Err(); err != nil {
			t.Fatalf("ADD of a peer on %s: %v", from.worker, err)
		}
		g.watches[everybody[i]] = g.watch(s, db0)
	}
	g.place("worker-1")
	g.outages(everybody...)

	g.inOrder(everybody)
	g.cutOff(everybody)
	g.rebooted(everybody)
}

func (g *stage) inOrder(everybody []string) {
	const moves = 5
	var adds []time.Duration
	seen := map[string][]time.Duration{}
	for i := range moves {
		to := []string{"worker-2", "worker-1"}[i%2]
		g.end(g.at, g.app)
		adds = append(adds, g.place(to))
		outages := g.outages(everybody...)
		quickest := slices.Min(slices.Collect(maps.Values(outages)))
		for name, outage := range outages {
			seen[name] = append(seen[name], outage)
			if outage > quickest+heals/2 {
				g.t.Errorf("move %d to %s: %s could not reach db-0 for %v, others for %v only", i+1, to, name, outage, quickest)
			}
		}
	}
	g.t.Logf("%d moves in order: ADD p50 %v", moves, p50(adds))
	for _, name := range everybody {
		g.t.Logf("%d moves in order: not reachable from %-21s p50 %v, most %v", moves, name+":", p50(seen[name]), slices.Max(seen[name]).Round(time.Millisecond))
	}
}

func p50(all []time.Duration) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2].Round(time.Millisecond)
}

// cutOff kills the agent of worker-2, whose pod goes on, moves db-0, and starts the agent again.
func (g *stage) cutOff(everybody []string) {
	old, oldApp := g.at, g.app
	others := slices.DeleteFunc(slices.Clone(everybody), func(name string) bool { return strings.HasPrefix(name, old.worker) })
	g.nodes[old.worker].Kill()
	add := g.place("worker-1")
	for name, outage := range g.outages(others...) {
		g.t.Logf("from a worker that is cut off: ADD took %v; not reachable from %s: %v", add.Round(time.Millisecond), name, outage.Round(time.Millisecond))
		if outage > heals {
			g.t.Errorf("%s could not reach db-0 for %v, want at most %v", name, outage, heals)
		}
	}

	g.must(g.nodes[old.worker].Start(g.config))
	g.until(old.worker, func(s *agentapi.Status) string {
		if got := state(s, db0); got != "lost" || !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, db0.String()) }) {
			return fmt.Sprintf("%s to be lost; it is %q, problems %q", db0, got, s.Problems)
		}
		for _, reason := range []string{"AddressMoved", "AddressLost", "AddressContested"} { // of the new pod, and of the old one
			if !g.api.heard(reason) {
				return "an event with the reason " + reason
			}
		}
		return ""
	})
	if log := g.nodes[old.worker].Log(); !strings.Contains(log, "held address is lost: EC2 no longer has it on the ENI") {
		g.t.Errorf("the old worker's agent does not tell that it lost the address")
	}
	if got := g.owner(db0); got != "worker-1" {
		g.t.Errorf("EC2 has the address on %s, want worker-1", got)
	}
	// The kubelet is back and ends the old pod: its neighbours find the new one.
	ended := time.Now()
	g.end(old, oldApp)
	at, outage, err := g.watches["worker-2, same subnet"].first(g.ctx, g.at.Name)
	g.must(err)
	g.t.Logf("the old pod is ended: its siblings reach the new one %v later, after %v without an answer", at.Sub(ended).Round(time.Millisecond), outage.Round(time.Millisecond))
	if outage > heals {
		g.t.Errorf("siblings of the old pod could not reach db-0 for %v, want at most %v", outage, heals)
	}
	if got := g.owner(db0); got != "worker-1" {
		g.t.Errorf("after the old pod's DEL EC2 has the address on %q, want worker-1", got)
	}
}

// rebooted moves db-0 away from worker-1, which is down, and comes back with the ledger of before.
func (g *stage) rebooted(everybody []string) {
	old, oldApp := g.at, g.app
	down := g.nodes[old.worker]
	down.Kill()
	oldApp.stop()
	g.must(old.Delete())
	add := g.place("worker-2")
	// The old pod's siblings went down with it; where only the agent is away, nobody tells them.
	for name, outage := range g.outages(everybody[1:]...) {
		g.t.Logf("from a worker that is down: ADD took %v; not reachable from %s: %v", add.Round(time.Millisecond), name, outage.Round(time.Millisecond))
		if outage > add+heals {
			g.t.Errorf("%s could not reach db-0 for %v, want at most %v after ADD's %v", name, outage, heals, add)
		}
	}

	book, _, err := ledger.Open(down.StateDir(), ledger.Identity{InstanceID: g.lab.Instances[old.worker], BootID: "of the boot before"})
	g.must(err)
	g.must(book.Put(ledger.Entry{Key: "test/boot", Value: json.RawMessage("1")}))
	g.must(book.Close())
	g.must(down.Start(g.config))
	// Both workers are on one machine, so this agent finds db-0's namespace of worker-2 and takes it for a pod of its own, whose
	// address is then lost.
	g.until(old.worker, func(s *agentapi.Status) string {
		if got := state(s, db0); len(s.ENIs) == 0 || got != "" && got != "lost" {
			return fmt.Sprintf("%s to be given up; it is %q", db0, got)
		}
		return ""
	})
	if !strings.Contains(down.Log(), "first start since the worker booted") {
		g.t.Error("the agent does not know of the reboot")
	}
	if got := g.owner(db0); got != "worker-2" {
		g.t.Errorf("EC2 has the address on %q, want worker-2", got)
	}
}
