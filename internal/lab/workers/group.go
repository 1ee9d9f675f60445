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
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/iam"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// scale gives a group a size and waits until so many instances are in service, and no other is there.
func (s *story) scale(ctx context.Context, size int, progress func(string)) error {
	if s.function == "" {
		return errors.New("there is no group: see above")
	}
	if err := s.lab.Scaling.SetDesiredCapacity(time.Now(), groupName, size); err != nil {
		return err
	}
	return s.settled(ctx, size, progress)
}

// settled waits until the group has so many instances, all in service.
func (s *story) settled(ctx context.Context, size int, progress func(string)) error {
	begin := time.Now()
	return s.await(ctx, func() error {
		g, _ := s.lab.Scaling.Group(groupName)
		var waiting []string
		for _, i := range g.Instances {
			if i.State != autoscaling.InService {
				waiting = append(waiting, i.ID+" is "+string(i.State))
			} else if at, ok := s.lab.Cloud.View(time.Now()).Instance(i.ID); ok && s.seen[i.ID] == 0 {
				s.seen[i.ID] = time.Since(at.LaunchTime)
			}
		}
		if progress(fmt.Sprintf("%d of %d in service, %s", len(g.Instances)-len(waiting), size, teller.Since(begin))); len(waiting) > 0 {
			return errors.New(strings.Join(waiting, ", "))
		}
		if len(g.Instances) != size {
			return fmt.Errorf("%d in service, want %d", len(g.Instances), size)
		}
		return nil
	})
}

// await looks until it holds, whenever something has changed in the account. When it never does the error says what was
// wrong at last.
func (s *story) await(ctx context.Context, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Patience)
	defer cancel()
	tick := time.NewTicker(lookInterval) // for functions, which tell nobody what they do
	defer tick.Stop()
	for {
		group, cloud := s.lab.Scaling.Changed(), s.lab.Cloud.Changed()
		err := look()
		if err == nil {
			return nil
		}
		select {
		case <-group:
		case <-cloud:
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", s.cfg.Patience, err)
		}
	}
}

const lookInterval = 200 * time.Millisecond

// handled waits until so many more invocations of the function are over, and wants all of them to have succeeded.
func (s *story) handled(ctx context.Context, more int) error {
	err := s.await(ctx, func() error {
		if n := len(s.lab.Functions.Invocations(s.function)) - s.over; n != more {
			return fmt.Errorf("%d invocations are over, want %d", n, more)
		}
		return nil
	})
	all := s.lab.Functions.Invocations(s.function)
	for _, i := range all[min(s.over, len(all)):] {
		err = errors.Join(err, i.Err)
	}
	s.over = len(all)
	return err
}

// workers are the instances of the group, by zone and ID.
func (s *story) workers() []autoscaling.Instance {
	g, _ := s.lab.Scaling.Group(groupName)
	slices.SortFunc(g.Instances, func(a, b autoscaling.Instance) int { return strings.Compare(a.AZ+a.ID, b.AZ+b.ID) })
	return g.Instances
}

// leastPrivilege: the function was refused nothing but what EC2 did not know yet, whose tags are not known either, and would be refused
// what concerns others.
func (s *story) leastPrivilege() (string, error) {
	made := 0
	for endpoint, refusal := range map[*front.Front]string{s.lab.Front: "UnauthorizedOperation", s.lab.ScalingFront: "AccessDenied"} {
		for _, c := range endpoint.Calls() {
			if c.Caller != s.function {
				continue
			}
			if made += c.Count; c.Result == refusal && !slices.ContainsFunc(endpoint.Calls(), func(o front.CallCount) bool {
				return o.Caller == c.Caller && o.Action == c.Action && o.Result == "ok"
			}) {
				return "", fmt.Errorf("%s is refused %s", s.function, c.Action)
			}
		}
	}
	arn := func(kind string) string {
		return fmt.Sprintf("arn:aws:ec2:%s:%s:%s", s.lab.Cloud.Region(), s.lab.Cloud.AccountID(), kind)
	}
	theirs := map[string]string{"aws:ResourceTag/" + tagOwner: "somebody-else", "aws:ResourceTag/aws:autoscaling:groupName": "somebody-else"}
	for _, q := range []iam.Request{
		{Action: "ec2:DeleteNetworkInterface", Resource: arn("network-interface/eni-1"), Keys: theirs},
		{Action: "ec2:AttachNetworkInterface", Resource: arn("instance/i-1"), Keys: theirs},
		{Action: "ec2:CreateNetworkInterface", Resource: arn("subnet/subnet-1"), Keys: map[string]string{"ec2:Vpc": arn("vpc/" + s.lab.VPC)}},
		{Action: "ec2:CreateTags", Resource: arn("network-interface/eni-1"), Keys: theirs},
		{Action: "ec2:TerminateInstances", Resource: arn("instance/i-1")},
	} {
		if s.lab.Roles.Judge(s.function, []iam.Request{q}) == nil {
			return "", fmt.Errorf("%s may %s of somebody else", s.function, q.Action)
		}
	}
	return fmt.Sprintf("%d calls, none refused for good", made), nil
}

// tally counts calls of a function to one endpoint.
type tally struct {
	reads, changes int
	byAction       map[string]int // those that succeeded
}

func (s *story) calls(endpoint *front.Front, function string) tally {
	c := tally{byAction: map[string]int{}}
	for _, line := range endpoint.Calls() {
		if line.Caller != function {
			continue
		}
		if strings.HasPrefix(line.Action, "Describe") || strings.HasPrefix(line.Action, "Get") {
			c.reads += line.Count
		} else {
			c.changes += line.Count
		}
		if line.Result == "ok" {
			c.byAction[line.Action] += line.Count
		}
	}
	return c
}

// ours are the ENIs with a tag.
func ours(view vpc.View, key, value string) []vpc.ENI {
	return slices.DeleteFunc(view.AllENIs(), func(e vpc.ENI) bool { return e.Tags[key] != value })
}
