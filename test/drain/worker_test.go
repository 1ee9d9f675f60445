// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package drain

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

const oneZone = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: nodes, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: n4, cidr: 10.10.1.0/24, az: us-west-2a}
`

// shrink has a group with the real function: when a worker is to end, its pods leave before its interfaces do.
func shrink(t *testing.T, all *cluster) {
	c, _, _ := all.in(t, "shrink")
	s, err := scenario.Parse([]byte(oneZone))
	c.must(err)
	l, err := lab.Serve(t.Context(), s, lab.Config{Log: t.Output()})
	c.must(err)
	t.Cleanup(func() { c.must(l.Close()) })
	c.must(l.Functions.Create(lambda.Function{
		Name: function, Program: bootstrap(t), Timeout: 15 * time.Minute, MemoryMB: 256, Environment: map[string]string{
			"Owner": "tests", "SubnetIds": l.Subnets["n4"], "DeleteOnTermination": "false", // so that the function takes the ENI away
			drain.VarNodes: "true", drain.VarTimeout: "2m", drain.VarClusterName: clusterName, drain.VarClusterEndpoint: c.URL,
			drain.VarClusterCA: base64.StdEncoding.EncodeToString(c.CA),
		},
	}))
	pattern, err := events.ParsePattern([]byte(`{"source":["aws.autoscaling"],"detail":{"AutoScalingGroupName":["workers"]}}`))
	c.must(err)
	c.must(l.Events.PutRule(events.Rule{Name: "hooks", Pattern: &pattern, Targets: []events.Target{l.Functions.Target(function)}}))
	_, err = l.Cloud.CreateLaunchTemplate(time.Now(), vpc.CreateLaunchTemplateInput{
		Name: "workers", Data: vpc.LaunchTemplateData{InstanceType: "m5.2xlarge", ImageID: "ami-0123456789abcdef0"},
	})
	c.must(err)
	c.must(l.Scaling.CreateGroup(time.Now(), "workers", autoscaling.GroupSettings{
		MaxSize: 1, Template: autoscaling.TemplateRef{Name: "workers"}, Subnets: []string{l.Subnets["nodes"]},
	}, []autoscaling.Hook{
		{Name: "launch", Transition: autoscaling.Launching, DefaultResult: autoscaling.Abandon, HeartbeatTimeout: 300 * time.Second},
		{Name: "leave", Transition: autoscaling.Leaving, DefaultResult: autoscaling.Continue, HeartbeatTimeout: 300 * time.Second},
	}))
	members := func() []autoscaling.Instance {
		g, _ := l.Scaling.Group("workers")
		return g.Instances
	}
	interfaces := func() (n int) {
		for _, e := range l.Cloud.View(time.Now().Add(time.Minute)).AllENIs() {
			if e.Tags["multus-vpc.io/owner"] != "" {
				n++
			}
		}
		return n
	}
	resize := func(n int, what string, holds func() bool) {
		t.Helper()
		c.must(l.Scaling.SetDesiredCapacity(time.Now(), "workers", n))
		await(t, what, holds, func() string { return l.Functions.Logs(function) })
	}

	resize(1, "a worker in service", func() bool {
		m := members()
		return len(m) == 1 && m[0].State == autoscaling.InService
	})
	worker := eni.InstanceID(members()[0].ID)
	c.node("shrinks", worker)
	c.must(c.run(t.Context(), "upf-0", "shrinks", 30, nil))

	resize(0, "the pod to be evicted", func() bool {
		pods, err := c.list(t.Context())
		c.must(err)
		return len(pods) == 1 && pods[0].leaving()
	})
	if !c.cordoned("shrinks") || interfaces() != 1 || members()[0].State != autoscaling.TerminatingWait {
		t.Errorf("while the pod ends: cordoned %t, %d interfaces, the group has %+v", c.cordoned("shrinks"), interfaces(), members())
	}
	(&actors{cluster: c}).start() // the kubelet ends the pod
	await(t, "the worker to be gone", func() bool { return len(members()) == 0 && interfaces() == 0 }, func() string { return l.Functions.Logs(function) })
	if diff := cmp.Diff([]string(nil), c.on("shrinks")); diff != "" {
		t.Error(diff)
	}
	log := l.Functions.Logs(function)
	for _, want := range []string{`"node drained"`, `"pod evicted"`, `"pod":"shrink/upf-0"`, `"drained":"yes"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
	if strings.Contains(log, "k8s-aws-v1.") || strings.Contains(log, "X-Amz-Signature") {
		t.Errorf("the log has a token:\n%s", log)
	}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool, state func() string) {
	t.Helper()
	const patience, pause = time.Minute, 20 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for began := time.Now(); !holds(); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("want %s\n%s", what, state())
		}
	}
}

// bootstrap builds the function.
func bootstrap(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bootstrap")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags=lambda.norpc", "-o", program, "github.com/multus-vpc/multus-vpc/lambda")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}
