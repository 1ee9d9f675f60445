// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	function "github.com/multus-vpc/multus-vpc/internal/lab/lambda"
)

// TestKilledTheFunctionGoesOn: SIGKILL while the reply of a call is under way. Lambda hands the event to another environment, and the
// worker is as if nothing had happened. Package workerhook's tests die at each call; here the process is real.
func TestKilledTheFunctionGoesOn(t *testing.T) {
	t.Parallel()
	for _, at := range []struct {
		action  string
		nth     int
		leaving bool // the second event
	}{
		{action: "DescribeInstances", nth: 1},
		{action: "CreateNetworkInterface", nth: 1},
		{action: "CreateNetworkInterface", nth: 2},
		{action: "AttachNetworkInterface", nth: 1},
		{action: "AttachNetworkInterface", nth: 2},
		{action: "ModifyNetworkInterfaceAttribute", nth: 1},
		{action: "RecordLifecycleActionHeartbeat", nth: 1},
		{action: "CompleteLifecycleAction", nth: 1},
		{action: "DetachNetworkInterface", nth: 1, leaving: true},
		{action: "DeleteNetworkInterface", nth: 1, leaving: true},
		{action: "CompleteLifecycleAction", nth: 1, leaving: true},
	} {
		name := fmt.Sprintf("%s %d", at.action, at.nth)
		if at.leaving {
			name += " of a worker that ends"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGround(t, "", map[string]string{"DeleteOnTermination": "false"})
			size := 1
			if at.leaving {
				g.want(g.scale(1), both...)
				size = 0
			}
			g.hold(at.action, at.nth)
			before := g.count(at.action)
			g.must(g.Scaling.SetDesiredCapacity(time.Now(), group, size))
			g.killAt(at.action, before+at.nth)
			g.want(g.settle(size), both...)
			if n := len(g.launched()); n != 1 {
				t.Errorf("%d instances were launched", n)
			}
			g.scale(0)
			g.want(nil, both...)
			if n := g.results()["ABANDON"]; n != 0 {
				t.Errorf("%d workers were abandoned", n)
			}
		})
	}
}

// front is the endpoint that has an action.
func (g *ground) front(action string) *front.Front {
	switch action {
	case "RecordLifecycleActionHeartbeat", "CompleteLifecycleAction":
		return g.ScalingFront
	}
	return g.Front
}

// hold keeps the reply of the nth call from now on back, long enough for everything else. The call takes effect.
func (g *ground) hold(action string, nth int) {
	g.t.Helper()
	g.must(g.front(action).SetFaults([]front.Fault{{Action: action, Nth: nth, Kind: front.Slow, Delay: 10 * time.Minute}}))
}

// count is how many calls of the function had an effect.
func (g *ground) count(action string) (n int) {
	for _, c := range g.front(action).Calls() {
		if c.Action == action && c.Caller == functionName && c.Result == "ok" {
			n += c.Count
		}
	}
	return n
}

// killAt waits for the call whose reply is held, and kills the process that waits for it.
func (g *ground) killAt(action string, n int) {
	g.t.Helper()
	g.await(fmt.Sprintf("%d calls of %s", n, action), func() bool { return g.count(action) >= n })
	g.must(g.front(action).SetFaults(nil))
	if n := g.Functions.Kill(functionName); n == 0 { // the one that handled the launch may be there, too
		g.t.Fatal("no process was there to be killed")
	}
}

// launched are the IDs of the instances that the group ever had.
func (g *ground) launched() (ids []string) {
	for _, i := range g.Cloud.View(time.Now().Add(time.Minute)).Instances() {
		if i.Tags["aws:autoscaling:groupName"] == group {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// TestEventsTwiceAtOnceAndInAnyOrder: the bus delivers each event three times, up to two seconds late.
func TestEventsTwiceAtOnceAndInAnyOrder(t *testing.T) {
	t.Parallel()
	g := newGround(t, "events: {duplicates: 2, delay: 2s}\n", map[string]string{"useStaticIPs": "true", "Stock": "4"})
	members := g.scale(4)
	g.await("twelve decisions", func() bool { return len(g.decisions()) == 12 })
	g.want(members, both...)
	g.scale(1)
	g.await("nine more decisions", func() bool { return len(g.decisions()) == 21 })
	g.want(g.settle(1), both...)
	if r := g.results(); r["CONTINUE"] != 7 || r["NONE"] != 14 {
		t.Errorf("decisions %v, want each event answered once", r)
	}
	if n := len(g.launched()); n != 4 {
		t.Errorf("%d instances were launched", n)
	}
}

// TestOneThatCannotBeIsAbandoned, with one line that says why.
func TestOneThatCannotBeIsAbandoned(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		variables map[string]string
		reason    string
	}{
		"a subnet that there is not": {map[string]string{"SubnetIds": "subnet-0123456789abcdef0"}, "subnet-0123456789abcdef0"},
		"a wrong configuration":      {map[string]string{"Owner": "", "Stock": "many"}, `Stock: "many" is no number`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGround(t, "", tc.variables)
			g.must(g.Scaling.SetDesiredCapacity(time.Now(), group, 1))
			g.await("one abandoned", func() bool { return g.results()["ABANDON"] > 0 })
			g.must(g.Scaling.SetDesiredCapacity(time.Now(), group, 0))
			g.settle(0)
			for _, l := range g.decisions() {
				if l.Result != "ABANDON" {
					continue
				}
				if l.Level != "ERROR" || l.Group != group || l.Hook != launchHook || l.Transition != string(autoscaling.Launching) || l.RequestID == "" ||
					len(l.Reasons) == 0 || l.Reasons[0] == "" || l.Instance == "" {
					t.Errorf("the line lacks something: %+v", l)
				}
				if !strings.Contains(strings.Join(l.Reasons, "\n"), tc.reason) {
					t.Errorf("reasons %q, want %q", l.Reasons, tc.reason)
				}
			}
			g.want(nil)
		})
	}
}

// TestAnInvocationThatEndsTooSoonIsRepeated: the function comes back before its timeout, and the next one goes on.
func TestAnInvocationThatEndsTooSoonIsRepeated(t *testing.T) {
	t.Parallel()
	g := newGround(t, "", nil, func(f *function.Function) { f.Timeout = 8 * time.Second })
	g.must(g.Front.SetFaults([]front.Fault{{Action: "AttachNetworkInterface", Nth: 2, Count: 1000, Kind: front.ErrorBefore, Code: "RequestLimitExceeded"}}))
	g.must(g.Scaling.SetDesiredCapacity(time.Now(), group, 1))
	g.await("one that was not done", func() bool { return g.results()["RETRY"] > 0 })
	g.must(g.Front.SetFaults(nil))
	g.want(g.settle(1), both...)
	for _, i := range g.Functions.Invocations(functionName) {
		if i.Err != nil && !strings.Contains(i.Err.Error(), "not finished in time") {
			t.Errorf("an invocation failed by %v", i.Err)
		}
	}
}

// TestWhatIsNoEventIsRefused by name; and the turn of a schedule is none to refuse.
func TestWhatIsNoEventIsRefused(t *testing.T) {
	t.Parallel()
	g := newGround(t, "", nil)
	for payload, want := range map[string]string{
		`{}`:              "it has no detail-type",
		`{"Records": []}`: "SNS or SQS",
		`"hello"`:         "cannot unmarshal string",
		`{"detail-type":"EC2 Instance Launch Successful","source":"aws.autoscaling"}`: `detail-type "EC2 Instance Launch Successful" is not one of`,
	} {
		if _, err := g.Functions.Invoke(t.Context(), functionName, []byte(payload)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", payload, err, want)
		}
	}
	if _, err := g.Functions.Invoke(t.Context(), functionName, []byte(`{"detail-type":"Scheduled Event","source":"aws.events","detail":{}}`)); err != nil {
		t.Error(err)
	}
	g.await("a sweep in the log", func() bool {
		return strings.Contains(g.Functions.Logs(functionName), `"message":"swept","requestId":`)
	})
}
