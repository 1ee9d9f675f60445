// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package cfnapi is AWS CloudFormation's query API over the laboratory's engine: what an unmodified AWS SDK or AWS CLI
// speaks to, `aws cloudformation deploy` included.
//
// vpclab serves it. Stacks are made and deleted beside the calls, which return at once, and are described while that goes
// on. It promises to know what it does not know: an action or parameter that is not implemented is refused, never ignored.
// Stacks are not changed: a second deploy of the same name is refused. What templates mean is package cloudformation's.
//
// Protocol: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/Welcome.html
package cfnapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/query"
)

// Version is the only version of the API that clients use.
const Version = "2010-05-15"

const namespace = "http://cloudformation.amazonaws.com/doc/" + Version + "/"

// Config makes a [Service].
type Config struct {
	Engine *cloudformation.Engine
	// StackID is the ID of a stack by its name.
	StackID func(name string) string
	// Go runs work beside the caller, with a context that ends when the lab does.
	Go func(work func(context.Context))
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Service answers requests. Its methods are safe for concurrent use.
type Service struct {
	config Config

	mu     sync.Mutex
	stacks []*stack // the newest last; deleted ones stay
	serial int
}

// New makes a service without stacks.
func New(c Config) *Service {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{config: c}
}

// action serves one request. A nil result is an empty answer.
type action func(s *Service, in *query.Parameters) (result any, err error)

func actions() map[string]action {
	return map[string]action{
		"CreateChangeSet":        (*Service).createChangeSet,
		"CreateStack":            (*Service).createStack,
		"DeleteStack":            (*Service).deleteStack,
		"DescribeChangeSet":      (*Service).describeChangeSet,
		"DescribeStackEvents":    (*Service).describeEvents,
		"DescribeStackResources": (*Service).describeResources,
		"DescribeStacks":         (*Service).describeStacks,
		"ExecuteChangeSet":       (*Service).executeChangeSet,
		"GetTemplateSummary":     (*Service).summarize,
	}
}

// ServeHTTP implements [http.Handler]. Signatures are not verified.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := query.RequestID()
	if err := r.ParseForm(); err != nil {
		query.WriteError(w, namespace, "MalformedQueryString", "The query string contains a syntax error.", id)
		return
	}
	name := r.Form.Get("Action")
	result, err := s.serve(name, r.Form.Get("Version"), query.NewParameters(r.Form))
	if err == nil {
		query.WriteResult(w, namespace, name, result, id)
		return
	}
	refusal, ok := errors.AsType[*query.Error](err)
	if !ok {
		refusal = &query.Error{Code: "InternalFailure", Message: err.Error()}
	}
	query.WriteError(w, namespace, refusal.Code, refusal.Message, id)
}

func (s *Service) serve(name, version string, in *query.Parameters) (any, error) {
	run, ok := actions()[name]
	if !ok || version != Version {
		return nil, &query.Error{Code: "InvalidAction", Message: fmt.Sprintf("Could not find operation %s for version %s", name, version)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return run(s, in)
}

// invalid is CloudFormation's code for nearly everything.
func invalid(format string, args ...any) error {
	return &query.Error{Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

// find returns the stack of a name or an ID: of a name one that is not deleted, of an ID the newest.
func (s *Service) find(nameOrID string) (*stack, error) {
	for _, k := range slices.Backward(s.stacks) {
		if k.name == nameOrID && k.status != deleted || k.id == nameOrID {
			return k, nil
		}
	}
	// https://github.com/aws/aws-cli/blob/v2/awscli/customizations/cloudformation/deployer.py (has_stack)
	return nil, invalid("Stack with id %s does not exist", nameOrID)
}

// Observe takes what the engine tells of a stack's resources.
func (s *Service) Observe(e cloudformation.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, err := s.find(e.Stack); err == nil {
		s.note(k, e)
	}
}

// note adds to a stack's history.
func (s *Service) note(k *stack, e cloudformation.Event) {
	s.serial++
	k.events = append(k.events, event{Event: e, id: fmt.Sprintf("%08d", s.serial), at: s.config.Now()})
}
