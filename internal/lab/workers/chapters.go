// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// grow is step 2: three workers come, and each event comes twice.
func (s *story) grow(ctx context.Context) {
	t := s.teller
	t.Step(2, "Three workers, in two zones")
	t.Watch("the group goes from 0 to 3: all are in service", func(progress func(string)) (string, error) {
		if err := s.scale(ctx, 3, progress); err != nil {
			return "", err
		}
		var took []string
		for _, w := range s.workers() {
			took = append(took, s.inService(w.ID))
		}
		return strings.Join(took, ", ") + " after their launch", nil
	})
	all := s.workers()
	t.Check("each has exactly the planned ENIs: card, index, subnet, addresses, tags", func() (string, error) {
		zones := map[string]bool{}
		for _, w := range all {
			zones[w.AZ] = true
		}
		if len(all) != 3 || len(zones) != 2 {
			return "", fmt.Errorf("%d workers in %d zones", len(all), len(zones))
		}
		return fmt.Sprintf("%d ENIs, %d addresses in stock", 2*len(all), 2*stock*len(all)), s.asPlanned(all)
	})
	t.Check("each event came twice, and the second changed nothing", func() (string, error) { return s.secondDeliveries(ctx, len(all)) })
	t.Check("EC2 calls for each worker, both deliveries together", func() (string, error) {
		c := s.calls(s.lab.Front, s.function)
		// Each of the two ENIs needs three: create, attach, delete with the instance. Both deliveries may do all of it, and again
		// where another worker was faster at an address.
		if limit := 2 * 3 * 2 * 2; c.changes > limit*len(all) || len(all) == 0 {
			return "", fmt.Errorf("%d calls that change something for %d workers, want at most %d each", c.changes, len(all), limit)
		}
		return fmt.Sprintf("%d that change something, %d that read", c.changes/len(all), c.reads/len(all)), nil
	})
	t.Check("the function's role allows what the function does, and not more", func() (string, error) { return s.leastPrivilege() })
	s.table(all)
}

// inService is how long a worker took from its launch until it was in service.
func (s *story) inService(id string) string { return teller.Round(s.seen[id]) }

// secondDeliveries waits for the end of all invocations that n launches caused.
func (s *story) secondDeliveries(ctx context.Context, n int) (string, error) {
	err := s.handled(ctx, 2*n)
	answers := s.calls(s.lab.ScalingFront, s.function).byAction["CompleteLifecycleAction"]
	if err == nil && answers != n {
		err = fmt.Errorf("%d hooks answered, want %d", answers, n)
	}
	return fmt.Sprintf("%d invocations, %d hooks answered", 2*n, answers), errors.Join(err, s.asPlanned(s.workers()))
}

// killed is step 3: the function's program dies in the middle of a launch.
func (s *story) killed(ctx context.Context) {
	t := s.teller
	t.Step(3, "The function is killed in the middle of a launch")
	if s.function == "" {
		t.Skip("a fourth worker is launched")
		return
	}
	s.lab.Events.SetMischief(events.Mischief{}) // a second delivery would finish what the first cannot
	defer s.lab.Events.SetMischief(twice)
	known, past := s.workers(), len(s.lab.Functions.Invocations(s.function))
	t.Watch("a fourth worker: killed when EC2 has made its ENIs, before the reply", func(progress func(string)) (string, error) {
		err := s.lab.Front.SetFaults([]front.Fault{{Action: "CreateNetworkInterface", Nth: 2, Kind: front.Slow, Delay: s.cfg.Patience}})
		if err != nil {
			return "", err
		}
		if err = s.lab.Scaling.SetDesiredCapacity(time.Now(), groupName, len(known)+1); err != nil {
			return "", err
		}
		attached := 0
		err = s.await(ctx, func() error {
			mine := slices.DeleteFunc(ours(s.lab.Cloud.View(time.Now()), tagOwner, groupName), func(e vpc.ENI) bool {
				return slices.ContainsFunc(known, func(w autoscaling.Instance) bool { return w.ID == e.Tags[tagInstance] })
			})
			attached = 0
			for _, e := range mine {
				if e.Attachment != nil {
					attached++
				}
			}
			if progress(fmt.Sprintf("%d ENIs made", len(mine))); len(mine) < 2 {
				return fmt.Errorf("%d ENIs made", len(mine))
			}
			return nil
		})
		if killed := s.lab.Functions.Kill(s.function); err == nil && killed == 0 {
			err = errors.New("no program was there to be killed")
		}
		return fmt.Sprintf("2 ENIs, %d of them attached", attached), errors.Join(err, s.lab.Front.SetFaults(nil))
	})
	t.Watch("Lambda tries again, and goes on from there: the worker is in service", func(progress func(string)) (string, error) {
		if err := s.settled(ctx, len(known)+1, progress); err != nil {
			return "", err
		}
		ended := s.lab.Functions.Invocations(s.function)[past:]
		if len(ended) == 0 || ended[0].Err == nil {
			return "", fmt.Errorf("the first attempt did not fail: %+v", ended)
		}
		s.over++
		for _, w := range s.workers() {
			if !slices.ContainsFunc(known, func(k autoscaling.Instance) bool { return k.ID == w.ID }) {
				return s.inService(w.ID) + " after its launch", nil
			}
		}
		return "", errors.New("it is a worker that was there before")
	})
	t.Check("its ENIs are those that were made before, none twice", func() (string, error) {
		if err := s.handled(ctx, 1); err != nil { // the attempt that was killed is over
			return "", err
		}
		all := s.workers()
		s.most = s.count()
		return fmt.Sprintf("%d ENIs of %d workers", 2*len(all), len(all)), s.asPlanned(all)
	})
}
