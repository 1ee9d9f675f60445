// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrThrottled is a synchronous invocation when all of the function's concurrency is in use.
var ErrThrottled = errors.New("TooManyRequestsException: Rate Exceeded")

// Invoke runs a function and returns its answer, or a [*FunctionError].
func (s *Service) Invoke(ctx context.Context, name string, event []byte) ([]byte, error) {
	f, err := s.find(name)
	if err != nil {
		return nil, fmt.Errorf("invoke: %w", err)
	}
	select {
	case f.slots <- struct{}{}:
	default:
		return nil, ErrThrottled
	}
	defer func() { <-f.slots }()
	return f.run(ctx, invocation{id: s.newRequestID(), event: event})
}

// asynchronous is an event that waits to be handled.
type asynchronous struct {
	function string
	invocation
}

// InvokeAsync accepts an event for a function. What becomes of it is in [Service.Invocations].
func (s *Service) InvokeAsync(name string, event []byte) error {
	if _, err := s.find(name); err != nil {
		return fmt.Errorf("invoke: %w", err)
	}
	id := s.newRequestID()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, asynchronous{name, invocation{id: id, event: slices.Clone(event)}})
	select {
	case s.news <- struct{}{}:
	default:
	}
	return nil
}

// Target makes a function the target of a rule: it is invoked asynchronously, as EventBridge does.
func (s *Service) Target(name string) func(context.Context, []byte) error {
	return func(_ context.Context, event []byte) error { return s.InvokeAsync(name, event) }
}

// TargetOf is [Service.Target] for a rule of that ARN, which the function must [Service.Allow].
func (s *Service) TargetOf(name, ruleARN string) func(context.Context, []byte) error {
	return func(_ context.Context, event []byte) error {
		f, err := s.find(name)
		if err != nil {
			return fmt.Errorf("invoke: %w", err)
		}
		f.mu.Lock()
		allowed := f.allowed[ruleARN]
		f.mu.Unlock()
		if !allowed {
			return fmt.Errorf("invoke %s: its policy does not allow %s to", name, ruleARN)
		}
		return s.InvokeAsync(name, event)
	}
}

// Run handles asynchronous invocations until ctx ends, and returns when no program runs any more. It is run once.
func (s *Service) Run(ctx context.Context) {
	var handling sync.WaitGroup
	for ctx.Err() == nil {
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, a := range queue {
			handling.Go(func() { s.handle(ctx, a) })
		}
		select {
		case <-ctx.Done():
		case <-s.news:
		}
	}
	handling.Wait()
	s.mu.Lock()
	functions := s.functions
	s.functions = map[string]*function{}
	s.mu.Unlock()
	for _, f := range functions {
		f.close()
	}
}

// handle runs one event until the function succeeds or the retries are used up. An event whose function is gone is
// dropped.
func (s *Service) handle(ctx context.Context, a asynchronous) {
	start, pause := time.Now(), s.config.RetryAfter
	for attempt := 0; ; attempt++ {
		f, err := s.find(a.function)
		if err != nil {
			return
		}
		select {
		case f.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		_, err = f.run(ctx, a.invocation)
		<-f.slots
		f.mu.Lock()
		retries, maxAge := *f.Retries, f.MaxEventAge
		f.mu.Unlock()
		if err == nil || ctx.Err() != nil || attempt >= retries || time.Since(start)+pause > maxAge {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = 2 * s.config.RetryAfter
	}
}

// invocation is an event with the ID of its request, which retries keep.
type invocation struct {
	id    string
	event []byte
}

// run makes one attempt, and notes what became of it.
func (f *function) run(ctx context.Context, in invocation) (answer []byte, err error) {
	past := Invocation{RequestID: in.id, Start: time.Now()}
	f.log.line("START RequestId: %s Version: $LATEST", in.id)
	if f.Handler != nil {
		answer, err = f.inProcess(ctx, in)
		past.Duration = time.Since(past.Start)
	} else {
		answer, err = f.inEnvironment(ctx, in, &past)
	}
	past.Err = err
	if err != nil {
		f.log.line("%s %s", in.id, err)
	}
	f.log.line("END RequestId: %s", in.id)
	f.log.line("%s", past.report(f.MemoryMB))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.past = append(f.past, past)
	return answer, err
}

// report is the line that Lambda writes after each invocation.
func (i Invocation) report(memory int) string {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	line := fmt.Sprintf("REPORT RequestId: %s Duration: %.2f ms Memory Size: %d MB Max Memory Used: %d MB",
		i.RequestID, ms(i.Duration), memory, i.MaxMemory>>20)
	if i.Init > 0 {
		line += fmt.Sprintf(" Init Duration: %.2f ms", ms(i.Init))
	}
	return line
}

// inProcess calls the handler in this process.
func (f *function) inProcess(ctx context.Context, in invocation) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	answer, err := f.Handler(ctx, in.event)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, f.timedOut(in.id)
	}
	if err != nil {
		// The name of the type, as the runtime of Go reports it:
		// https://github.com/aws/aws-lambda-go/blob/main/lambda/errors.go
		kind := reflect.TypeOf(err).String()
		return nil, &FunctionError{Type: strings.TrimPrefix(kind[strings.LastIndex(kind, ".")+1:], "*"), Message: err.Error()}
	}
	return answer, nil
}

// The two errors that the platform itself reports.
// https://docs.aws.amazon.com/lambda/latest/dg/troubleshooting-invocation.html; unverified: the types.
func (f *function) timedOut(id string) *FunctionError {
	return &FunctionError{
		Type: "Sandbox.Timedout", Message: fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", id, f.Timeout.Seconds()),
	}
}

func exited(id string, err error) *FunctionError {
	how := "Runtime exited without providing a reason"
	if err != nil {
		how = "Runtime exited with error: " + err.Error()
	}
	return &FunctionError{Type: "Runtime.ExitError", Message: fmt.Sprintf("RequestId: %s Error: %s", id, how)}
}
