// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

var (
	seedFlag  = flag.Uint64("schedule.seed", 0, "seed of TestSchedule; 0 draws one")
	stepsFlag = flag.Int("schedule.steps", 40000, "steps of TestSchedule")
)

// crowded is four workers on a reservation of 32, so that it is the reservation that runs out, with late views, lost
// replies, failures and a small bucket.
const crowded = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: primary, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, az: us-west-2a, reservations: [{cidr: 10.10.1.64/27}]}
instances:
- {name: w1, enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: w2, enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: w3, enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: w4, enis: [{subnet: primary}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
ec2:
  latency: 80ms
  propagation: {route: 1s, imds: 2s, describe: 4s}
  assignOwned: %s
  mixedBatch: %s
  throttle: {AssignPrivateIpAddresses: {burst: 2, refill: 0.5}, UnassignPrivateIpAddresses: {burst: 2, refill: 0.3}}
  faults:
  - {action: AssignPrivateIpAddresses, probability: 0.12, kind: lost-reply}
  - {action: AssignPrivateIpAddresses, probability: 0.04, kind: error-after}
  - {action: AssignPrivateIpAddresses, probability: 0.04, kind: error-before}
  - {action: UnassignPrivateIpAddresses, probability: 0.12, kind: lost-reply}
  - {action: DescribeNetworkInterfaces, probability: 0.02, kind: 5xx}
`

// TestSchedule lets pods come and go at random on four workers under faults, and looks after every step whether an
// address is held by two. Run it longer with -schedule.steps, and again with -schedule.seed.
func TestSchedule(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	modes := [][2]string{{"ok", "atomic"}, {"error", "partial"}}
	for i, m := range modes {
		t.Run("assignOwned="+m[0]+"/mixedBatch="+m[1], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSchedule(t, fmt.Sprintf(crowded, m[0], m[1]), seed+uint64(i))
				s.run(*stepsFlag / len(modes))
			})
		})
	}
}

// schedule is the driver: it plays the container runtimes of all workers, and the VPC's other tenants.
type schedule struct {
	t       *testing.T
	w       *world
	rng     *rand.Rand
	seed    uint64
	names   []string
	workers map[string]*life
	serial  int
	foreign []tenantENI
	peak    int
	adds    int
	fails   atomic.Int64
	crashes int
}

// tenantENI is an ENI of another tenant.
type tenantENI struct {
	id   string
	made time.Time
}

// life is a worker with its agent's present life: ADDs in flight die with the agent.
type life struct {
	*node
	ctx    context.Context
	cancel context.CancelFunc
	adds   sync.WaitGroup

	mu   sync.Mutex
	pods map[string]*podState
}

type podState struct {
	attachment.Attachment
	addr netip.Addr
}

func newSchedule(t *testing.T, yaml string, seed uint64) *schedule {
	s := &schedule{
		t: t, w: newWorld(t, yaml), rng: rand.New(rand.NewPCG(seed, 0)), seed: seed,
		names: []string{"w1", "w2", "w3", "w4"}, workers: map[string]*life{},
	}
	s.w.log = slog.New(slog.DiscardHandler)
	for _, name := range s.names {
		n := s.w.worker(name, func(c *pool.Config) {
			c.WarmIPTarget, c.MinimumIPTarget, c.Cooldown = 1, 0, 8*time.Second // stock wanders from worker to worker
		})
		// A worker has pods of the cluster's own too: without any namespace the agent would conclude nothing from an empty folder.
		n.netns.add("/run/netns/coredns")
		s.workers[name] = &life{node: n, pods: map[string]*podState{}}
		s.workers[name].born()
		<-n.Ready()
	}
	return s
}

func (l *life) born() { l.ctx, l.cancel = context.WithCancel(context.Background()) }

// crash kills the agent with its ADDs in flight and starts another.
func (l *life) crash() {
	l.cancel()
	l.adds.Wait()
	l.node.crash()
	l.born()
}

func (s *schedule) run(steps int) {
	s.t.Logf("seed %d", s.seed)
	for step := range steps {
		l := s.workers[s.names[s.rng.IntN(len(s.names))]]
		switch p := s.rng.IntN(100); {
		case p < 30:
			s.add(l)
		case p < 55:
			s.remove(l, true)
		case p < 60:
			s.remove(l, false)
		case p < 63:
			s.tenant()
		case p < 64:
			s.crashes++
			l.crash()
		default:
			time.Sleep(time.Duration(s.rng.Int64N(int64(1500 * time.Millisecond))))
		}
		synctest.Wait()
		s.check(step)
		if s.t.Failed() {
			break
		}
	}
	s.finish(steps)
}

// add is a runtime's ADD in the background: when it fails, or its answer dies with the agent, DEL follows.
func (s *schedule) add(l *life) {
	s.serial++
	a := l.pod(fmt.Sprintf("pod-%d", s.serial))
	s.adds++
	l.adds.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second)
		defer cancel()
		got, err := l.Add(ctx, a, attachment.Query{})
		l.mu.Lock()
		defer l.mu.Unlock()
		if err != nil || l.ctx.Err() != nil {
			l.netns.remove(a.Netns.Path)
			s.fails.Add(1)
			if derr := l.Del(a.Key); derr != nil {
				s.t.Errorf("DEL after a failed ADD: %v", derr)
			}
			return
		}
		addr := got.Addresses[0].Addr()
		l.netns.carry(a.Netns.Path, addr)
		l.pods[a.ContainerID] = &podState{a, addr}
	})
}

// remove ends a pod, with DEL or by its namespace alone.
func (s *schedule) remove(l *life, del bool) {
	l.mu.Lock()
	var ids []string
	for id := range l.pods {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	// The map's order is not the seed's: the youngest or the oldest goes.
	oldest, youngest := ids[0], ids[0]
	number := func(id string) (n int) { _, _ = fmt.Sscanf(id, "pod-%d", &n); return n }
	for _, id := range ids {
		if number(id) < number(oldest) {
			oldest = id
		}
		if number(id) > number(youngest) {
			youngest = id
		}
	}
	id := oldest
	if s.rng.IntN(4) == 0 {
		id = youngest
	}
	l.mu.Lock()
	p := l.pods[id]
	delete(l.pods, id)
	l.mu.Unlock()
	l.netns.remove(p.Netns.Path)
	if del {
		for range 1 + s.rng.IntN(2) { // runtimes repeat DEL
			if err := l.Del(p.Key); err != nil {
				s.t.Errorf("DEL %s: %v", p.Key, err)
			}
		}
	}
}

// tenant is somebody else in the VPC: ENIs come with addresses that EC2 chooses, take more by count, and go.
func (s *schedule) tenant() {
	now := time.Now()
	if len(s.foreign) > 4 && now.Sub(s.foreign[0].made) > 10*time.Second {
		id := s.foreign[0].id
		s.foreign = s.foreign[1:]
		if err := s.w.lab.Cloud.DeleteNetworkInterface(now, id); err != nil {
			s.t.Errorf("delete %s: %v", id, err)
		}
		return
	}
	e, err := s.w.lab.Cloud.CreateNetworkInterface(now, vpc.CreateNetworkInterfaceInput{SubnetID: s.w.lab.Subnets["multus-1"]})
	if err != nil {
		s.t.Errorf("create a foreign ENI: %v", err)
		return
	}
	if n := len(s.foreign); n > 0 && now.Sub(s.foreign[n-1].made) > 10*time.Second { // visible by now
		id := s.foreign[n-1].id
		if _, err := s.w.lab.Cloud.AssignPrivateIPAddresses(now, vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: id, Count: 1 + s.rng.IntN(5)}); err != nil {
			s.t.Errorf("assign by count to %s: %v", id, err)
		}
	}
	s.foreign = append(s.foreign, tenantENI{e.ID, now})
}

// check fails when an address is carried or held by two, or a pod has one that EC2 does not hold for its worker's ENI.
func (s *schedule) check(step int) {
	owners := s.w.lab.Cloud.View(time.Now()).Routes()
	carriers := map[netip.Addr]string{}
	inUse := 0
	for _, name := range s.names {
		l := s.workers[name]
		l.mu.Lock()
		for id, p := range l.pods {
			if other, twice := carriers[p.addr]; twice {
				s.t.Errorf("seed %d step %d: %s is carried by %s and %s", s.seed, step, p.addr, other, name+"/"+id)
			}
			carriers[p.addr] = name + "/" + id
			if owners[p.addr] != s.w.lab.ENIs[name][1] {
				s.t.Errorf("seed %d step %d: %s of %s/%s is held by %q in EC2", s.seed, step, p.addr, name, id, owners[p.addr])
			}
		}
		l.mu.Unlock()
		for addr, state := range l.states() {
			if by, carried := carriers[addr]; carried && by[:2] == name && state != "held" {
				s.t.Errorf("seed %d step %d: %s carries %s, which is %s", s.seed, step, by, addr, state)
			}
		}
	}
	pooled := netip.MustParsePrefix("10.10.1.64/27")
	for addr := range owners {
		if pooled.Contains(addr) {
			inUse++
		}
	}
	s.peak = max(s.peak, inUse)
}

// finish ends the weather and all pods, and looks for leaks.
func (s *schedule) finish(steps int) {
	counts := map[string]int{}
	for _, c := range s.w.lab.Front.Calls() {
		switch {
		case c.Result == "RequestLimitExceeded":
			counts["throttles"] += c.Count
		case c.Result == "lost-reply":
			counts["lost replies"] += c.Count
		case c.Action == "AssignPrivateIpAddresses" && c.Result == "InvalidParameterValue":
			counts["conflicts"] += c.Count
		}
	}
	s.t.Logf("seed %d: %d steps, %d ADDs (%d failed), %d crashes, %d conflicts, %d lost replies, %d throttles, at most %d of 32 addresses in use",
		s.seed, steps, s.adds, s.fails.Load(), s.crashes, counts["conflicts"], counts["lost replies"], counts["throttles"], s.peak)
	if s.peak < 26 {
		s.t.Errorf("the reservation was filled to %d of 32 only", s.peak)
	}
	for _, what := range []string{"conflicts", "lost replies", "throttles"} {
		if steps >= 5000 && counts[what] < 100 {
			s.t.Errorf("only %d %s: the schedule proves little", counts[what], what)
		}
	}
	if err := s.w.lab.Front.SetFaults(nil); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range s.names {
		l := s.workers[name]
		l.adds.Wait()
		for len(l.pods) > 0 {
			s.remove(l, true)
		}
	}
	for _, name := range s.names {
		l := s.workers[name]
		if !s.t.Failed() {
			eventually(s.t, 30*time.Minute, name+" is settled", func() bool {
				states := l.states()
				return len(states) <= 1 && l.count("free") == len(states)
			})
			s.w.agree(l.node)
		}
		l.stop()
	}
}
