// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package asghooks_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/asghooks"
	"github.com/multus-vpc/multus-vpc/internal/lab/asgapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
)

// ground is Auto Scaling with a group whose one instance waits.
type ground struct {
	*autoscaling.Service
	action lifecycle.Action
	front  *front.Front
}

func newGround(t *testing.T) *ground {
	t.Helper()
	s, err := scenario.Parse([]byte("vpc: {cidr: 10.10.0.0/16}\nsubnets: [{name: nodes, cidr: 10.10.12.0/24, az: us-west-2a}]"))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	g, now := &ground{}, time.Now()
	g.Service = autoscaling.New(autoscaling.Config{Cloud: lab.Cloud, Publish: func(e events.Event) {
		if e.DetailType != "EC2 Instance-launch Lifecycle Action" {
			return
		}
		text, encodeErr := e.JSON()
		if encodeErr != nil {
			t.Fatal(encodeErr)
		}
		event, parseErr := lifecycle.Parse(text)
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		g.action = *event.Action
	}})
	if _, err = lab.Cloud.CreateLaunchTemplate(now, vpc.CreateLaunchTemplateInput{
		Name: "w", Data: vpc.LaunchTemplateData{InstanceType: "m5.large", ImageID: "ami-1"},
	}); err != nil {
		t.Fatal(err)
	}
	if err = g.CreateGroup(now, "g", autoscaling.GroupSettings{
		DesiredCapacity: 1, MaxSize: 1, Template: autoscaling.TemplateRef{Name: "w"}, Subnets: []string{lab.Subnets["nodes"]},
	}, []autoscaling.Hook{{Name: "launch", Transition: autoscaling.Launching, HeartbeatTimeout: time.Minute}}); err != nil {
		t.Fatal(err)
	}
	g.front, err = front.New(front.Config{API: asgapi.Handler(g.Service, lab.Cloud, time.Now), Actions: asgapi.Actions(), Errors: asgapi.WriteError})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *ground) client() *asghooks.Client { return client(g.front.RoundTripper()) }

// state is the instance's at a time from now on.
func (g *ground) state(after time.Duration) autoscaling.State {
	time.Sleep(after)
	g.Advance(time.Now())
	now, _ := g.Group("g")
	for _, i := range now.Instances {
		if i.ID == string(g.action.Instance) {
			return i.State
		}
	}
	return "gone"
}

func client(t http.RoundTripper) *asghooks.Client {
	return asghooks.New(aws.Config{
		Region: "us-west-2", Credentials: credentials.NewStaticCredentialsProvider("AKLAMBDA", "secret", ""), HTTPClient: &http.Client{Transport: t},
	})
}

func TestAnswersEndTheWait(t *testing.T) {
	t.Parallel()
	for result, want := range map[lifecycle.Result]autoscaling.State{lifecycle.Continue: autoscaling.InService, lifecycle.Abandon: "gone"} {
		synctest.Test(t, func(t *testing.T) {
			g := newGround(t)
			if got := g.state(0); got != autoscaling.PendingWait {
				t.Fatalf("state %s", got)
			}
			if err := g.client().Complete(t.Context(), g.action, result); err != nil {
				t.Fatal(err)
			}
			if got := g.state(0); got != want {
				t.Errorf("%s: state %s, want %s", result, got, want)
			}
			if err := g.client().Complete(t.Context(), g.action, lifecycle.Abandon); !errors.Is(err, lifecycle.ErrNotWaiting) {
				t.Errorf("the second answer: %v", err)
			}
			if got := g.state(0); got != want {
				t.Errorf("%s and then another answer: state %s, want %s", result, got, want)
			}
		})
	}
}

func TestHeartbeatsMakeTheWaitLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t)
		for range 3 {
			if got := g.state(50 * time.Second); got != autoscaling.PendingWait {
				t.Fatalf("state %s", got)
			}
			if err := g.client().Heartbeat(t.Context(), g.action); err != nil {
				t.Fatal(err)
			}
		}
		old := g.action
		g.state(70 * time.Second)
		if err := g.client().Heartbeat(t.Context(), old); !errors.Is(err, lifecycle.ErrNotWaiting) {
			t.Errorf("after its time: %v", err)
		}
	})
}

func TestNobodyWaitsInAGroupThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t)
		if err := g.DeleteGroup(time.Now(), "g", true); err != nil {
			t.Fatal(err)
		}
		g.state(time.Second)
		if err := g.client().Complete(t.Context(), g.action, lifecycle.Continue); !errors.Is(err, lifecycle.ErrNotWaiting) {
			t.Error(err)
		}
	})
}

// TestErrorsSayWhetherTryingAgainHelps, and whether the call may have taken effect; each call is made once.
func TestErrorsSayWhetherTryingAgainHelps(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status  int
		code    string
		message string
		want    error // nil: it may pass, and may have taken effect
	}{
		"not permitted":      {http.StatusForbidden, "AccessDenied", "User is not authorized to perform: autoscaling:CompleteLifecycleAction", lifecycle.ErrRefused},
		"a wrong request":    {http.StatusBadRequest, "ValidationError", "1 validation error detected", lifecycle.ErrRefused},
		"throttled":          {http.StatusBadRequest, "Throttling", "Rate exceeded", lifecycle.ErrNotTaken},
		"an old clock":       {http.StatusForbidden, "RequestExpired", "", lifecycle.ErrNotTaken},
		"two at once":        {http.StatusInternalServerError, "ResourceContention", "You already have a pending update", lifecycle.ErrNotTaken},
		"broken":             {http.StatusInternalServerError, "InternalFailure", "", nil},
		"nothing to be read": {http.StatusBadGateway, "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			c := client(transport(func(*http.Request) (*http.Response, error) {
				calls++
				body := "<ErrorResponse><Error><Type>Sender</Type><Code>" + tc.code + "</Code><Message>" + tc.message + "</Message></Error></ErrorResponse>"
				if tc.code == "" {
					body = "<html>"
				}
				return &http.Response{StatusCode: tc.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
			}))
			a := lifecycle.Action{Group: "g", Hook: "h", Token: "t"}
			for _, err := range []error{c.Complete(t.Context(), a, lifecycle.Continue), c.Heartbeat(t.Context(), a)} {
				if err == nil {
					t.Fatal("no error")
				}
				for _, sentinel := range []error{lifecycle.ErrNotWaiting, lifecycle.ErrRefused, lifecycle.ErrNotTaken} {
					if got := errors.Is(err, sentinel); got != errors.Is(tc.want, sentinel) {
						t.Errorf("%v: is %q: %t", err, sentinel, got)
					}
				}
			}
			if calls != 2 {
				t.Errorf("%d calls", calls)
			}
		})
	}
}

func TestACallIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := client(transport(func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }))
		if err := c.Complete(t.Context(), lifecycle.Action{Group: "g", Hook: "h", Token: "t"}, lifecycle.Continue); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestActionsAreWhatIsCalled: the role's policy is compared with them.
func TestActionsAreWhatIsCalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t)
		if err := errors.Join(g.client().Heartbeat(t.Context(), g.action), g.client().Complete(t.Context(), g.action, lifecycle.Continue)); err != nil {
			t.Fatal(err)
		}
		var called []string
		for _, c := range g.front.Calls() {
			called = append(called, c.Action)
		}
		if !slices.Equal(called, asghooks.Actions()) {
			t.Errorf("called %q", called)
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
