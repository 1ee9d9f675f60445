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

	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

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
		if err := s.handled(ctx, 2*3); err != nil {
			return "", err
		}
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
	var loose looseENIs
	if !t.Check("an orphan, one that a living worker has not got yet, and somebody else's", func() (_ string, err error) {
		loose, err = s.looseENIs()
		return strings.Join(loose[:], ", "), err
	}) {
		return
	}
	t.Watch("the hourly sweep deletes the orphan", func(func(string)) (string, error) {
		// What was made is shown one lag later, and a sweep acts on what it is shown.
		if err := pause(ctx, s.lab.Cloud.Lags().Describe); err != nil {
			return "", err
		}
		if err := s.sweep(); err != nil {
			return "", err
		}
		err := s.handled(ctx, 2)
		if _, there := s.lab.Cloud.View(time.Now()).ENI(loose[0]); there {
			err = errors.Join(err, fmt.Errorf("%s is there", loose[0]))
		}
		return loose[0], err
	})
	t.Check("and leaves alone what a living worker may need, and what is not ours", func() (string, error) {
		for _, id := range loose[1:] {
			if _, there := s.lab.Cloud.View(time.Now()).ENI(id); !there {
				return "", fmt.Errorf("%s is gone", id)
			}
		}
		return "the end of the worker takes the first", s.lab.Cloud.DeleteNetworkInterface(time.Now(), loose[2])
	})
}

// looseENIs are ENIs that are attached to nothing: an orphan, as a function leaves it that was killed with no retry left;
// one of a worker that lives; and one of another owner.
type looseENIs [3]string

func (s *story) looseENIs() (made looseENIs, err error) {
	subnets := s.subnets(s.lab.Cloud.View(time.Now()))
	i := slices.IndexFunc(subnets, func(n vpc.Subnet) bool { return n.Tags["multus"] == "1" })
	for n, tags := range []map[string]string{
		{tagOwner: groupName, tagInstance: "i-0123456789abcdef0"},
		{tagOwner: groupName, tagInstance: s.workers()[0].ID},
		{tagOwner: "somebody-else", tagInstance: "i-0123456789abcdef0"},
	} {
		tags[tagSlot], tags[tagNoManage], tags[tagLaunched] = "0:1", "true", time.Now().Add(-3*time.Hour).UTC().Format(time.RFC3339)
		e, err := s.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{SubnetID: subnets[i].ID, Tags: tags})
		if err != nil {
			return made, err
		}
		made[n] = e.ID
	}
	return made, nil
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
