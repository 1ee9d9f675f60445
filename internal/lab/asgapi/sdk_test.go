// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package asgapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	rules "github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// region is an account with one subnet, and the SDK's client of its Auto Scaling.
type region struct {
	service *rules.Service
	bus     *events.Bus
	client  *autoscaling.Client
	subnet  string
}

func newRegion(t *testing.T) *region {
	t.Helper()
	cloud := vpc.New(vpc.Config{})
	bus := events.New(events.Config{Account: cloud.AccountID(), Region: cloud.Region()})
	r := &region{bus: bus, service: rules.New(rules.Config{Cloud: cloud, Publish: bus.Put})}
	v, err := cloud.AddVPC(time.Time{}, vpc.VPCSetup{IPv4: netip.MustParsePrefix("10.10.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	s, err := cloud.AddSubnet(time.Time{}, vpc.SubnetSetup{VPCID: v.ID, AZ: "us-west-2a", IPv4: netip.MustParsePrefix("10.10.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	r.subnet = s.ID
	if _, err := cloud.CreateLaunchTemplate(time.Time{}, vpc.CreateLaunchTemplateInput{Name: "workers", Data: vpc.LaunchTemplateData{ImageID: "ami-1", InstanceType: "m5.large"}}); err != nil {
		t.Fatal(err)
	}
	r.client = autoscaling.New(autoscaling.Options{
		Region: "us-west-2", BaseEndpoint: aws.String("http://autoscaling"), Retryer: aws.NopRetryer{},
		HTTPClient: &http.Client{Transport: front.InProcess(Handler(r.service, cloud, time.Now))},
	})
	return r
}

// create makes the group "g" of n instances, with both hooks.
func (r *region) create(t *testing.T, n int32) {
	t.Helper()
	_, err := r.client.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String("g"), MinSize: aws.Int32(0), MaxSize: aws.Int32(5), DesiredCapacity: aws.Int32(n),
		VPCZoneIdentifier: aws.String(r.subnet),
		LaunchTemplate:    &types.LaunchTemplateSpecification{LaunchTemplateName: aws.String("workers"), Version: aws.String("$Latest")},
		Tags:              []types.Tag{{Key: aws.String("Name"), Value: aws.String("worker"), PropagateAtLaunch: aws.Bool(true)}},
		LifecycleHookSpecificationList: []types.LifecycleHookSpecification{
			{LifecycleHookName: aws.String("launch"), LifecycleTransition: aws.String(string(rules.Launching)), HeartbeatTimeout: aws.Int32(300)},
			{LifecycleHookName: aws.String("leave"), LifecycleTransition: aws.String(string(rules.Leaving)), DefaultResult: aws.String("CONTINUE")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// states are the states of the group's instances.
func (r *region) states(t *testing.T) string {
	t.Helper()
	out, err := r.client.DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"g"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.AutoScalingGroups) != 1 {
		return "no group"
	}
	var states []string
	for _, i := range out.AutoScalingGroups[0].Instances {
		states = append(states, string(i.LifecycleState))
	}
	return strings.Join(states, " ")
}

func TestAHandlerPutsAnInstanceIntoService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		pattern, err := events.ParsePattern([]byte(`{"source": ["aws.autoscaling"], "detail": {"AutoScalingGroupName": ["g"], "LifecycleHookName": [{"exists": true}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		var log []string
		handler := func(ctx context.Context, event []byte) error {
			var e struct {
				Kind   string `json:"detail-type"`
				Detail struct{ LifecycleActionToken, LifecycleHookName, EC2InstanceId string }
			}
			if err := json.Unmarshal(event, &e); err != nil {
				return err
			}
			log = append(log, e.Kind)
			time.Sleep(10 * time.Second) // the work
			_, err := r.client.CompleteLifecycleAction(ctx, &autoscaling.CompleteLifecycleActionInput{
				AutoScalingGroupName: aws.String("g"), LifecycleHookName: &e.Detail.LifecycleHookName,
				LifecycleActionToken: &e.Detail.LifecycleActionToken, LifecycleActionResult: aws.String("CONTINUE"),
			})
			return err
		}
		if err := r.bus.PutRule(events.Rule{Name: "workers", Pattern: &pattern, Targets: []events.Target{handler}}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		running.Go(func() { r.bus.Run(ctx) })
		running.Go(func() { r.service.Run(ctx) })

		r.create(t, 1)
		if got := r.states(t); got != "Pending:Wait" {
			t.Errorf("at once: %s", got)
		}
		time.Sleep(11 * time.Second)
		if got := r.states(t); got != "InService" {
			t.Errorf("after the handler: %s", got)
		}
		if _, err := r.client.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: aws.String("g"), DesiredCapacity: aws.Int32(0)}); err != nil {
			t.Fatal(err)
		}
		if got := r.states(t); got != "Terminating:Wait" {
			t.Errorf("scaled in: %s", got)
		}
		time.Sleep(11 * time.Second)
		if got := r.states(t); got != "" {
			t.Errorf("in the end: %s", got)
		}
		if diff := cmp.Diff([]string{"EC2 Instance-launch Lifecycle Action", "EC2 Instance-terminate Lifecycle Action"}, log); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEveryActionThroughTheSDK(t *testing.T) {
	r := newRegion(t)
	r.create(t, 2)
	ctx, g := t.Context(), aws.String("g")
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	instances, err := r.client.DescribeAutoScalingInstances(ctx, &autoscaling.DescribeAutoScalingInstancesInput{})
	must(nil, err)
	if len(instances.AutoScalingInstances) != 2 || *instances.AutoScalingInstances[0].HealthStatus != "HEALTHY" {
		t.Fatalf("%+v", instances.AutoScalingInstances)
	}
	id := instances.AutoScalingInstances[0].InstanceId
	must(r.client.RecordLifecycleActionHeartbeat(ctx, &autoscaling.RecordLifecycleActionHeartbeatInput{AutoScalingGroupName: g, LifecycleHookName: aws.String("launch"), InstanceId: id}))
	must(r.client.CompleteLifecycleAction(ctx, &autoscaling.CompleteLifecycleActionInput{
		AutoScalingGroupName: g, LifecycleHookName: aws.String("launch"), InstanceId: id, LifecycleActionResult: aws.String("CONTINUE"),
	}))
	must(r.client.PutLifecycleHook(ctx, &autoscaling.PutLifecycleHookInput{AutoScalingGroupName: g, LifecycleHookName: aws.String("leave"), HeartbeatTimeout: aws.Int32(60)}))
	hooks, err := r.client.DescribeLifecycleHooks(ctx, &autoscaling.DescribeLifecycleHooksInput{AutoScalingGroupName: g})
	must(nil, err)
	var got []string
	for _, h := range hooks.LifecycleHooks {
		got = append(got, strings.Join([]string{
			*h.LifecycleHookName, *h.LifecycleTransition, *h.DefaultResult,
			(time.Duration(*h.HeartbeatTimeout) * time.Second).String(), (time.Duration(*h.GlobalTimeout) * time.Second).String(),
		}, " "))
	}
	if diff := cmp.Diff([]string{
		"launch autoscaling:EC2_INSTANCE_LAUNCHING ABANDON 5m0s 8h20m0s", "leave autoscaling:EC2_INSTANCE_TERMINATING CONTINUE 1m0s 1h40m0s",
	}, got); diff != "" {
		t.Error(diff)
	}
	must(r.client.TerminateInstanceInAutoScalingGroup(ctx, &autoscaling.TerminateInstanceInAutoScalingGroupInput{InstanceId: id, ShouldDecrementDesiredCapacity: aws.Bool(true)}))
	must(r.client.DeleteLifecycleHook(ctx, &autoscaling.DeleteLifecycleHookInput{AutoScalingGroupName: g, LifecycleHookName: aws.String("leave")}))
	must(r.client.UpdateAutoScalingGroup(ctx, &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: g, MaxSize: aws.Int32(0), MinSize: aws.Int32(0)}))
	out, err := r.client.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{})
	must(nil, err)
	if a := out.AutoScalingGroups[0]; *a.DesiredCapacity != 0 || a.AvailabilityZones[0] != "us-west-2a" || *a.Tags[0].Key != "Name" || a.CreatedTime == nil {
		t.Errorf("%+v", a)
	}
	activities, err := r.client.DescribeScalingActivities(ctx, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: g, MaxRecords: aws.Int32(1)})
	must(nil, err)
	if a := activities.Activities[0]; *a.Description != "Terminating EC2 instance: "+*id || activities.NextToken == nil {
		t.Errorf("%s, next %v", *a.Description, activities.NextToken)
	}
	must(r.client.UpdateAutoScalingGroup(ctx, &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: g, MaxSize: aws.Int32(1)}))
	must(r.client.PutWarmPool(ctx, &autoscaling.PutWarmPoolInput{AutoScalingGroupName: g, PoolState: types.WarmPoolStateRunning}))
	warm, err := r.client.DescribeWarmPool(ctx, &autoscaling.DescribeWarmPoolInput{AutoScalingGroupName: g})
	must(nil, err)
	if len(warm.Instances) != 1 || warm.Instances[0].LifecycleState != types.LifecycleStateWarmedPendingWait || warm.WarmPoolConfiguration.PoolState != "Running" {
		t.Errorf("%+v", warm)
	}
	must(r.client.DeleteWarmPool(ctx, &autoscaling.DeleteWarmPoolInput{AutoScalingGroupName: g}))
	must(r.client.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: g, ForceDelete: aws.Bool(true)}))
	if got := r.states(t); got != "no group" {
		t.Error(got)
	}
}

func TestWhatIsNotImplementedIsRefused(t *testing.T) {
	r := newRegion(t)
	r.create(t, 0)
	g := aws.String("g")
	for name, tc := range map[string]struct {
		call func() error
		want string
	}{
		"an action": {func() error {
			_, err := r.client.DescribePolicies(t.Context(), &autoscaling.DescribePoliciesInput{})
			return err
		}, "InvalidAction: Could not find operation DescribePolicies for version 2011-01-01"},
		"a parameter": {func() error {
			_, err := r.client.UpdateAutoScalingGroup(t.Context(), &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: g, HealthCheckType: aws.String("ELB")})
			return err
		}, "ValidationError: The parameter HealthCheckType is not recognized"},
		"a stopped pool": {func() error {
			_, err := r.client.PutWarmPool(t.Context(), &autoscaling.PutWarmPoolInput{AutoScalingGroupName: g})
			return err
		}, "ValidationError: The lab's warm pools have the PoolState Running: its instances cannot be stopped"},
		"no group": {func() error {
			_, err := r.client.SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: aws.String("h"), DesiredCapacity: aws.Int32(1)})
			return err
		}, "ValidationError: AutoScalingGroup name not found - AutoScalingGroup 'h' not found"},
		"too many": {func() error {
			_, err := r.client.SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: g, DesiredCapacity: aws.Int32(6)})
			return err
		}, "ValidationError: New SetDesiredCapacity value 6 is above max value 5 for the AutoScalingGroup."},
		"no wait": {func() error {
			_, err := r.client.CompleteLifecycleAction(t.Context(), &autoscaling.CompleteLifecycleActionInput{
				AutoScalingGroupName: g, LifecycleHookName: aws.String("launch"), InstanceId: aws.String("i-1"), LifecycleActionResult: aws.String("CONTINUE"),
			})
			return err
		}, "ValidationError: No active Lifecycle Action found with instance ID i-1"},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := errors.AsType[smithy.APIError](tc.call())
			if !ok {
				t.Fatal("no API error")
			}
			if got := e.ErrorCode() + ": " + e.ErrorMessage(); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	r := newRegion(t)
	h := Handler(r.service, vpc.New(vpc.Config{}), time.Now)
	for query, want := range map[string]string{
		"":                          "MissingAction",
		"Action=SetDesiredCapacity": "InvalidAction",
		"Action=SetDesiredCapacity&Version=2011-01-01&AutoScalingGroupName=g":                   "must not be null",
		"Action=SetDesiredCapacity&Version=2011-01-01&AutoScalingGroupName=g&DesiredCapacity=x": "must be an integer",
		"Action=DeleteAutoScalingGroup&Version=2011-01-01&AutoScalingGroupName=g&ForceDelete=1": "must be true or false",
		"Action=DescribeAutoScalingGroups&Version=2011-01-01&NextToken=x":                       "InvalidNextToken",
		"Action=DescribeAutoScalingGroups&Version=2011-01-01&MaxRecords=0":                      "MaxRecords",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?"+query, nil))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s", query, w.Code, w.Body, want)
		}
	}
}
