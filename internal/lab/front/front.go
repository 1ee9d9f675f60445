// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package front stands before a query API (EC2's, Auto Scaling's) the way an account's endpoint does: requests take time, each action has
// its throttle bucket, some requests go wrong, and every call is counted. It is mounted as an [http.Handler] or, without
// a network, as an [http.RoundTripper]; both are one code path, so a test in a synctest bubble meets the same weather as
// a process on a socket. What the API does is the wrapped handler's affair: front reads only the action's name and the
// caller's access key.
package front

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/strictyaml"
)

// Weather is how the endpoint behaves. The zero value is ideal: no latency, no limits, no faults.
type Weather struct {
	// Latency is the round trip's: half of it passes before the request takes effect, half after.
	Latency time.Duration
	// Throttle holds the request rate limits.
	Throttle Throttle
	// Faults go wrong on demand, see [Fault].
	Faults []Fault
	// Seed decides which calls a fault with a probability hits: the same seed, the same calls of each action.
	Seed uint64
}

// Config makes a [Front].
type Config struct {
	// API answers the requests that get through.
	API http.Handler
	// Actions that API knows. A throttle or fault that names another is refused. Empty accepts all.
	Actions []string
	// Now is the clock of the throttle buckets; nil means [time.Now]. Latency is waited for in real (or a synctest
	// bubble's) time.
	Now func() time.Time
	// Errors writes the errors that front itself answers with, and their status; nil means in EC2's form. Throttled is
	// their code for a call beyond the limits; default RequestLimitExceeded.
	Errors    func(w http.ResponseWriter, code, message, requestID string)
	Throttled string
	// Caller turns the access key ID of a request into the caller that the call log shows; nil shows the key ID.
	Caller  func(accessKeyID string) string
	Weather Weather
}

// Front is an endpoint. It is safe for concurrent use and starts no goroutines.
type Front struct {
	config Config

	mu      sync.Mutex // guards what follows
	buckets buckets
	faults  faultSet
	calls   callLog
	serial  uint64 // of request IDs
}

// New checks c and makes a Front. All problems are in the one error.
func New(c Config) (*Front, error) {
	var p strictyaml.Problems
	c.Weather.Validate("", c.Actions, &p)
	if err := p.Err(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Errors == nil {
		c.Errors = writeError
	}
	c.Throttled = cmp.Or(c.Throttled, codeThrottled)
	if c.Caller == nil {
		c.Caller = func(key string) string { return key }
	}
	return &Front{
		config:  c,
		buckets: newBuckets(c.Weather.Throttle),
		faults:  newFaultSet(c.Weather.Faults, c.Weather.Seed),
		calls:   callLog{},
	}, nil
}

// Validate reports what is wrong to p, with field names as in a scenario file. An action that is not in actions is
// wrong, unless actions is empty.
func (w Weather) Validate(path string, actions []string, p *strictyaml.Problems) {
	if w.Latency < 0 {
		p.Addf(strictyaml.Join(path, "latency"), "must not be negative")
	}
	w.Throttle.validate(strictyaml.Join(path, "throttle"), actions, p)
	ValidateFaults(w.Faults, strictyaml.Join(path, "faults"), actions, p)
}

// SetFaults replaces all faults; their counting starts anew. Nothing is replaced when it returns an error.
func (f *Front) SetFaults(faults []Fault) error {
	var p strictyaml.Problems
	ValidateFaults(faults, "faults", f.config.Actions, &p)
	if err := p.Err(); err != nil {
		return err
	}
	f.arm(faults)
	return nil
}

func (f *Front) arm(faults []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = newFaultSet(faults, f.config.Weather.Seed)
}

// errReplyLost is a connection that closes before the reply.
var errReplyLost = fmt.Errorf("reply lost: %w", io.ErrUnexpectedEOF)

// ServeHTTP implements [http.Handler]. A lost reply aborts the connection by panicking with [http.ErrAbortHandler],
// which a server expects.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply, err := f.route(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	reply.writeTo(w)
}

// RoundTripper is the endpoint without a network: requests are answered in the caller's goroutine. A lost reply is an
// error that wraps [io.ErrUnexpectedEOF].
func (f *Front) RoundTripper() http.RoundTripper { return roundTripper{f} }

type roundTripper struct{ front *Front }

func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	return inProcess(req, t.front.route)
}

func (f *Front) route(r *http.Request) (*reply, error) {
	if path, ok := strings.CutPrefix(r.URL.Path, "/_lab/"); ok {
		return f.lab(path, r), nil
	}
	return f.exchange(r)
}

// exchange carries one API request through the weather. Its error is the connection's: lost, or left by the caller.
func (f *Front) exchange(r *http.Request) (*reply, error) {
	c, err := f.readCall(r)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	half := f.config.Weather.Latency / 2
	if err := wait(ctx, half); err != nil {
		f.count(c, resultClientGone)
		return nil, err
	}
	throttled, fault := f.meet(c)
	var answer *reply
	switch {
	case throttled:
		answer = f.fail(f.config.Throttled)
	case fault != nil && fault.before():
		answer = f.fail(fault.code())
	default:
		answer = newReply()
		f.config.API.ServeHTTP(answer, r)
	}
	if fault != nil {
		switch fault.Kind {
		case LostReply:
			f.count(c, resultLostReply)
			return nil, errReplyLost
		case ErrorAfter:
			answer = f.fail(fault.code())
		case Slow:
			half += fault.delay()
		case ErrorBefore, ServerError: // answered above
		}
	}
	f.count(c, answer.result())
	return answer, wait(ctx, half)
}

// meet decides, as one step, what the weather does to a call: it is throttled, or meets a fault, or neither. Throttled
// calls are not counted by faults: they would have had no effect to lose.
func (f *Front) meet(c call) (throttled bool, fault *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.buckets.take(c.action, f.config.Now()) {
		return true, nil
	}
	return false, f.faults.next(c.action)
}

func (f *Front) count(c call, result string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[Call{Action: c.action, Caller: c.caller, Result: result}]++
}

func (f *Front) fail(code string) *reply {
	f.mu.Lock()
	f.serial++
	id := requestID(f.serial)
	f.mu.Unlock()
	a := newReply()
	a.code = code
	a.header.Set("X-Amzn-Requestid", id)
	f.config.Errors(a, code, messageOf(code), id)
	return a
}

// wait returns after d, or with the context's error when that ends first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call is what front knows of a request.
type call struct{ action, caller string }

// maxBody is far above any request of the EC2 query API.
const maxBody = 4 << 20

// readCall reads action and caller, and leaves r with its whole body to be read again.
func (f *Front) readCall(r *http.Request) (call, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return call{}, fmt.Errorf("read request: %w", err)
	}
	if len(body) > maxBody {
		return call{}, errors.New("read request: body too large")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body)) // a bad form is the API's to refuse
	return call{
		action: cmp.Or(form.Get("Action"), r.URL.Query().Get("Action"), "unnamed"),
		caller: f.config.Caller(accessKeyID(r)),
	}, nil
}

// accessKeyID reads the credential scope of Signature Version 4, in the header or in a presigned URL.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
func accessKeyID(r *http.Request) string {
	scope := r.URL.Query().Get("X-Amz-Credential")
	if _, after, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		scope = after
	}
	key, _, _ := strings.Cut(scope, "/")
	return cmp.Or(key, "anonymous")
}
