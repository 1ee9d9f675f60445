// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	aws "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	rules "github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	bus "github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// TestMain is the bootstrap of a function, too.
func TestMain(m *testing.M) {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") != "" {
		aws.Start(completeHook)
	}
	os.Exit(m.Run())
}

// completeHook lets an instance go, in the way of any function that is deployed: the SDK finds everything by itself.
func completeHook(ctx context.Context, event events.AutoScalingEvent) error {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	detail := func(name string) *string {
		s, _ := event.Detail[name].(string)
		return &s
	}
	result := "CONTINUE"
	_, err = autoscaling.NewFromConfig(cfg).CompleteLifecycleAction(ctx, &autoscaling.CompleteLifecycleActionInput{
		AutoScalingGroupName: detail("AutoScalingGroupName"), LifecycleHookName: detail("LifecycleHookName"),
		LifecycleActionToken: detail("LifecycleActionToken"), LifecycleActionResult: &result,
	})
	if err != nil && strings.Contains(err.Error(), "No active Lifecycle Action found") {
		fmt.Println("somebody was faster")
		return nil
	}
	return err
}

// hooked makes the group "g" of no instances, with a function that completes its hooks.
func hooked(t *testing.T, r *lab.Running) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pattern, err := bus.ParsePattern([]byte(`{"source":["aws.autoscaling"],"detail-type":[{"suffix":"Lifecycle Action"}],"detail":{"AutoScalingGroupName":["g"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Functions.Create(lambda.Function{Name: "hooks", Program: self, Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if err := r.Events.PutRule(bus.Rule{Name: "hooks", Pattern: &pattern, Targets: []bus.Target{r.Functions.Target("hooks")}}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if _, err := r.Cloud.CreateLaunchTemplate(now, vpc.CreateLaunchTemplateInput{Name: "workers", Data: vpc.LaunchTemplateData{InstanceType: "m5.large", ImageID: "ami-1"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Scaling.CreateGroup(now, "g", rules.GroupSettings{
		MaxSize: 5, Template: rules.TemplateRef{Name: "workers"}, Subnets: []string{r.Subnets["primary"]},
	}, []rules.Hook{{Name: "launch", Transition: rules.Launching}, {Name: "leave", Transition: rules.Leaving}}); err != nil {
		t.Fatal(err)
	}
}

// await waits until the group's instances are n, all in service.
func await(t *testing.T, r *lab.Running, n int) {
	t.Helper()
	ctx := limited(t, patience)
	for {
		changed := r.Scaling.Changed()
		g, _ := r.Scaling.Group("g")
		settled := len(g.Instances) == n
		for _, i := range g.Instances {
			settled = settled && i.State == rules.InService
		}
		if settled {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("the group has %+v; the function's log:\n%s", g.Instances, r.Functions.Logs("hooks"))
		}
	}
}

func TestABootstrapHandlesTheHooksOfAGroup(t *testing.T) {
	s, err := scenario.Parse([]byte(twoWorkers + "events: {duplicates: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := lab.Serve(t.Context(), s, lab.Config{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	hooked(t, r)
	for _, n := range []int{3, 1} {
		if err := r.Scaling.SetDesiredCapacity(time.Now(), "g", n); err != nil {
			t.Fatal(err)
		}
		await(t, r, n)
	}
	running := 0
	for _, i := range r.Cloud.View(time.Now()).Instances() {
		if i.Tags["aws:autoscaling:groupName"] == "g" && i.State == vpc.StateRunning {
			running++
		}
	}
	if running != 1 {
		t.Errorf("%d instances of the group run", running)
	}
	completed := 0
	for _, c := range r.ScalingFront.Calls() {
		if c.Action == "CompleteLifecycleAction" && c.Caller == "hooks" && c.Result == "ok" {
			completed = c.Count
		}
	}
	if completed != 5 {
		t.Errorf("%d actions completed, want 5: %+v", completed, r.ScalingFront.Calls())
	}
}
