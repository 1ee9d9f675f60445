// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package front

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// api counts what took effect, and refuses the action Refused as EC2 does.
type api struct{ applied atomic.Int32 }

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("Action") == "Refused" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "<Response><Errors><Error><Code>InvalidAction</Code></Error></Errors></Response>")
		return
	}
	a.applied.Add(1)
	_, _ = fmt.Fprintf(w, "done %s", r.FormValue("Action"))
}

func newFront(t *testing.T, c Config) *Front {
	t.Helper()
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func request(ctx context.Context, base, action, key string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/", strings.NewReader(url.Values{"Action": {action}}.Encode()))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if key != "" {
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+key+"/20260101/us-west-2/ec2/aws4_request, SignedHeaders=host, Signature=0")
	}
	return r
}

// send is one call over the RoundTripper, as "status" or "status code" or the error.
func send(f *Front, action string) string {
	res, err := f.RoundTripper().RoundTrip(request(context.Background(), "http://ec2", action, "AKIATEST"))
	return outcome(res, err)
}

func outcome(res *http.Response, err error) string {
	if err != nil {
		return "error"
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "error"
	}
	_, rest, _ := strings.Cut(string(body), "<Code>")
	code, _, _ := strings.Cut(rest, "<")
	return strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", code))
}

func TestFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		faults  []Fault
		want    []string // outcomes of calls of AssignX, one after the other
		applied int32
	}{
		"lost reply applies":        {[]Fault{{Kind: LostReply}}, []string{"error", "200"}, 2},
		"nth and count":             {[]Fault{{Kind: LostReply, Nth: 2, Count: 2}}, []string{"200", "error", "error", "200"}, 4},
		"error before":              {[]Fault{{Kind: ErrorBefore, Code: "UnauthorizedOperation"}}, []string{"403 UnauthorizedOperation", "200"}, 1},
		"error after":               {[]Fault{{Kind: ErrorAfter}}, []string{"500 InternalError", "200"}, 2},
		"5xx":                       {[]Fault{{Kind: ServerError}}, []string{"503 Unavailable", "200"}, 1},
		"the first of two":          {[]Fault{{Kind: ErrorBefore, Count: 2}, {Kind: ServerError, Nth: 2, Count: 2}}, []string{"500 InternalError", "500 InternalError", "503 Unavailable", "200"}, 1},
		"other action":              {[]Fault{{Action: "Other", Kind: ErrorBefore}}, []string{"200"}, 1},
		"certain":                   {[]Fault{{Action: "AssignX", Kind: ErrorBefore, Probability: 1}}, []string{"500 InternalError", "500 InternalError"}, 0},
		"probability up to a count": {[]Fault{{Kind: ErrorBefore, Probability: 1, Count: 1}}, []string{"500 InternalError", "200"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{}
			f := newFront(t, Config{API: a, Weather: Weather{Faults: tc.faults}})
			var got []string
			for range tc.want {
				got = append(got, send(f, "AssignX"))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if a.applied.Load() != tc.applied {
				t.Errorf("%d calls applied, want %d", a.applied.Load(), tc.applied)
			}
		})
	}
}

func TestAProbabilityIsTheSeedsDoing(t *testing.T) {
	run := func(seed uint64, between int) string {
		f := newFront(t, Config{API: &api{}, Weather: Weather{Seed: seed, Faults: []Fault{{Action: "AssignX", Kind: ErrorBefore, Probability: 0.5}}}})
		var s strings.Builder
		for range 64 {
			s.WriteString(send(f, "AssignX")[:1])
			for range between {
				send(f, "Other")
			}
		}
		return s.String()
	}
	if a, b := run(1, 0), run(1, 3); a != b {
		t.Errorf("same seed, other calls in between: %s, then %s", a, b)
	}
	if run(1, 0) == run(2, 0) {
		t.Error("two seeds give the same 64 fates")
	}
	if n := strings.Count(run(1, 0), "5"); n < 16 || n > 48 {
		t.Errorf("%d of 64 calls failed at probability 0.5", n)
	}
}

func TestLostReplyIsAnEOF(t *testing.T) {
	f := newFront(t, Config{API: &api{}, Weather: Weather{Faults: []Fault{{Kind: LostReply, Count: 2}}}})
	if _, err := f.RoundTripper().RoundTrip(request(t.Context(), "http://ec2", "AssignX", "")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("round tripper: got %v", err)
	}
	server := httptest.NewServer(f)
	defer server.Close()
	if _, err := server.Client().Do(request(t.Context(), server.URL, "AssignX", "")); !errors.Is(err, io.EOF) {
		t.Errorf("server: got %v", err)
	}
	if got := outcome(server.Client().Do(request(t.Context(), server.URL, "AssignX", ""))); got != "200" {
		t.Errorf("the call after: %s", got)
	}
}

func TestThrottleIsABucketForEachAction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, Config{API: &api{}, Weather: Weather{Throttle: Throttle{
			Default: Classes{Read: NewBucket(3, 1), Write: NewBucket(2, 0)},
			Actions: map[string]Bucket{"AssignX": *NewBucket(1, 5)},
		}}})
		admitted := func(action string) (n int) {
			for send(f, action) == "200" {
				n++
			}
			return n
		}
		for action, want := range map[string]int{"DescribeX": 3, "GetX": 3, "CreateX": 2, "DeleteX": 2, "AssignX": 1} {
			if got := admitted(action); got != want {
				t.Errorf("%s: burst %d, want %d", action, got, want)
			}
		}
		if got := send(f, "AssignX"); got != "503 RequestLimitExceeded" {
			t.Errorf("got %s", got)
		}
		advance(t, 2*time.Second)
		for action, want := range map[string]int{"DescribeX": 2, "CreateX": 0, "AssignX": 1} {
			if got := admitted(action); got != want {
				t.Errorf("%s: %d after 2 s, want %d", action, got, want)
			}
		}
	})
}

// advance lets virtual time pass.
func advance(t *testing.T, d time.Duration) {
	t.Helper()
	if err := wait(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func TestThrottledCallsAreNotTheNth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFront(t, Config{API: &api{}, Weather: Weather{
			Throttle: Throttle{Actions: map[string]Bucket{"AssignX": *NewBucket(1, 1)}},
			Faults:   []Fault{{Nth: 2, Kind: ErrorBefore}},
		}})
		got := []string{send(f, "AssignX"), send(f, "AssignX")}
		advance(t, time.Second)
		got = append(got, send(f, "AssignX"))
		if diff := cmp.Diff([]string{"200", "503 RequestLimitExceeded", "500 InternalError"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLatencyHasTheEffectInItsMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var appliedAt time.Time
		f := newFront(t, Config{
			API:     http.HandlerFunc(func(http.ResponseWriter, *http.Request) { appliedAt = time.Now() }),
			Weather: Weather{Latency: 80 * time.Millisecond, Faults: []Fault{{Nth: 2, Kind: Slow, Delay: 3 * time.Second}}},
		})
		for _, took := range []time.Duration{80 * time.Millisecond, 3080 * time.Millisecond} {
			start := time.Now()
			send(f, "AssignX")
			if got := time.Since(start); got != took {
				t.Errorf("took %v, want %v", got, took)
			}
			if got := appliedAt.Sub(start); got != 40*time.Millisecond {
				t.Errorf("took effect after %v", got)
			}
		}
	})
}

func TestALeavingCallerIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{}
		f := newFront(t, Config{API: a, Weather: Weather{Latency: time.Second}})
		for timeout, applied := range map[time.Duration]int32{400 * time.Millisecond: 0, 600 * time.Millisecond: 1} {
			a.applied.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			if _, err := f.RoundTripper().RoundTrip(request(ctx, "http://ec2", "AssignX", "AKIA1")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			cancel()
			if got := a.applied.Load(); got != applied {
				t.Errorf("left after %v: applied %d, want %d", timeout, got, applied)
			}
		}
		want := []CallCount{
			{Call{"AssignX", "AKIA1", "client-gone"}, 1},
			{Call{"AssignX", "AKIA1", "ok"}, 1},
		}
		if diff := cmp.Diff(want, f.Calls()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCallsAreCountedByActionCallerAndResult(t *testing.T) {
	f := newFront(t, Config{
		API:     &api{},
		Caller:  strings.ToLower,
		Weather: Weather{Faults: []Fault{{Action: "AssignX", Kind: LostReply}}},
	})
	server := httptest.NewServer(f)
	defer server.Close()
	for _, r := range []*http.Request{
		request(t.Context(), server.URL, "AssignX", "AKIA1"),
		request(t.Context(), server.URL, "AssignX", "AKIA1"),
		request(t.Context(), server.URL, "AssignX", "AKIA2"),
		request(t.Context(), server.URL, "AssignX", "AKIA2"),
		request(t.Context(), server.URL, "Refused", "AKIA2"),
		request(t.Context(), server.URL+"/?X-Amz-Credential=AKIA3%2F20260101%2Fus-west-2%2Fec2%2Faws4_request", "AssignX", ""),
		request(t.Context(), server.URL, "AssignX", ""),
	} {
		outcome(server.Client().Do(r))
	}
	res, err := server.Client().Get(server.URL + "/_lab/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var got struct{ Calls []CallCount }
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := []CallCount{
		{Call{"AssignX", "akia1", "lost-reply"}, 1},
		{Call{"AssignX", "akia1", "ok"}, 1},
		{Call{"AssignX", "akia2", "ok"}, 2},
		{Call{"AssignX", "akia3", "ok"}, 1},
		{Call{"AssignX", "anonymous", "ok"}, 1},
		{Call{"Refused", "akia2", "InvalidAction"}, 1},
	}
	if diff := cmp.Diff(want, got.Calls); diff != "" {
		t.Error(diff)
	}
}

func TestPostedFaultsReplaceTheOld(t *testing.T) {
	f := newFront(t, Config{API: &api{}, Actions: []string{"AssignX"}, Weather: Weather{Faults: []Fault{{Kind: ErrorBefore, Probability: 1}}}})
	post := func(body string) (int, string) {
		r := httptest.NewRequest(http.MethodPost, "/_lab/faults", strings.NewReader(body))
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	status, body := post(`[{"action": "AssignY", "kind": "lost", "cod": "x"}, {kind: slow, nth: -1}]`)
	want := `{"problems":[` +
		`{"path":"faults[0].cod","text":"unknown key (known here: action, nth, count, probability, kind, code, delay)"},` +
		`{"path":"faults[0].action","text":"\"AssignY\" is not an action that the lab knows (AssignX)"},` +
		`{"path":"faults[0].kind","text":"\"lost\" is not one of lost-reply, error-before, error-after, 5xx, slow"},` +
		`{"path":"faults[1].nth","text":"must be 1 or more"}]}`
	if status != http.StatusBadRequest || body != want {
		t.Errorf("got %d %s\nwant %s", status, body, want)
	}
	if got := send(f, "AssignX"); got != "500 InternalError" {
		t.Errorf("refused faults replaced the old ones: %s", got)
	}
	if status, body := post("- {action: AssignX, kind: 5xx}"); status != http.StatusOK || body != `{"faults":1}` {
		t.Errorf("got %d %s", status, body)
	}
	if diff := cmp.Diff([]string{"503 Unavailable", "200"}, []string{send(f, "AssignX"), send(f, "AssignX")}); diff != "" {
		t.Error(diff)
	}
	if status, body := post("[]"); status != http.StatusOK || body != `{"faults":0}` {
		t.Errorf("got %d %s", status, body)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/_lab/nothing", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("an unknown request: %d", w.Code)
	}
}

func TestNewReportsEveryProblem(t *testing.T) {
	_, err := New(Config{Actions: []string{"AssignX"}, Weather: Weather{
		Latency: -1,
		Throttle: Throttle{
			Default: Classes{Read: &Bucket{}},
			Actions: map[string]Bucket{"AssignY": *NewBucket(-1, -1)},
		},
		Faults: []Fault{
			{Kind: LostReply, Code: "X", Delay: 1},
			{Kind: ServerError, Code: "InvalidParameterValue", Nth: 1, Probability: 0.5},
		},
	}})
	want := `latency: must not be negative
throttle.default.read.burst: is missing
throttle.default.read.refill: is missing
throttle.AssignY: "AssignY" is not an action that the lab knows (AssignX)
faults[0].code: a fault of kind lost-reply answers no error
faults[0].delay: a fault of kind lost-reply has none
faults[1].probability: cannot stand with nth
faults[1].code: EC2 answers InvalidParameterValue with status 400, not 5xx; use error-before`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v", cmp.Diff(want, fmt.Sprint(err)))
	}
}
