// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package lambda is the lab's Lambda: functions that are the real `bootstrap` programs of a deployment, run as processes
// that fetch their events from the runtime API; or, where a test wants a synctest bubble, functions of Go in this process.
//
// The lab's EventBridge invokes them, and tests do. It promises what Lambda does to a program: one invocation at a time in
// each execution environment, environments that are kept and used again, an end by SIGKILL at the timeout, two retries of
// asynchronous invocations that fail. What a function writes is kept, with the lines that Lambda adds. Layers,
// extensions, versions and the API by which functions are made do not belong here.
//
// https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
package lambda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// Function describes a function.
type Function struct {
	Name string
	// Program is the path of the bootstrap. Handler is used instead of it when it is set: it must return when its context
	// ends, which is at the timeout.
	Program string
	Handler func(ctx context.Context, event []byte) ([]byte, error)

	Timeout     time.Duration     // 1 s to 15 min; default 3 s
	MemoryMB    int               // default 128; shown to the program and in the log, not enforced
	Environment map[string]string // of the program, beside Lambda's own
	// Concurrency is how many invocations run at once at most; 0 means the account's 1000.
	Concurrency int
	// Retries of an asynchronous invocation that failed: nil means 2.
	Retries *int
	// MaxEventAge is how long an asynchronous invocation is kept for retries; default and most 6 h.
	MaxEventAge time.Duration
}

// Limits and defaults.
// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
// https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
const (
	defaultTimeout     = 3 * time.Second
	maxTimeout         = 15 * time.Minute
	defaultMemory      = 128
	defaultConcurrency = 1000
	maxEnvironment     = 4 << 10 // names and values of the variables
	defaultRetries     = 2
	maxEventAge        = 6 * time.Hour
	retryAfter         = time.Minute // and two for the second retry
)

// Config makes a [Service].
type Config struct {
	Account, Region string
	// Environment is what every program gets: where the lab's other services are.
	Environment map[string]string
	// RetryAfter is how long the first retry of an asynchronous invocation waits, and half of what the second does; default
	// one minute, which is Lambda's. Tests with real programs have less patience.
	RetryAfter time.Duration
	// Log gets what the functions write, too; nil drops it.
	Log io.Writer
}

// Service runs functions. Its methods are safe for concurrent use. Asynchronous invocations wait until [Service.Run] runs;
// when that ends no program of it runs any more.
type Service struct {
	config Config

	mu        sync.Mutex
	functions map[string]*function
	queue     []asynchronous
	news      chan struct{} // holds one value while there is something new in queue
	serial    int
}

// function is a function with its execution environments.
type function struct {
	Function
	service *Service
	log     *journal
	slots   chan struct{} // one value for each invocation that runs

	mu      sync.Mutex
	allowed map[string]bool // ARNs of what may invoke it
	idle    []*environment
	all     map[*environment]bool
	past    []Invocation
	closed  bool // no more programs are started
}

// Invocation is what became of one attempt to run a function.
type Invocation struct {
	RequestID string
	Start     time.Time
	Duration  time.Duration // of the handler
	Init      time.Duration // of the program until it asked for its first event; 0 in an environment that was used before
	MaxMemory int64         // bytes that the environment has had resident at most; 0 when it is not known
	Err       error         // nil, or a [*FunctionError]
}

// New makes a service without functions.
func New(c Config) *Service {
	if c.Log == nil {
		c.Log = io.Discard
	}
	if c.RetryAfter == 0 {
		c.RetryAfter = retryAfter
	}
	return &Service{config: c, functions: map[string]*function{}, news: make(chan struct{}, 1)}
}

// SetEnvironment replaces what every program gets; those that run keep what they got.
func (s *Service) SetEnvironment(env map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Environment = maps.Clone(env)
}

// ARN is the ARN that a function of that name has.
func (s *Service) ARN(name string) string {
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", s.config.Region, s.config.Account, name)
}

// Create makes a function.
func (s *Service) Create(in Function) error {
	if in.Timeout == 0 {
		in.Timeout = defaultTimeout
	}
	if in.MemoryMB == 0 {
		in.MemoryMB = defaultMemory
	}
	if in.Concurrency == 0 {
		in.Concurrency = defaultConcurrency
	}
	if in.Retries == nil {
		n := defaultRetries
		in.Retries = &n
	}
	if in.MaxEventAge == 0 {
		in.MaxEventAge = maxEventAge
	}
	switch {
	case in.Name == "":
		return errors.New("create function: it has no name")
	case (in.Program == "") == (in.Handler == nil):
		return fmt.Errorf("create function %s: it needs either a program or a handler", in.Name)
	case in.Timeout < time.Second || in.Timeout > maxTimeout:
		return fmt.Errorf("create function %s: its timeout must be 1 s to 15 min", in.Name)
	case in.Concurrency < 0:
		return fmt.Errorf("create function %s: its concurrency must not be negative", in.Name)
	case *in.Retries < 0 || *in.Retries > defaultRetries:
		return fmt.Errorf("create function %s: its retries must be 0 to %d", in.Name, defaultRetries)
	case in.MaxEventAge < time.Minute || in.MaxEventAge > maxEventAge:
		return fmt.Errorf("create function %s: its events must be kept for 1 min to 6 h", in.Name)
	case sizeOf(in.Environment) > maxEnvironment:
		return fmt.Errorf("create function %s: its environment variables exceed the 4KB limit", in.Name)
	}
	in.Environment = maps.Clone(in.Environment)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.functions[in.Name]; taken {
		return fmt.Errorf("create function %s: it exists", in.Name)
	}
	s.functions[in.Name] = &function{
		Function: in, service: s, log: newJournal(s.config.Log), all: map[*environment]bool{}, allowed: map[string]bool{}, slots: make(chan struct{}, in.Concurrency),
	}
	return nil
}

// sizeOf is what counts of an environment; unverified: what stands between the variables.
func sizeOf(environment map[string]string) (n int) {
	for k, v := range environment {
		n += len(k) + len(v)
	}
	return n
}

// Configure says how asynchronous invocations of a function are retried, from the next event on.
// https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionEventInvokeConfig.html
func (s *Service) Configure(name string, retries int, maxAge time.Duration) error {
	f, err := s.find(name)
	if err != nil {
		return fmt.Errorf("configure retries: %w", err)
	}
	if retries < 0 || retries > defaultRetries || maxAge < time.Minute || maxAge > maxEventAge {
		return fmt.Errorf("configure retries of %s: 0 to %d retries in 1 min to 6 h", name, defaultRetries)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Retries, f.MaxEventAge = &retries, maxAge
	return nil
}

// Allow lets what has the ARN invoke a function, as a statement of the function's policy does.
// https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
func (s *Service) Allow(name, sourceARN string) error {
	f, err := s.find(name)
	if err != nil {
		return fmt.Errorf("add permission: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allowed[sourceARN] = true
	return nil
}

// Delete removes a function and ends its programs. Deleting one that does not exist is an error.
func (s *Service) Delete(name string) error {
	f, err := s.find(name)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	s.mu.Lock()
	delete(s.functions, name)
	s.mu.Unlock()
	f.close()
	return nil
}

// Kill ends every program of a function by SIGKILL, as a failing host would, and returns how many there were.
func (s *Service) Kill(name string) int {
	f, err := s.find(name)
	if err != nil {
		return 0
	}
	return f.kill()
}

// Logs is what the function has written so far, the newest megabyte.
func (s *Service) Logs(name string) string {
	f, err := s.find(name)
	if err != nil {
		return ""
	}
	return f.log.String()
}

// Invocations are the attempts to run a function that have ended, in the order of their ends.
func (s *Service) Invocations(name string) []Invocation {
	f, err := s.find(name)
	if err != nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.past)
}

func (s *Service) find(name string) (*function, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.functions[name]
	if !ok {
		return nil, fmt.Errorf("function not found: %s", s.ARN(name))
	}
	return f, nil
}

// newRequestID makes an ID in Lambda's form.
func (s *Service) newRequestID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", s.serial)
}

// FunctionError is a function that failed.
// https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html (error request)
type FunctionError struct {
	Type    string `json:"errorType"`
	Message string `json:"errorMessage"`
}

func (e *FunctionError) Error() string { return e.Type + ": " + e.Message }
