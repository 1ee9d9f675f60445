// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// servers is an EC2 of many servers: each call meets another one. What it shows may be old, what was made may be unknown to it, it may
// throttle, and its reply may be lost.
type servers struct {
	workereni.EC2
	lag    time.Duration // how old an answer may be
	faults float64       // of the calls are throttled, and of the changes as many replies lost
	byTags bool          // what is unknown is not authorised
	refuse func(eni.NewDevice) error

	mu      sync.Mutex
	rng     *rand.Rand
	answers map[string][]seen
	made    map[eni.ID]time.Time
}

func (w *world) servers(rng *rand.Rand, lag time.Duration, faults float64) *servers {
	return &servers{
		EC2: w.client(), lag: lag, faults: faults, byTags: rng.IntN(2) == 0, refuse: func(eni.NewDevice) error { return nil },
		rng: rand.New(rand.NewPCG(rng.Uint64(), 7)), answers: map[string][]seen{}, made: map[eni.ID]time.Time{},
	}
}

func (s *servers) chance(p float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Float64() < p
}

// anyOf is one of the answers to a question that some server may still give.
func anyOf[T any](s *servers, question string, ask func() (T, error)) (T, error) {
	var none T
	if s.chance(s.faults) {
		return none, fmt.Errorf("%s: %w", question, eni.ErrThrottled)
	}
	now, err := ask()
	if err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[question] = append(s.answers[question], seen{time.Now(), now})
	var young []T
	for _, a := range s.answers[question] {
		if time.Since(a.at) < s.lag {
			young = append(young, a.answer.(T))
		}
	}
	return young[s.rng.IntN(len(young))], nil
}

func (s *servers) DevicesTagged(ctx context.Context, tags map[string]string) ([]eni.Device, error) {
	return anyOf(s, fmt.Sprint("ENIs with ", tags), func() ([]eni.Device, error) { return s.EC2.DevicesTagged(ctx, tags) })
}

func (s *servers) DevicesIn(ctx context.Context, subnet eni.SubnetID) ([]eni.Device, error) {
	return anyOf(s, "ENIs in "+string(subnet), func() ([]eni.Device, error) { return s.EC2.DevicesIn(ctx, subnet) })
}

func (s *servers) Workers(ctx context.Context, ids []eni.InstanceID) ([]eni.Worker, error) {
	return anyOf(s, fmt.Sprint("instances ", ids), func() ([]eni.Worker, error) { return s.EC2.Workers(ctx, ids) })
}

// change makes a change of an ENI, or of none.
func (s *servers) change(id eni.ID, do func() error) error {
	s.mu.Lock()
	at, known := s.made[id]
	s.mu.Unlock()
	switch {
	case s.chance(s.faults):
		return fmt.Errorf("change %s: %w", id, eni.ErrThrottled)
	case !known || time.Since(at) >= s.lag || s.chance(0.5):
	case s.byTags:
		return fmt.Errorf("change %s: %w", id, eni.ErrUnauthorized)
	default:
		return fmt.Errorf("change %s: %w", id, eni.ErrNotFound)
	}
	if err := do(); err != nil {
		return err
	}
	if s.chance(s.faults) {
		return fmt.Errorf("change %s: %w", id, eni.ErrOutcomeUnknown)
	}
	return nil
}

func (s *servers) Create(ctx context.Context, n eni.NewDevice) (d eni.Device, err error) {
	if err = s.refuse(n); err != nil {
		return d, err
	}
	err = s.change("", func() (err error) {
		if d, err = s.EC2.Create(ctx, n); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.made[d.ID].IsZero() {
			s.made[d.ID] = time.Now()
		}
		return nil
	})
	return d, err
}

func (s *servers) Attach(ctx context.Context, id eni.ID, to eni.InstanceID, card, index int) (a eni.AttachmentID, err error) {
	err = s.change(id, func() (err error) { a, err = s.EC2.Attach(ctx, id, to, card, index); return err })
	return a, err
}

func (s *servers) Detach(ctx context.Context, a eni.AttachmentID) error {
	return s.change("", func() error { return s.EC2.Detach(ctx, a) })
}

func (s *servers) Delete(ctx context.Context, id eni.ID) error {
	return s.change(id, func() error { return s.EC2.Delete(ctx, id) })
}

func (s *servers) SetDeleteOnTermination(ctx context.Context, id eni.ID, a eni.AttachmentID, on bool) error {
	return s.change(id, func() error { return s.EC2.SetDeleteOnTermination(ctx, id, a, on) })
}

func (s *servers) SetSourceDestCheck(ctx context.Context, id eni.ID, on bool) error {
	return s.change(id, func() error { return s.EC2.SetSourceDestCheck(ctx, id, on) })
}

// upTo is a random time up to the limit.
func upTo(rng *rand.Rand, limit time.Duration) time.Duration {
	return 1 + time.Duration(rng.Int64N(int64(limit)))
}

// pick is one of these.
func pick[T any](rng *rand.Rand, these ...T) T { return these[rng.IntN(len(these))] }

func (w *world) end(id eni.InstanceID) {
	if _, err := w.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
		w.t.Error(err)
	}
}

func (w *world) release(f *workereni.Flow, id eni.InstanceID) {
	if err := f.Terminate(w.t.Context(), id); err != nil {
		w.t.Error(err)
	}
}

// TestManyServers: up to three runs at once, some of which end early and begin anew, give the worker its ENIs, and none is left of it.
func TestManyServers(t *testing.T) {
	each(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, twoZones+"ec2: {latency: 80ms, propagation: {describe: 1s}}\n")
		ec2 := w.servers(rng, time.Second+upTo(rng, 20*time.Second), pick(rng, 0.0, .05, .2))
		f, id := workereni.New(w.twoENIs(), ec2, w.log), w.instance(pick(rng, "m5.2xlarge", "m5.large"), "nodes-a")
		var runs sync.WaitGroup
		for n := range 1 + rng.IntN(3) {
			later, first := upTo(rng, 8*time.Second), 15*time.Minute
			if rng.IntN(3) == 0 {
				first = upTo(rng, 15*time.Second)
			}
			runs.Go(func() {
				<-time.After(later)
				for _, limit := range []time.Duration{first, 15 * time.Minute} {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					_, err := f.Launch(ctx, workereni.Request{Instance: id})
					cancel()
					if err != nil && (limit != first || !errors.Is(err, workereni.ErrUnfinished)) {
						t.Errorf("run %d: %v", n, err)
					}
				}
			})
		}
		runs.Wait()
		w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
		<-time.After(30 * time.Second)
		w.release(f, id)
		w.end(id)
		<-time.After(time.Minute)
		w.wantENIs()
	})
}

// TestTheFirstAnswerCounts: up to three runs, and creations that EC2 refuses for good, each or some. A worker that was said to have its ENIs
// keeps them, and nothing is left of one that was given up.
func TestTheFirstAnswerCounts(t *testing.T) {
	ends := map[string]int{}
	each(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, twoZones+"ec2: {latency: 80ms, propagation: {describe: 1s}}\n")
		ec2 := w.servers(rng, time.Second+upTo(rng, 5*time.Second), pick(rng, 0.0, .05))
		subnet, share, after := eni.SubnetID(w.lab.Subnets[pick(rng, "n4-a", "n6-a")]), pick(rng, .2, .5, 1), upTo(rng, 30*time.Second)
		ec2.refuse = func(n eni.NewDevice) error {
			if n.Subnet != subnet || !ec2.chance(share) {
				return nil
			}
			<-time.After(after)
			return fmt.Errorf("create: %w", eni.ErrRefused)
		}
		f, id := workereni.New(w.twoENIs(), ec2, w.log), w.instance("m5.2xlarge", "nodes-a")
		var mu sync.Mutex
		answer := ""
		say := func(this string) bool {
			mu.Lock()
			defer mu.Unlock()
			if answer == "" && this == "ABANDON" {
				w.end(id)
			}
			answer = cmp.Or(answer, this)
			return answer == this
		}
		var runs sync.WaitGroup
		for range 1 + rng.IntN(3) {
			later := upTo(rng, 4*time.Second)
			runs.Go(func() {
				<-time.After(later)
				giveUp := func(*workereni.ImpossibleError) bool { return say("ABANDON") }
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
				defer cancel()
				_, err := f.Launch(ctx, workereni.Request{Instance: id, GiveUp: giveUp})
				if errors.Is(err, workereni.ErrUnfinished) {
					t.Error(err)
				}
				if err == nil {
					say("CONTINUE")
				}
			})
		}
		runs.Wait()
		ends[answer]++
		if answer == "CONTINUE" {
			w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
			return
		}
		<-time.After(time.Minute)
		w.release(f, id) // which its end calls for, too
		w.wantENIs()
	})
	if n := ends["CONTINUE"] + ends["ABANDON"]; n >= 25 && len(ends) < 2 {
		t.Errorf("all of %d storms ended in one way: %v", n, ends)
	}
}
