// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// fourWorkers share a reservation of 32 addresses, of which strangers have some. The static reservation beside it is for
// nobody here.
const fourWorkers = `
vpc: {cidr: 10.77.0.0/16}
subnets:
- {name: primary, cidr: 10.77.12.0/24, az: us-west-2a}
- name: pods
  cidr: 10.77.1.0/24
  az: us-west-2a
  reservations:
  - {cidr: 10.77.1.64/28, type: explicit}
  - {cidr: 10.77.1.96/28, type: explicit}
  - {cidr: 10.77.1.128/28, type: explicit, tags: {multus-vpc.io/role: static}}
instances:
- {name: worker-1, type: m5.2xlarge, enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: worker-2, type: m5.2xlarge, enis: [{subnet: primary}, {subnet: pods, link: late, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: worker-3, type: m5.2xlarge, enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: worker-4, type: m5.2xlarge, enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
ec2:
  latency: 20ms
  throttle: {default: {read: {burst: 100, refill: 20}, write: {burst: 50, refill: 5}}}
`

// poolRanges are the reservations that feed stock, static the one that does not.
var (
	poolRanges = []netip.Prefix{netip.MustParsePrefix("10.77.1.64/28"), netip.MustParsePrefix("10.77.1.96/28")}
	static     = netip.MustParsePrefix("10.77.1.128/28")
)

// weather is how EC2 shows things, and how the campaign goes through it.
type weather struct {
	name   string
	lags   scenario.Propagation
	cut    time.Duration // bound of a partition
	settle time.Duration // bound of the quiet after an epoch
}

// scene is the lab with its workers.
type scene struct {
	t       *testing.T
	weather weather
	lab     *lab.Running
	seed    uint64
	rng     *rand.Rand // of the goroutine that runs the epochs alone
	dir     string
	bin     string
	wiring  stage.Wiring
	routes  *stage.Routes
	judge   *stage.Judge
	stranger
	tally tally
	diary diary

	ctx  context.Context // ends with the first failure
	stop context.CancelCauseFunc

	launched atomic.Int64

	mu      sync.Mutex
	workers []*node
}

// errFailed ends a run whose test has failed.
var errFailed = errors.New("the test has failed")

// up raises the scene. Everything goes when the test ends.
func up(t *testing.T, wiring stage.Wiring, wx weather, seed uint64) *scene {
	t.Helper()
	s := &scene{t: t, weather: wx, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), wiring: wiring, bin: os.Getenv("MULTUS_VPC_BIN")}
	s.ctx, s.stop = context.WithCancelCause(t.Context())
	plan, err := scenario.Parse([]byte(fourWorkers))
	s.must(err)
	plan.EC2.Seed, plan.EC2.Propagation = seed, wx.lags
	plan.EC2.AssignOwned = pick(s.rng, vpc.AssignOwnedOK, vpc.AssignOwnedError)
	plan.EC2.MixedBatch = pick(s.rng, vpc.MixedBatchAtomic, vpc.MixedBatchPartial)
	s.note("scene", "assignOwned %s, mixedBatch %s, %+v", plan.EC2.AssignOwned, plan.EC2.MixedBatch, wx.lags)
	s.lab, err = lab.Up(t.Context(), plan, lab.Config{Prefix: fmt.Sprintf("chaos%d%s", os.Getpid(), wx.name), Log: t.Output()})
	s.must(err)
	s.atEnd(s.lab.Close)
	s.routes, err = stage.OpenRoutes(s.lab.Netns["vpc"])
	s.must(err)
	t.Cleanup(s.routes.Close)
	s.judge = stage.NewJudge(s.lab.Cloud, s.routes, cooldown, s.fail)
	s.dir, err = os.MkdirTemp("", "mv-chaos-") // shorter than t.TempDir: a socket's path has 107 bytes
	s.must(err)
	s.atEnd(func() error { return os.RemoveAll(s.dir) })
	s.must(s.settleStranger())
	for i := range s.lab.Instances {
		s.must(os.Mkdir(filepath.Join(s.dir, i), 0o700))
	}
	for i := range len(s.lab.Instances) {
		name := fmt.Sprintf("worker-%d", i+1)
		w, err := s.newNode(name, s.lab.Instances[name], s.lab.Netns[name])
		s.must(err)
		s.must(w.powerOn(false))
		s.workers = append(s.workers, w)
	}
	s.launched.Store(int64(len(s.workers)))
	return s
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) atEnd(f func() error) {
	s.t.Cleanup(func() {
		if err := f(); err != nil {
			s.t.Error(err)
		}
	})
}

// fail reports what must not be, and ends the run.
func (s *scene) fail(format string, args ...any) {
	s.note("FAIL", format, args...)
	if s.ctx.Err() == nil {
		s.t.Errorf("CHAOS_SEED=%d: "+format, append([]any{s.seed}, args...)...)
	}
	s.stop(errFailed)
}

// all are the workers that there are.
func (s *scene) all() []*node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*node(nil), s.workers...)
}

// replace puts a new worker in the place of one that is lost.
func (s *scene) replace(old, fresh *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.workers {
		if w == old {
			s.workers[i] = fresh
		}
	}
}

// pause waits, or reports that the run has ended.
func (s *scene) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func pick[T any](rng *rand.Rand, choices ...T) T { return choices[rng.IntN(len(choices))] }

// between draws a time.
func between(rng *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(rng.Int64N(int64(high-low)+1))
}
