// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// TestStorms: launches of one worker at once, each with its own old view of EC2, some killed, under a policy by tags and lost replies.
// None of them gives the worker up, and the last one leaves exactly what was asked for. STORMS is how many there are, STORM which one.
func TestStorms(t *testing.T) {
	each(t, func(t *testing.T, rng *rand.Rand) { newStorm(t, rng).launches() })
}

// TestStormsAtTheEnd: the worker ends meanwhile, and both kinds of events come. The next sweep but one leaves nothing.
func TestStormsAtTheEnd(t *testing.T) {
	each(t, func(t *testing.T, rng *rand.Rand) { newStorm(t, rng).end() })
}

func each(t *testing.T, tell func(*testing.T, *rand.Rand)) {
	storms := 25
	if n, err := strconv.Atoi(os.Getenv("STORMS")); err == nil {
		storms = n
	}
	for n := range uint64(storms) {
		if only, err := strconv.ParseUint(os.Getenv("STORM"), 10, 64); err == nil && n != only {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { tell(t, rand.New(rand.NewPCG(n, 7))) })
		})
	}
}

// storm is a world with bad weather.
type storm struct {
	*world
	rng *rand.Rand
	cfg workereni.Config
	id  eni.InstanceID
}

func newStorm(t *testing.T, rng *rand.Rand) storm {
	w := newWorld(t, twoZones+lags["late"])
	w.through = policyByTags
	var faults []front.Fault
	for _, action := range []string{"CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute", "DetachNetworkInterface", "DeleteNetworkInterface"} {
		faults = append(faults, front.Fault{Action: action, Probability: rng.Float64() / 3, Count: 3, Kind: front.LostReply})
	}
	if err := w.lab.Front.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	kind := []string{"m5.large", "m5.2xlarge"}[rng.IntN(2)]
	return storm{w, rng, w.twoENIs(), w.instance(kind, "nodes-a")}
}

func (s storm) upTo(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }

// event is one handling of an event: with a view of its own, at some time, and for half of them with a sudden end.
func (s storm) event(runs *sync.WaitGroup, handle func(context.Context, *workereni.Flow)) {
	view := &stale{EC2: s.client(), devices: s.upTo(25 * time.Second), workers: s.upTo(25 * time.Second), seen: map[string]seen{}}
	after, life := s.upTo(20*time.Second), 5*time.Minute
	if s.rng.IntN(2) == 0 {
		life = s.upTo(30*time.Second) + 1
	}
	runs.Go(func() {
		<-time.After(after)
		ctx, cancel := context.WithTimeout(s.t.Context(), life)
		defer cancel()
		handle(ctx, workereni.New(s.cfg, view, s.log))
	})
}

func (s storm) launches() {
	var runs sync.WaitGroup
	for n := range 1 + s.rng.IntN(4) {
		s.event(&runs, func(ctx context.Context, f *workereni.Flow) {
			if _, err := f.Launch(ctx, workereni.Request{Instance: s.id}); err != nil && !errors.Is(err, workereni.ErrUnfinished) {
				s.t.Errorf("run %d: %v", n, err)
			}
		})
	}
	runs.Wait()
	s.mustLaunch(s.flow(s.cfg), s.id)
	s.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
}

func (s storm) end() {
	var runs sync.WaitGroup
	for range 1 + s.rng.IntN(3) {
		s.event(&runs, func(ctx context.Context, f *workereni.Flow) {
			_, _ = f.Launch(ctx, workereni.Request{Instance: s.id}) // it may end either way
		})
	}
	for n := range s.rng.IntN(3) {
		s.event(&runs, func(ctx context.Context, f *workereni.Flow) {
			if err := f.Terminate(ctx, s.id); err != nil && !errors.Is(err, workereni.ErrUnfinished) {
				s.t.Errorf("termination %d: %v", n, err)
			}
		})
	}
	gone := s.upTo(40 * time.Second)
	runs.Go(func() {
		<-time.After(gone)
		if _, err := s.lab.Cloud.TerminateInstances(time.Now(), []string{string(s.id)}); err != nil {
			s.t.Error(err)
		}
	})
	runs.Wait()
	for range 2 {
		<-time.After(2 * time.Hour)
		if _, err := s.flow(s.cfg).Sweep(s.t.Context(), time.Hour); err != nil {
			s.t.Error(err)
		}
	}
	s.wantENIs()
}
