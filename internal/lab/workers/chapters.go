// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workers

import (
	"context"
	"encoding/json"
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
	var past int
	err := s.await(ctx, func() error {
		all := s.lab.Functions.Invocations(s.function)
		past = len(all)
		for _, i := range all {
			if i.Err != nil {
				return i.Err
			}
		}
		if past != 2*n {
			return fmt.Errorf("%d invocations for %d launches, want two for each", past, n)
		}
		return nil
	})
	answers := s.calls(s.lab.ScalingFront, s.function).byAction["CompleteLifecycleAction"]
	if err == nil && answers != n {
		err = fmt.Errorf("%d hooks answered, want %d", answers, n)
	}
	return fmt.Sprintf("%d invocations, %d hooks answered", past, answers), errors.Join(err, s.asPlanned(s.workers()))
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
		for _, w := range s.workers() {
			if !slices.ContainsFunc(known, func(k autoscaling.Instance) bool { return k.ID == w.ID }) {
				return s.inService(w.ID) + " after its launch", nil
			}
		}
		return "", errors.New("it is a worker that was there before")
	})
	t.Check("its ENIs are those that were made before, none twice", func() (string, error) {
		all := s.workers()
		s.most = s.count()
		return fmt.Sprintf("%d ENIs of %d workers", 2*len(all), len(all)), s.asPlanned(all)
	})
}

// abandoned is step 4: a worker that cannot have its ENIs.
func (s *story) abandoned(ctx context.Context) {
	t := s.teller
	t.Step(4, "A worker that cannot have its ENIs: a node group of a type with too few")
	if s.function == "" {
		t.Skip("a second node group")
		return
	}
	const stack, group = "small", cluster + "-small"
	var function string
	if !t.Check("a second stack, of m4.large", func() (string, error) {
		made, err := s.nodeGroup(ctx, stack, map[string]string{"NodeGroupName": "small", "NodeInstanceType": "m4.large"})
		f, _ := made.Find("LambdaAttachENI")
		function = f.Ref
		return fmt.Sprintf("%d resources", len(made.Resources)), err
	}) {
		return
	}
	t.Watch("its worker is abandoned, and the log says why", func(func(string)) (reason string, err error) {
		if err = s.lab.Scaling.SetDesiredCapacity(time.Now(), group, 1); err != nil {
			return "", err
		}
		err = s.await(ctx, func() error {
			if reason = verdictOf(s.lab.Functions.Logs(function)); reason == "" {
				return errors.New("nothing is abandoned")
			}
			return nil
		})
		return reason, err
	})
	t.Check("no ENI was made for it", func() (string, error) {
		c := s.calls(s.lab.Front, function)
		if left := ours(s.lab.Cloud.View(time.Now()), tagOwner, group); c.changes > 0 || len(left) > 0 {
			return "", fmt.Errorf("%d calls that change something, %d ENIs", c.changes, len(left))
		}
		return "no call that changes something", nil
	})
	t.Watch("the stack is deleted", func(func(string)) (string, error) {
		limited, cancel := context.WithTimeout(ctx, s.cfg.Patience)
		defer cancel()
		return "", s.lab.Stacks.Delete(limited, stack)
	})
}

// verdictOf finds the line of a function's log that says why an instance was abandoned.
func verdictOf(log string) (reason string) {
	for line := range strings.Lines(log) {
		var said struct {
			Result  string   `json:"result"`
			Reasons []string `json:"reasons"`
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Result == "ABANDON" {
			return strings.Join(said.Reasons, "; ")
		}
	}
	return ""
}

// shrink is step 5: from four workers to one.
func (s *story) shrink(ctx context.Context) {
	t := s.teller
	t.Step(5, "Down to one worker")
	t.Watch("the group goes from 4 to 1: the hooks let the others go", func(progress func(string)) (string, error) {
		begin := time.Now()
		err := s.scale(ctx, 1, progress)
		return "after " + teller.Since(begin), err
	})
	t.Check("their ENIs went with them, the last worker has its own", func() (string, error) {
		if n := len(s.lab.Cloud.View(time.Now()).AllENIs()); n != 3 {
			return "", fmt.Errorf("%d ENIs, want the 3 of one worker", n)
		}
		return "3 ENIs in the VPC", s.asPlanned(s.workers())
	})
}

// swept is step 6: an ENI without a worker.
func (s *story) swept(ctx context.Context) {
	t := s.teller
	t.Step(6, "An ENI whose worker is gone")
	if s.function == "" || len(s.workers()) == 0 {
		t.Skip("an orphan is swept")
		return
	}
	orphan, bystander, err := s.orphans()
	if err != nil {
		t.Check("an orphan, and somebody else's ENI", func() (string, error) { return "", err })
		return
	}
	t.Watch("the hourly sweep deletes it", func(func(string)) (string, error) {
		// What was made is shown one lag later, and a sweep acts on what it is shown.
		if err := pause(ctx, s.lab.Cloud.Lags().Describe); err != nil {
			return "", err
		}
		if err := s.sweep(); err != nil {
			return "", err
		}
		err := s.await(ctx, func() error {
			if _, there := s.lab.Cloud.View(time.Now()).ENI(orphan); there {
				return fmt.Errorf("%s is there", orphan)
			}
			return nil
		})
		return orphan, err
	})
	t.Check("and leaves alone what is not ours, and what workers have", func() (string, error) {
		if _, there := s.lab.Cloud.View(time.Now()).ENI(bystander); !there {
			return "", fmt.Errorf("%s of another owner is gone", bystander)
		}
		if err := s.lab.Cloud.DeleteNetworkInterface(time.Now(), bystander); err != nil {
			return "", err
		}
		return "", s.asPlanned(s.workers())
	})
}

// orphans makes an ENI as a function leaves it that was killed with no retry left, and one of another owner.
func (s *story) orphans() (orphan, bystander string, err error) {
	view := s.lab.Cloud.View(time.Now())
	i := slices.IndexFunc(s.subnets(view), func(n vpc.Subnet) bool { return n.Tags["multus"] == "1" })
	made := make([]string, 2)
	for n, owner := range []string{groupName, "somebody-else"} {
		e, err := s.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{
			SubnetID: s.subnets(view)[i].ID, Tags: map[string]string{
				tagOwner: owner, tagInstance: "i-0123456789abcdef0", tagSlot: "0:1", tagNoManage: "true",
				tagLaunched: time.Now().Add(-3 * time.Hour).UTC().Format(time.RFC3339),
			},
		})
		if err != nil {
			return "", "", err
		}
		made[n] = e.ID
	}
	return made[0], made[1], nil
}

// sweep lets the turn of the hourly rule come.
func (s *story) sweep() error {
	for _, stack := range s.lab.Stacks.Stacks() {
		if rule, ok := stack.Find("SweepRule"); ok {
			return s.lab.Events.Turn(rule.Ref)
		}
	}
	return errors.New("no stack has the rule SweepRule")
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
