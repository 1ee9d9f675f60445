// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// scaling is a lab that runs in a bubble, with the group "g" of none up to 100 workers in two zones, and a function that
// handles its hooks.
func scaling(t *testing.T, edit func(*Scenario), handler func(context.Context, *sdk.Client, hookDetail) error) (l *Lab, stop func()) {
	t.Helper()
	s := parse(t, []byte(twoSubnets))
	if edit != nil {
		edit(s)
	}
	l = build(t, s)
	client := sdk.New(sdk.Options{
		Region: "us-west-2", BaseEndpoint: aws.String("http://autoscaling"), HTTPClient: &http.Client{Transport: l.AutoScaling()}, Retryer: aws.NopRetryer{},
	})
	handle := func(ctx context.Context, event []byte) ([]byte, error) {
		var e struct{ Detail hookDetail }
		if err := json.Unmarshal(event, &e); err != nil {
			return nil, err
		}
		return nil, handler(ctx, client, e.Detail)
	}
	pattern, err := events.ParsePattern([]byte(`{"source":["aws.autoscaling"],"detail":{"LifecycleActionToken":[{"exists":true}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		l.Functions.Create(lambda.Function{Name: "hooks", Timeout: time.Minute, Handler: handle}),
		l.Events.PutRule(events.Rule{Name: "hooks", Pattern: &pattern, Targets: []events.Target{l.Functions.Target("hooks")}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Cloud.CreateLaunchTemplate(time.Now(), vpc.CreateLaunchTemplateInput{Name: "workers", Data: vpc.LaunchTemplateData{InstanceType: "m5.large"}}); err != nil {
		t.Fatal(err)
	}
	hook := func(name string, tr autoscaling.Transition) autoscaling.Hook {
		return autoscaling.Hook{Name: name, Transition: tr, HeartbeatTimeout: 5 * time.Minute}
	}
	if err := l.Scaling.CreateGroup(time.Now(), "g", autoscaling.GroupSettings{
		MaxSize: 100, Template: autoscaling.TemplateRef{Name: "workers"}, Subnets: []string{l.Subnets["primary"], l.Subnets["elsewhere"]},
	}, []autoscaling.Hook{hook("launch", autoscaling.Launching), hook("leave", autoscaling.Leaving)}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	return l, func() {
		cancel()
		running.Wait()
	}
}

type hookDetail struct{ LifecycleActionToken, LifecycleHookName, AutoScalingGroupName, EC2InstanceId string }

// complete takes ten seconds and a bit for its work and says CONTINUE. Somebody else may have said so before. No two take
// the same time: the race detector's runtime (Go 1.26) crashes now and then when many timers of a bubble fire at one moment.
func complete(ctx context.Context, client *sdk.Client, d hookDetail) error {
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.LifecycleActionToken)) // never fails
	time.Sleep(10*time.Second + time.Duration(h.Sum32()))
	_, err := client.CompleteLifecycleAction(ctx, &sdk.CompleteLifecycleActionInput{
		AutoScalingGroupName: &d.AutoScalingGroupName, LifecycleHookName: &d.LifecycleHookName,
		LifecycleActionToken: &d.LifecycleActionToken, LifecycleActionResult: aws.String("CONTINUE"),
	})
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "ValidationError" {
		return nil
	}
	return err
}

func (l *Lab) resize(t *testing.T, n int) {
	t.Helper()
	if err := l.Scaling.SetDesiredCapacity(time.Now(), "g", n); err != nil {
		t.Fatal(err)
	}
}

// inService counts the group's instances by state and zone.
func (l *Lab) inService() map[string]int {
	out := map[string]int{}
	g, _ := l.Scaling.Group("g")
	for _, i := range g.Instances {
		out[string(i.State)+" "+i.AZ]++
	}
	return out
}

func TestWorkersComeAndGo(t *testing.T) {
	for name, tc := range map[string]struct {
		workers int
		edit    func(*Scenario)
	}{
		"a hundred": {100, nil},
		"twice and unsorted": {20, func(s *Scenario) {
			s.Events = events.Mischief{Duplicates: 1, Delay: time.Minute}
		}},
		"replies are lost": {20, func(s *Scenario) {
			s.AutoScaling.Faults = []front.Fault{{Action: "CompleteLifecycleAction", Probability: 0.5, Kind: front.LostReply}}
		}},
		"the endpoint fails": {20, func(s *Scenario) {
			s.AutoScaling.Faults = []front.Fault{{Action: "CompleteLifecycleAction", Nth: 1, Count: 20, Kind: front.ServerError}}
		}},
		"throttled": {20, func(s *Scenario) {
			s.AutoScaling.Throttle.Actions = map[string]front.Bucket{"CompleteLifecycleAction": *front.NewBucket(10, 0.2)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, stop := scaling(t, tc.edit, complete)
				defer stop()
				l.resize(t, tc.workers)
				time.Sleep(4 * time.Minute)
				half := tc.workers / 2
				if diff := cmp.Diff(map[string]int{"InService us-west-2a": half, "InService us-west-2b": half}, l.inService()); diff != "" {
					t.Fatal(diff)
				}
				l.resize(t, 1)
				time.Sleep(4 * time.Minute)
				if got := l.inService(); len(got) != 1 || slices.Collect(maps.Values(got))[0] != 1 {
					t.Error(got)
				}
				if n := len(l.Cloud.View(time.Now()).AllENIs()); n != 1 {
					t.Errorf("%d ENIs are left", n)
				}
			})
		})
	}
}

func TestAHandlerThatAlwaysFailsGetsNewInstancesMoreAndMoreSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := scaling(t, nil, func(context.Context, *sdk.Client, hookDetail) error { return errors.New("the subnet is full") })
		defer stop()
		l.resize(t, 1)
		time.Sleep(time.Hour)
		launched := len(l.Cloud.View(time.Now()).Instances())
		if launched < 4 || launched > 12 { // each is held for five minutes, and then there is a pause
			t.Errorf("%d launches in an hour", launched)
		}
		if n := len(l.Functions.Invocations("hooks")); n < 3*2*(launched-2) {
			t.Errorf("%d invocations for %d launches, want three for each of two hooks", n, launched)
		}
	})
}

func TestTheWeatherOfAutoScaling(t *testing.T) {
	s := parse(t, []byte(twoSubnets))
	s.AutoScaling.Throttle.Actions = map[string]front.Bucket{"DescribeLifecycleHooks": *front.NewBucket(0, 0)}
	s.AutoScaling.Faults = []front.Fault{{Action: "DescribeAutoScalingGroups", Kind: front.ServerError}}
	l := build(t, s)
	client := sdk.New(sdk.Options{
		Region: "us-west-2", BaseEndpoint: aws.String("http://autoscaling"), HTTPClient: &http.Client{Transport: l.AutoScaling()}, Retryer: aws.NopRetryer{},
	})
	_, throttled := client.DescribeLifecycleHooks(t.Context(), &sdk.DescribeLifecycleHooksInput{AutoScalingGroupName: aws.String("g")})
	_, failed := client.DescribeAutoScalingGroups(t.Context(), &sdk.DescribeAutoScalingGroupsInput{})
	for want, err := range map[string]error{"Throttling: Rate exceeded": throttled, "Unavailable: The service is unavailable. Please try again shortly.": failed} {
		e, ok := errors.AsType[smithy.APIError](err)
		if !ok || e.ErrorCode()+": "+e.ErrorMessage() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	var results []string
	for _, c := range l.ScalingFront.Calls() {
		results = append(results, c.Action+" "+c.Result)
	}
	if diff := cmp.Diff([]string{"DescribeAutoScalingGroups Unavailable", "DescribeLifecycleHooks Throttling"}, results); diff != "" {
		t.Error(diff)
	}
}

func TestLaunchedInstancesHaveTheirMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := scaling(t, nil, complete)
		defer stop()
		l.resize(t, 1)
		g, _ := l.Scaling.Group("g")
		id := g.Instances[0].ID
		client := &http.Client{Transport: front.InProcess(l.MetadataOf(id))}
		ask := func(method, path string, header, value string) string {
			r, err := http.NewRequestWithContext(t.Context(), method, "http://imds"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set(header, value)
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		token := ask(http.MethodPut, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
		if got := ask(http.MethodGet, "/latest/meta-data/instance-id", "X-aws-ec2-metadata-token", token); got != id {
			t.Errorf("the metadata of %s is of %s", id, got)
		}
	})
}

func TestScalingKeysAreChecked(t *testing.T) {
	_, err := Parse([]byte(twoSubnets + `
autoScaling: {throttle: {AssignPrivateIpAddresses: {burst: 1, refill: 1}}, faults: [{action: PutLifecycleHook, kind: lost}]}
events: {duplicates: -1, delay: -1s, order: random}
functions: {retryAfter: -1s}
`))
	wrong, ok := errors.AsType[*strictyaml.Error](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	for _, line := range []string{
		"events.order: unknown key (known here: duplicates, delay)",
		`autoScaling.throttle.AssignPrivateIpAddresses: "AssignPrivateIpAddresses" is not an action that the lab knows (CompleteLifecycleAction, `,
		`autoScaling.faults[0].kind: "lost" is not one of`, "events.duplicates: must not be negative", "events.delay: must not be negative",
		"functions.retryAfter: must not be negative",
	} {
		if !strings.Contains("\n"+wrong.Error(), "\n"+line) {
			t.Errorf("no line begins with %s in\n%v", line, wrong)
		}
	}
}
