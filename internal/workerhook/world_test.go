// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/asghooks"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
	"github.com/multus-vpc/multus-vpc/internal/workerhook"
)

const oneZone = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: nodes, cidr: 10.10.16.0/20, az: us-west-2a}
- {name: n4, cidr: 10.10.1.0/24, az: us-west-2a, reservations: [{cidr: 10.10.1.128/26, tags: {multus-vpc.io/role: pool}}]}
- {name: n6, cidr: 10.10.2.0/24, az: us-west-2a}
- {name: tiny4, cidr: 10.10.5.0/28, az: us-west-2a}
- {name: tiny6, cidr: 10.10.6.0/28, az: us-west-2a}
`

// lagging shows a change three seconds late.
const lagging = "ec2: {latency: 80ms, propagation: {route: 1s, imds: 3s, describe: 3s}}\n"

// world is a lab in a synctest bubble with a group, whose hooks a handler with the real clients handles as the lab's function.
type world struct {
	t   *testing.T
	lab *scenario.Lab
	cfg workereni.Config

	workers workerhook.Workers // instead of the flow's; nil for that
	quiet   bool               // the test's own output has no log

	mu       sync.Mutex
	killer   *killer
	log      strings.Builder
	payloads [][]byte // of lifecycle actions
}

// killer ends the first invocation for a transition at its n-th call, of EC2 or Auto Scaling.
type killer struct {
	transition lifecycle.Transition
	n          int
	after      bool // the call takes effect, the reply is lost

	used, fired bool
	seen        int
}

func newWorld(t *testing.T, yaml string) *world {
	t.Helper()
	s, err := scenario.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, lab: lab}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lab.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return w
}

// give has each worker get an ENI in n4, and one in n6 that does not end with it.
func (w *world) give() {
	n4, n6 := w.on("n4"), w.on("n6")
	n4.Addressing, n6.DeleteOnTermination = workereni.Start, false
	w.cfg = workereni.Config{Owner: "tests", Interfaces: []workereni.Interface{n4, n6}}
}

func (w *world) on(subnet string) workereni.Interface {
	return workereni.Interface{Subnet: eni.SubnetID(w.lab.Subnets[subnet]), Addressing: workereni.DHCP, DeleteOnTermination: true}
}

// deploy makes the function, its rule and its schedule, and a group of no instances.
func (w *world) deploy(maxSize int) {
	w.t.Helper()
	pattern, err := events.ParsePattern([]byte(`{"source":["aws.autoscaling"],"detail-type":[{"suffix":"Lifecycle Action"}]}`))
	target := []events.Target{w.lab.Functions.Target("f")}
	_, templateErr := w.lab.Cloud.CreateLaunchTemplate(time.Now(), vpc.CreateLaunchTemplateInput{
		Name: "w", Data: vpc.LaunchTemplateData{InstanceType: "m5.2xlarge", ImageID: "ami-1"},
	})
	if err = errors.Join(err, templateErr,
		w.lab.Functions.Create(lambda.Function{Name: "f", Timeout: 15 * time.Minute, Handler: w.invoke}),
		w.lab.Events.PutRule(events.Rule{Name: "hooks", Pattern: &pattern, Targets: target}),
		w.lab.Events.PutRule(events.Rule{Name: "sweep", Every: time.Hour, Targets: target}),
		w.lab.Scaling.CreateGroup(time.Now(), "g", autoscaling.GroupSettings{
			MaxSize: maxSize, Template: autoscaling.TemplateRef{Name: "w"}, Subnets: []string{w.lab.Subnets["nodes"]},
		}, []autoscaling.Hook{
			{Name: "in", Transition: autoscaling.Launching, DefaultResult: autoscaling.Abandon, HeartbeatTimeout: 300 * time.Second},
			{Name: "out", Transition: autoscaling.Leaving, DefaultResult: autoscaling.Continue, HeartbeatTimeout: 300 * time.Second},
		}),
	); err != nil {
		w.t.Fatal(err)
	}
}

// invoke is the function.
func (w *world) invoke(ctx context.Context, payload []byte) ([]byte, error) {
	event, err := lifecycle.Parse(payload)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ec2, scaling, killed := w.lab.EC2(), w.lab.AutoScaling(), func() bool { return false }
	w.mu.Lock()
	if event.Action != nil {
		w.payloads = append(w.payloads, payload)
	}
	if k := w.killer; k != nil && !k.used && event.Action != nil && event.Action.Transition == k.transition {
		k.used = true
		ec2, scaling = w.mortal(ec2, cancel), w.mortal(scaling, cancel)
		killed = func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return k.fired
		}
	}
	w.mu.Unlock()
	out := io.Writer(lockedWriter{w})
	if !w.quiet {
		out = io.MultiWriter(out, w.t.Output())
	}
	log := slog.New(slog.NewJSONHandler(out, nil))
	c := workerhook.Config{Workers: w.workers, Hooks: asghooks.New(sdk(scaling)), Log: log}
	if c.Workers == nil {
		c.Workers = workereni.New(w.cfg, ec2eni.New(ec2eni.Config{SDK: sdk(ec2)}), log)
	}
	err = workerhook.New(c).Handle(ctx, event)
	if killed() {
		return nil, errors.New("signal: killed")
	}
	return nil, err
}

func sdk(t http.RoundTripper) aws.Config {
	return aws.Config{
		Region: "us-west-2", Credentials: credentials.NewStaticCredentialsProvider("AKLAMBDA", "secret", ""), HTTPClient: &http.Client{Transport: t},
	}
}

// lockedWriter keeps what is logged.
type lockedWriter struct{ w *world }

func (l lockedWriter) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.log.Write(p)
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// mortal lets nothing through from the killer's call on, as the end of a process does.
func (w *world) mortal(next http.RoundTripper, cancel context.CancelFunc) http.RoundTripper {
	k := w.killer
	return transport(func(r *http.Request) (*http.Response, error) {
		w.mu.Lock()
		k.seen++
		at := k.seen
		k.fired = k.fired || at >= k.n
		w.mu.Unlock()
		if at < k.n {
			return next.RoundTrip(r)
		}
		if at == k.n && k.after {
			if resp, err := next.RoundTrip(r.WithContext(context.WithoutCancel(r.Context()))); err == nil {
				_ = resp.Body.Close()
			}
		}
		cancel()
		return nil, errors.New("the process has ended")
	})
}

// scale sets the size of the group and waits until so many are in service and no other is there.
func (w *world) scale(n int) []string {
	w.t.Helper()
	if err := w.lab.Scaling.SetDesiredCapacity(time.Now(), "g", n); err != nil {
		w.t.Fatal(err)
	}
	return w.settle(n)
}

func (w *world) settle(n int) (ids []string) {
	w.t.Helper()
	late := time.After(time.Hour)
	for {
		changed := w.lab.Scaling.Changed()
		g, _ := w.lab.Scaling.Group("g")
		ids = nil
		for _, i := range g.Instances {
			if i.State == autoscaling.InService {
				ids = append(ids, i.ID)
			}
		}
		if len(ids) == n && len(g.Instances) == n {
			return ids
		}
		select {
		case <-changed:
		case <-late:
			w.t.Fatalf("want %d in service, the group has %+v", n, g.Instances)
		}
	}
}

// wantENIs compares what is there of ours.
func (w *world) wantENIs(want ...string) {
	w.t.Helper()
	view := w.lab.Cloud.View(time.Now().Add(time.Minute))
	var got []string
	for _, e := range view.AllENIs() {
		if e.Tags[workereni.TagOwner] == "" {
			continue
		}
		s, _ := view.Subnet(e.SubnetID)
		at := "unattached"
		if a := e.Attachment; a != nil {
			at = fmt.Sprintf("%s %d:%d", a.InstanceID, a.NetworkCard, a.DeviceIndex)
		}
		got = append(got, fmt.Sprintf("%s at %s", s.Tags["Name"], at))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("ENIs\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// workerENIs are the two of each worker.
func workerENIs(ids []string) (want []string) {
	for _, id := range ids {
		want = append(want, "n4 at "+id+" 0:1", "n6 at "+id+" 0:2")
	}
	return want
}

// logged counts the lines of the log with these words.
func (w *world) logged(words string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.log.String(), words)
}

// launches counts the instances that the group ever had.
func (w *world) launches() (n int) {
	for _, i := range w.lab.Cloud.View(time.Now().Add(time.Minute)).Instances() {
		if i.Tags["aws:autoscaling:groupName"] == "g" {
			n++
		}
	}
	return n
}
