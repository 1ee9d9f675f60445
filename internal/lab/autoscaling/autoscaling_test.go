// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package autoscaling

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// bench is a group's world: three zones, a template, and what was published.
type bench struct {
	t       *testing.T
	cloud   *vpc.Cloud
	service *Service
	now     time.Time
	subnets []string
	events  []events.Event
}

func newBench(t *testing.T, lags vpc.Propagation) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	b.cloud = vpc.New(vpc.Config{Propagation: lags})
	b.service = New(Config{Cloud: b.cloud, Publish: func(e events.Event) { b.events = append(b.events, e) }})
	v, err := b.cloud.AddVPC(time.Time{}, vpc.VPCSetup{IPv4: netip.MustParsePrefix("10.10.0.0/16")})
	b.must(err)
	for i, az := range []string{"us-west-2a", "us-west-2b", "us-west-2c"} {
		s, subnetErr := b.cloud.AddSubnet(time.Time{}, vpc.SubnetSetup{
			Name: az, VPCID: v.ID, AZ: az, IPv4: netip.MustParsePrefix(fmt.Sprintf("10.10.%d.0/24", i)),
		})
		b.must(subnetErr)
		b.subnets = append(b.subnets, s.ID)
	}
	_, err = b.cloud.CreateLaunchTemplate(time.Time{}, vpc.CreateLaunchTemplateInput{Name: "workers", Data: vpc.LaunchTemplateData{
		ImageID: "ami-1", InstanceType: "m5.2xlarge", Tags: map[string]string{"Name": "worker"},
		InterfaceTags: map[string]string{"primary": "yes"}, Metadata: vpc.MetadataOptions{HTTPTokens: "required"},
	}})
	b.must(err)
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// create makes the group "g" with hooks of 60 s.
func (b *bench) create(settings GroupSettings, hooks ...Hook) {
	b.t.Helper()
	settings.Template = TemplateRef{Name: "workers"}
	if settings.Subnets == nil {
		settings.Subnets = b.subnets[:2]
	}
	for i := range hooks {
		if hooks[i].HeartbeatTimeout == 0 {
			hooks[i].HeartbeatTimeout = time.Minute
		}
	}
	b.must(b.service.CreateGroup(b.now, "g", settings, hooks))
}

// pass lets time go by, and does what becomes due at its moment.
func (b *bench) pass(d time.Duration) {
	end := b.now.Add(d)
	for {
		next, ok := b.service.Next()
		if !ok || next.After(end) {
			break
		}
		b.now = next
		b.service.Advance(next)
	}
	b.now = end
	b.service.Advance(end)
}

// states is the states of the group's instances, sorted.
func (b *bench) states() string {
	g, ok := b.service.Group("g")
	if !ok {
		return "no group"
	}
	var out []string
	for _, i := range g.Instances {
		out = append(out, string(i.State))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (b *bench) expect(want string) {
	b.t.Helper()
	if got := b.states(); got != want {
		b.t.Errorf("states %q, want %q", got, want)
	}
}

// actions are the lifecycle actions that were published, the last one last.
func (b *bench) actions() (out []detail) {
	for _, e := range b.events {
		if !strings.HasSuffix(e.DetailType, "Lifecycle Action") {
			continue
		}
		var d detail
		b.must(json.Unmarshal(e.Detail, &d))
		out = append(out, d)
	}
	return out
}

type detail struct{ LifecycleActionToken, EC2InstanceId, LifecycleTransition, LifecycleHookName string }

func (b *bench) complete(d detail, r Result) error {
	return b.service.CompleteAction(b.now, ActionRef{Group: "g", Hook: d.LifecycleHookName, Token: d.LifecycleActionToken}, r)
}

var (
	launching = Hook{Name: "launch", Transition: Launching}
	leaving   = Hook{Name: "leave", Transition: Leaving}
)

func TestALaunchWaitsForItsHook(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, launching)
	b.expect("Pending:Wait")
	got := b.events[0]
	var d map[string]string
	b.must(json.Unmarshal(got.Detail, &d))
	g, _ := b.service.Group("g")
	want := map[string]string{
		"LifecycleActionToken": d["LifecycleActionToken"], "AutoScalingGroupName": "g", "LifecycleHookName": "launch",
		"EC2InstanceId": g.Instances[0].ID, "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
		"Origin": "EC2", "Destination": "AutoScalingGroup",
	}
	if diff := cmp.Diff(want, d); diff != "" || d["LifecycleActionToken"] == "" {
		t.Error(diff, d)
	}
	if diff := cmp.Diff([]string{g.ARN}, got.Resources); diff != "" {
		t.Error(diff)
	}
	b.must(b.complete(b.actions()[0], Continue))
	b.expect("InService")
	err := b.complete(b.actions()[0], Continue)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != "ValidationError" ||
		e.Message != "No active Lifecycle Action found with token "+d["LifecycleActionToken"] {
		t.Errorf("a second completion: %v", err)
	}
}

func TestAnInstanceIsWhatTheTemplateSays(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1, Tags: []Tag{
		{Key: "kubernetes.io/cluster/c", Value: "owned", PropagateAtLaunch: true}, {Key: "hidden", Value: "x"},
	}})
	b.expect("InService")
	view := b.cloud.View(b.now)
	g, _ := b.service.Group("g")
	i, _ := view.Instance(g.Instances[0].ID)
	lt, err := view.LaunchTemplate("workers")
	b.must(err)
	want := map[string]string{
		"Name": "worker", "kubernetes.io/cluster/c": "owned", "aws:autoscaling:groupName": "g",
		"aws:ec2launchtemplate:id": lt.ID, "aws:ec2launchtemplate:version": "1",
	}
	if diff := cmp.Diff(want, i.Tags); diff != "" {
		t.Error(diff)
	}
	if i.Type != "m5.2xlarge" || i.ImageID != "ami-1" || i.Metadata.HTTPTokens != "required" {
		t.Errorf("instance %+v", i)
	}
	e := view.ENIs(i.ID)[0]
	if e.Tags["primary"] != "yes" || !e.Attachment.DeleteOnTermination {
		t.Errorf("primary ENI %+v, %+v", e, e.Attachment)
	}
	b.must(b.cloud.CreateTags(b.now, []string{i.ID}, map[string]string{"more": "1"}))
}

func TestHooksEndByThemselves(t *testing.T) {
	for name, tc := range map[string]struct {
		hook Hook
		want string // after the timeout, with the replacement's pause over
	}{
		"abandon by default": {launching, "Pending:Wait"},
		"continue":           {Hook{Name: "launch", Transition: Launching, DefaultResult: Continue}, "InService"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, vpc.Propagation{})
			b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, tc.hook)
			first := b.actions()[0].EC2InstanceId
			b.pass(time.Minute - time.Nanosecond)
			b.expect("Pending:Wait")
			b.pass(time.Nanosecond + firstPause)
			b.expect(tc.want)
			i, _ := b.cloud.View(b.now).Instance(first)
			if dead := i.State == vpc.StateTerminated; dead != (tc.want != "InService") {
				t.Errorf("the first instance is %s", i.State)
			}
		})
	}
}

func TestHeartbeatsHoldUpToTheGlobalTimeout(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	hook := launching
	hook.HeartbeatTimeout = 30 * time.Second
	b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, hook)
	ref := ActionRef{Group: "g", Hook: "launch", InstanceID: b.actions()[0].EC2InstanceId}
	start := b.now
	for b.states() == "Pending:Wait" && len(b.actions()) == 1 {
		b.pass(29 * time.Second)
		if err := b.service.Heartbeat(b.now, ref); err != nil {
			break
		}
	}
	if took := b.now.Sub(start).Round(time.Minute); took != 50*time.Minute {
		t.Errorf("held for %v, want 100 times 30 s", took)
	}
}

func TestAnAbandonedLaunchIsReplaced(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, launching, leaving)
	b.must(b.complete(b.actions()[0], Abandon))
	b.expect("Terminating:Wait")
	b.pass(firstPause)
	b.expect("Pending:Wait Terminating:Wait")
	for _, d := range b.actions()[1:] {
		b.must(b.complete(d, Continue))
	}
	b.expect("InService")
	if a := b.actions(); a[0].EC2InstanceId == a[2].EC2InstanceId {
		t.Error("the abandoned instance is in service")
	}
}

func TestScaleInKeepsTheZonesEven(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 9, DesiredCapacity: 6, Subnets: b.subnets}, leaving)
	zones := func() map[string]int {
		out := map[string]int{}
		g, _ := b.service.Group("g")
		for _, i := range g.Instances {
			if i.State == InService {
				out[i.AZ]++
			}
		}
		return out
	}
	if diff := cmp.Diff(map[string]int{"us-west-2a": 2, "us-west-2b": 2, "us-west-2c": 2}, zones()); diff != "" {
		t.Error(diff)
	}
	b.must(b.service.SetDesiredCapacity(b.now, "g", 3))
	if diff := cmp.Diff(map[string]int{"us-west-2a": 1, "us-west-2b": 1, "us-west-2c": 1}, zones()); diff != "" {
		t.Error(diff)
	}
	b.expect("InService InService InService Terminating:Wait Terminating:Wait Terminating:Wait")
	b.must(b.complete(b.actions()[0], Abandon)) // goes on all the same
	b.expect("InService InService InService Terminating:Wait Terminating:Wait")
	b.pass(time.Minute)
	b.expect("InService InService InService")
}

func TestScaleInTakesTheOldestVersionFirst(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 2, DesiredCapacity: 1, Subnets: b.subnets[:1], Template: TemplateRef{}})
	lt, err := b.cloud.View(b.now).LaunchTemplate("workers")
	b.must(err)
	_, err = b.cloud.CreateLaunchTemplateVersion(b.now, lt.ID, vpc.LaunchTemplateData{InstanceType: "m5.large"})
	b.must(err)
	b.must(b.service.UpdateGroup(b.now, "g", func(s *GroupSettings) { s.DesiredCapacity, s.Template.Version = 2, "$Latest" }))
	b.must(b.service.SetDesiredCapacity(b.now, "g", 1))
	g, _ := b.service.Group("g")
	if i := g.Instances[0]; i.Type != "m5.large" || i.Template.Version != "2" {
		t.Errorf("the one that stays: %+v", i)
	}
	if err := b.service.UpdateGroup(b.now, "g", func(s *GroupSettings) { s.Template.Version = "3" }); err == nil {
		t.Error("a version that does not exist is accepted")
	}
}

func TestProtectedInstancesStay(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 2, DesiredCapacity: 2, NewInstancesProtectedFromScaleIn: true})
	b.must(b.service.SetDesiredCapacity(b.now, "g", 0))
	b.expect("InService InService")
	g, _ := b.service.Group("g")
	b.must(b.service.UpdateGroup(b.now, "g", func(s *GroupSettings) { s.DesiredCapacity = 2 }))
	b.must(b.service.TerminateInstance(b.now, g.Instances[0].ID, true)) // a person is not held up
	b.expect("InService")
}

func TestAnInstanceKilledFromOutsideIsReplaced(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 2, DesiredCapacity: 2}, leaving)
	g, _ := b.service.Group("g")
	_, err := b.cloud.TerminateInstances(b.now, []string{g.Instances[0].ID})
	b.must(err)
	b.service.Advance(b.now)
	b.expect("InService InService Terminating:Wait")
	b.must(b.complete(b.actions()[0], Continue))
	b.expect("InService InService")
}

func TestSeveralHooksHoldTogether(t *testing.T) {
	second := Hook{Name: "second", Transition: Launching}
	for name, tc := range map[string]struct {
		first Result
		want  string
	}{"continue": {Continue, "Pending:Wait"}, "abandon": {Abandon, ""}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, vpc.Propagation{})
			b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, launching, second)
			b.must(b.complete(b.actions()[0], tc.first))
			b.expect(tc.want)
			if err := b.complete(b.actions()[1], Continue); (err == nil) != (tc.first == Continue) {
				t.Errorf("completing the second: %v", err)
			}
		})
	}
}

func TestARefusedLaunchIsTriedAgain(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	small, err := b.cloud.AddSubnet(b.now, vpc.SubnetSetup{
		VPCID: b.cloud.View(b.now).VPCs()[0].ID, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.9.0/28"),
	})
	b.must(err)
	b.create(GroupSettings{MaxSize: 20, DesiredCapacity: 12, Subnets: []string{small.ID}})
	inService := strings.TrimSpace(strings.Repeat("InService ", 11)) // 16 less 5 reserved
	b.expect(inService)
	if a := b.service.Activities("g")[0]; a.Status != "Failed" || !strings.Contains(a.Cause, "InsufficientFreeAddressesInSubnet") {
		t.Errorf("activity %+v", a)
	}
	b.must(b.service.UpdateGroup(b.now, "g", func(s *GroupSettings) { s.Subnets = append(s.Subnets, b.subnets[1]) }))
	b.pass(time.Hour)
	b.expect(inService + " InService")
}

func TestANewInstanceThatEC2DoesNotKnowYetIsTerminatedLater(t *testing.T) {
	b := newBench(t, vpc.Propagation{Describe: 3 * time.Second, IMDS: 3 * time.Second})
	b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, launching)
	b.must(b.complete(b.actions()[0], Abandon))
	b.expect("Terminating:Proceed")
	b.pass(4 * time.Second)
	b.expect("")
}

func TestGroupsGo(t *testing.T) {
	b := newBench(t, vpc.Propagation{})
	b.create(GroupSettings{MaxSize: 1, DesiredCapacity: 1}, leaving)
	err := b.service.DeleteGroup(b.now, "g", false)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != "ResourceInUse" {
		t.Errorf("got %v", err)
	}
	b.must(b.service.DeleteGroup(b.now, "g", true))
	b.expect("no group")
	for _, i := range b.cloud.View(b.now).Instances() {
		if i.State != vpc.StateTerminated {
			t.Errorf("%s is %s", i.ID, i.State)
		}
	}
	if len(b.actions()) != 0 {
		t.Error("a forced deletion ran hooks")
	}
}
