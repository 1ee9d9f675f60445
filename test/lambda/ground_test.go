// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	function "github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// patience is for what must happen: it ends when it has.
const patience = 2 * time.Minute

// twoZones has a subnet for workers and two for pods in each zone.
const twoZones = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: nodes-a, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: nodes-b, cidr: 10.10.13.0/24, az: us-west-2b}
- {name: n4-a, cidr: 10.10.1.0/24, az: us-west-2a, reservations: [{cidr: 10.10.1.128/26, tags: {multus-vpc.io/role: pool}}]}
- {name: n4-b, cidr: 10.10.2.0/24, az: us-west-2b, reservations: [{cidr: 10.10.2.128/26, tags: {multus-vpc.io/role: pool}}]}
- {name: n6-a, cidr: 10.10.3.0/24, az: us-west-2a}
- {name: n6-b, cidr: 10.10.4.0/24, az: us-west-2b}
`

// build builds the function as `make lambda` does, for this machine.
func build(dir string) (bootstrap string, err error) {
	bootstrap = filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-trimpath", "-tags=lambda.norpc", "-ldflags=-s -w", "-o", bootstrap, "github.com/multus-vpc/multus-vpc/lambda")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bootstrap, nil
}

// ground is a lab with a group, whose hooks the function handles.
type ground struct {
	t *testing.T
	*lab.Running
	began time.Time
}

// Names on the ground.
const (
	group        = "workers"
	functionName = "attach"
	launchHook   = "launch"
	leaveHook    = "leave"
)

// newGround has a group of no instances. The scenario's YAML is added to the two zones; the variables are added to those of a
// function that gives each worker an ENI in both networks of its zone.
func newGround(t *testing.T, yaml string, variables map[string]string, change ...func(*function.Function)) *ground {
	t.Helper()
	s, err := scenario.Parse([]byte(twoZones + "functions: {retryAfter: 200ms}\n" + yaml))
	if err != nil {
		t.Fatal(err)
	}
	r, err := lab.Serve(t.Context(), s, lab.Config{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	g := &ground{t: t, Running: r, began: time.Now()}
	t.Cleanup(func() {
		if closeErr := r.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	env := map[string]string{
		"Owner": "tests", "SubnetIds": strings.Join([]string{r.Subnets["n4-a"], r.Subnets["n4-b"], r.Subnets["n6-a"], r.Subnets["n6-b"]}, ","),
	}
	maps.Copy(env, variables)
	f := function.Function{Name: functionName, Program: bootstrap, Timeout: 15 * time.Minute, MemoryMB: 256, Environment: env}
	for _, c := range change {
		c(&f)
	}
	g.must(r.Functions.Create(f))
	pattern, err := events.ParsePattern([]byte(`{"source":["aws.autoscaling"],
		"detail-type":["EC2 Instance-launch Lifecycle Action","EC2 Instance-terminate Lifecycle Action"],
		"detail":{"AutoScalingGroupName":["` + group + `"]}}`))
	g.must(err)
	g.must(r.Events.PutRule(events.Rule{Name: "hooks", Pattern: &pattern, Targets: []events.Target{r.Functions.Target(functionName)}}))
	_, err = r.Cloud.CreateLaunchTemplate(g.began, vpc.CreateLaunchTemplateInput{
		Name: "workers", Data: vpc.LaunchTemplateData{InstanceType: "m5.2xlarge", ImageID: "ami-0123456789abcdef0"},
	})
	g.must(err)
	g.must(r.Scaling.CreateGroup(g.began, group, autoscaling.GroupSettings{
		MaxSize: 20, Template: autoscaling.TemplateRef{Name: "workers"}, Subnets: []string{r.Subnets["nodes-a"], r.Subnets["nodes-b"]},
	}, []autoscaling.Hook{
		{Name: launchHook, Transition: autoscaling.Launching, DefaultResult: autoscaling.Abandon, HeartbeatTimeout: 300 * time.Second},
		{Name: leaveHook, Transition: autoscaling.Leaving, DefaultResult: autoscaling.Continue, HeartbeatTimeout: 300 * time.Second},
	}))
	return g
}

func (g *ground) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// scale sets the size of the group and waits until so many are in service and no other is there.
func (g *ground) scale(n int) []autoscaling.Instance {
	g.t.Helper()
	g.must(g.Scaling.SetDesiredCapacity(time.Now(), group, n))
	return g.settle(n)
}

func (g *ground) settle(n int) (members []autoscaling.Instance) {
	g.t.Helper()
	g.await(fmt.Sprintf("%d workers in service", n), func() bool {
		now, _ := g.Scaling.Group(group)
		members = now.Instances
		waiting := slices.ContainsFunc(members, func(i autoscaling.Instance) bool { return i.State != autoscaling.InService })
		return len(members) == n && !waiting
	})
	return members
}

// await waits until a condition holds, which changes with the group, with EC2 or with the function's log.
func (g *ground) await(what string, holds func() bool) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond) // the log tells nobody that it changes
	defer look.Stop()
	for {
		scaling, cloud := g.Scaling.Changed(), g.Cloud.Changed()
		if holds() {
			return
		}
		select {
		case <-scaling:
		case <-cloud:
		case <-look.C:
		case <-ctx.Done():
			now, _ := g.Scaling.Group(group)
			g.t.Fatalf("want %s\nthe group has %+v\nthe function's log:\n%s", what, now.Instances, g.Functions.Logs(functionName))
		}
	}
}

// interfaces describes the ENIs of a worker beside its first.
func (g *ground) interfaces(worker string) (out []string) {
	view := g.Cloud.View(time.Now().Add(time.Minute))
	i, _ := view.Instance(worker)
	for _, e := range view.ENIs(worker) {
		if e.Attachment.DeviceIndex == 0 && e.Attachment.NetworkCard == 0 {
			continue
		}
		s, _ := view.Subnet(e.SubnetID)
		network, zone, _ := strings.Cut(s.Tags["Name"], "-")
		if !strings.HasSuffix(i.AZ, zone) {
			network += " of another zone"
		}
		out = append(out, fmt.Sprintf("%d:%d %s of %s", e.Attachment.NetworkCard, e.Attachment.DeviceIndex, network, e.Tags["multus-vpc.io/owner"]))
	}
	return out
}

// want checks that the workers have exactly these interfaces, that no address is given twice, and that nothing else of ours is left.
func (g *ground) want(members []autoscaling.Instance, interfaces ...string) {
	g.t.Helper()
	for _, m := range members {
		if got := g.interfaces(m.ID); !slices.Equal(got, interfaces) {
			g.t.Errorf("%s has %q, want %q", m.ID, got, interfaces)
		}
	}
	seen := map[netip.Addr]bool{}
	total := 0
	for _, e := range g.Cloud.View(time.Now().Add(time.Minute)).AllENIs() {
		for _, a := range e.Addresses() {
			if seen[a] {
				g.t.Errorf("%s is given twice", a)
			}
			seen[a] = true
		}
		if e.Tags["multus-vpc.io/owner"] != "" {
			total++
		}
	}
	if want := len(members) * len(interfaces); total != want {
		g.t.Errorf("%d ENIs of ours, want %d", total, want)
	}
}

// line is what a decision looks like in the log.
type line struct {
	Level, Message, Result, Instance, Group, Hook, Transition, RequestID, Error string
	Reasons                                                                     []string
}

// decisions are the lines of the function's log that have a result. Each line of the program is a JSON object.
func (g *ground) decisions() (out []line) {
	g.t.Helper()
	for text := range strings.Lines(g.Functions.Logs(functionName)) {
		if !strings.HasPrefix(text, "{") {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			g.t.Fatalf("%v in %s", err, text)
		}
		if l.Result != "" {
			out = append(out, l)
		}
	}
	return out
}

// results counts the decisions.
func (g *ground) results() map[string]int {
	g.t.Helper()
	out := map[string]int{}
	for _, l := range g.decisions() {
		out[l.Result]++
	}
	return out
}
