// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	aws "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/google/go-cmp/cmp"
)

// TestMain is the bootstrap of the functions, too: AWS's own runtime runs in it.
func TestMain(m *testing.M) {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") != "" {
		if os.Getenv("NO_START") != "" {
			fmt.Println("no thank you")
			os.Exit(3)
		}
		aws.Start(bootstrap)
	}
	os.Exit(m.Run())
}

// bootstrap does what its event says.
func bootstrap(ctx context.Context, event map[string]string) (map[string]string, error) {
	lc, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	switch event["do"] {
	case "fail":
		return nil, errors.New("the subnet is full")
	case "exit":
		os.Exit(4)
	case "hang":
		fmt.Println("hanging")
		select {} // not even for the context
	}
	fmt.Printf("hello %s\n", event["name"])
	return map[string]string{
		"id": lc.AwsRequestID, "arn": lc.InvokedFunctionArn, "left": time.Until(deadline).Round(time.Second).String(),
		"pid": fmt.Sprint(os.Getpid()), "extra": os.Getenv("EXTRA"), "region": os.Getenv("AWS_REGION"), "caller": os.Getenv("AWS_ACCESS_KEY_ID"),
	}, nil
}

// newProcesses is a service with the function "f", which is this test's own program.
func newProcesses(t *testing.T, edit func(*Function)) *Service {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Account: "123456789012", Region: "us-west-2"})
	f := Function{Name: "f", Program: self, Timeout: 20 * time.Second, Environment: map[string]string{"EXTRA": "yes"}}
	if edit != nil {
		edit(&f)
	}
	if err := s.Create(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Delete("f") })
	return s
}

// call invokes "f".
func call(t *testing.T, s *Service, event string) (map[string]string, error) {
	t.Helper()
	answer, err := s.Invoke(t.Context(), "f", []byte(event))
	if err != nil {
		return nil, err
	}
	var out map[string]string
	if err := json.Unmarshal(answer, &out); err != nil {
		t.Fatal(err)
	}
	return out, nil
}

func TestABootstrapIsRunAndKept(t *testing.T) {
	s := newProcesses(t, nil)
	got, err := call(t, s, `{"name": "world"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"id": "00000000-0000-4000-8000-000000000001", "arn": "arn:aws:lambda:us-west-2:123456789012:function:f", "left": "20s",
		"pid": got["pid"], "extra": "yes", "region": "us-west-2", "caller": "f",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again, err := call(t, s, `{"name": "world"}`)
	if err != nil || again["pid"] != got["pid"] {
		t.Errorf("the second run: %v, %v; the first was of process %s", again, err, got["pid"])
	}
	past := s.Invocations("f")
	if len(past) != 2 || past[0].Init <= 0 || past[1].Init != 0 || past[0].MaxMemory < 1<<20 || past[0].Duration <= 0 {
		t.Errorf("%+v", past)
	}
	for _, want := range []string{"START RequestId: " + want["id"] + " Version: $LATEST\n", "hello world\n", "\nEND RequestId: ", " Init Duration: "} {
		logged(t, s, want)
	}
}

// logged waits for a text: what a program writes comes through a pipe, and may be later than its answer.
func logged(t *testing.T, s *Service, want string) {
	t.Helper()
	const patience, pause = 10 * time.Second, 5 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for began := time.Now(); !strings.Contains(s.Logs("f"), want); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("the log lacks %q:\n%s", want, s.Logs("f"))
		}
	}
}

func TestFailures(t *testing.T) {
	s := newProcesses(t, func(f *Function) { f.Timeout = time.Second })
	for _, tc := range []struct {
		do        string
		want      FunctionError
		survivors int
	}{
		{"fail", FunctionError{"errorString", "the subnet is full"}, 1},
		{"exit", FunctionError{"Runtime.ExitError", "RequestId: 00000000-0000-4000-8000-000000000002 Error: Runtime exited with error: exit status 4"}, 0},
		{"hang", FunctionError{"Sandbox.Timedout", "RequestId: 00000000-0000-4000-8000-000000000003 Error: Task timed out after 1.00 seconds"}, 0},
		{"", FunctionError{}, 1},
	} {
		_, err := call(t, s, fmt.Sprintf(`{"do": %q}`, tc.do))
		e, _ := errors.AsType[*FunctionError](err)
		if e == nil {
			e = &FunctionError{}
		}
		if diff := cmp.Diff(tc.want, *e); diff != "" {
			t.Errorf("%s: %s", tc.do, diff)
		}
		f, err := s.find("f")
		if err != nil {
			t.Fatal(err)
		}
		alive := 0
		for e := range f.all {
			select {
			case <-e.exited:
			default:
				alive++
			}
		}
		if alive != tc.survivors {
			t.Errorf("%q leaves %d programs, want %d", tc.do, alive, tc.survivors)
		}
	}
}

func TestAProgramThatDoesNotStart(t *testing.T) {
	s := newProcesses(t, func(f *Function) { f.Environment = map[string]string{"NO_START": "1"} })
	_, err := call(t, s, `{}`)
	if e, ok := errors.AsType[*FunctionError](err); !ok || !strings.HasSuffix(e.Message, "exit status 3") || !strings.Contains(s.Logs("f"), "no thank you") {
		t.Errorf("%v; log %s", err, s.Logs("f"))
	}
	if err = s.Create(Function{Name: "g", Program: "/nowhere/bootstrap"}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Invoke(t.Context(), "g", nil)
	if e, ok := errors.AsType[*FunctionError](err); !ok || e.Type != "Runtime.InvalidEntrypoint" {
		t.Errorf("got %v", err)
	}
}

func TestInvocationsAtOnceHaveProgramsOfTheirOwn(t *testing.T) {
	hanging := make(chan struct{})
	s := newProcesses(t, func(f *Function) { f.Concurrency = 1 })
	s.functions["f"].log.also = lookout{"hanging", hanging}
	hung := make(chan error, 1)
	go func() {
		_, err := s.Invoke(t.Context(), "f", []byte(`{"do":"hang"}`))
		hung <- err
	}()
	<-hanging
	if _, err := call(t, s, `{}`); !errors.Is(err, ErrThrottled) {
		t.Errorf("beyond the concurrency: %v", err)
	}
	if n := s.Kill("f"); n != 1 {
		t.Errorf("%d programs killed", n)
	}
	if e, ok := errors.AsType[*FunctionError](<-hung); !ok || !strings.HasSuffix(e.Message, "signal: killed") {
		t.Errorf("got %v", e)
	}
}

// lookout closes seen when word is written.
type lookout struct {
	word string
	seen chan struct{}
}

func (l lookout) Write(p []byte) (int, error) {
	if strings.Contains(string(p), l.word) {
		close(l.seen)
	}
	return len(p), nil
}

// inProcess is a service with a handler "f", which runs in a bubble until the test ends.
func inProcess(t *testing.T, f Function) (s *Service, stop func()) {
	t.Helper()
	s, f.Name = New(Config{}), "f"
	if err := s.Create(f); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	return s, func() {
		cancel()
		running.Wait()
	}
}

func TestAsynchronousInvocationsAreRetriedTwice(t *testing.T) {
	one := 1
	for name, tc := range map[string]struct {
		function Function
		fails    int
		want     []time.Duration
	}{
		"at once":        {Function{}, 0, []time.Duration{0}},
		"after a minute": {Function{}, 1, []time.Duration{0, time.Minute}},
		"never":          {Function{}, 9, []time.Duration{0, time.Minute, 3 * time.Minute}},
		"one retry":      {Function{Retries: &one}, 9, []time.Duration{0, time.Minute}},
		"too old":        {Function{MaxEventAge: 2 * time.Minute}, 9, []time.Duration{0, time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, fails := time.Now(), tc.fails
				var got []time.Duration
				f := tc.function
				f.Handler = func(context.Context, []byte) ([]byte, error) {
					got = append(got, time.Since(start))
					if fails--; fails >= 0 {
						return nil, errors.New("not now")
					}
					return nil, nil
				}
				s, stop := inProcess(t, f)
				if err := s.Target("f")(t.Context(), []byte(`{}`)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Hour)
				stop()
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Error(diff)
				}
				if err := s.InvokeAsync("f", nil); err == nil {
					t.Error("a stopped service accepts events")
				}
			})
		})
	}
}

func TestAHandlerThatTakesTooLongHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := inProcess(t, Function{Timeout: time.Minute, Handler: func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, nil
		}})
		defer stop()
		start := time.Now()
		_, err := s.Invoke(t.Context(), "f", nil)
		if e, ok := errors.AsType[*FunctionError](err); !ok || !strings.HasSuffix(e.Message, "Task timed out after 60.00 seconds") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("after %v", took)
		}
	})
}

func TestTheRuntimeAPIRefusesAnswersToOtherRequests(t *testing.T) {
	a := newRuntimeAPI("arn")
	for path, want := range map[string]int{
		"/2018-06-01/runtime/invocation/1/response": http.StatusBadRequest,
		"/2018-06-01/runtime/invocation/1/error":    http.StatusBadRequest,
		"/2018-06-01/runtime/init/error":            http.StatusAccepted,
		"/2018-06-01/extension/register":            http.StatusNotFound,
	} {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(`{"errorType":"T","errorMessage":"m"}`)))
		if w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if err := a.failedInit(); err == nil || err.Error() != "T: m" {
		t.Errorf("init error %v", err)
	}
}

func TestFunctionsAreChecked(t *testing.T) {
	three := 3
	s := New(Config{})
	for name, f := range map[string]Function{
		"no name":     {Program: "x"},
		"no program":  {Name: "f"},
		"both":        {Name: "f", Program: "x", Handler: func(context.Context, []byte) ([]byte, error) { return nil, nil }},
		"timeout":     {Name: "f", Program: "x", Timeout: time.Hour},
		"retries":     {Name: "f", Program: "x", Retries: &three},
		"age":         {Name: "f", Program: "x", MaxEventAge: time.Second},
		"concurrency": {Name: "f", Program: "x", Concurrency: -1},
		"environment": {Name: "f", Program: "x", Environment: map[string]string{"a": strings.Repeat("x", 4096)}},
	} {
		if err := s.Create(f); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := s.Invoke(t.Context(), "f", nil); err == nil || !strings.HasSuffix(err.Error(), "function not found: arn:aws:lambda:::function:f") {
		t.Errorf("got %v", err)
	}
}
