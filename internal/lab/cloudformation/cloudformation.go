// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package cloudformation deploys templates into the lab: it is the laboratory's AWS CloudFormation.
//
// vpclab and the tests of cfn/ deploy our own templates with it. It knows the intrinsic functions and the sections that
// those templates use, and the resource types that it was given a [Provider] for. Everything else is an error that names
// the path in the template and the type or the function: nothing is ignored, so what deploys here has been understood.
// Resources are made in the order of their dependencies and deleted in the reverse order; when one fails, those made
// before it are deleted again and the stack is gone.
//
// Property names are not checked here beyond what a provider reads: that is the schema's, see test/cfn. Changing a stack
// that exists does not belong here, and resources do not get the tags aws:cloudformation:….
package cloudformation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Config is what an [Engine] works with.
type Config struct {
	Region    string
	AccountID string
	Zones     []string // of the Region, in the order of Fn::GetAZs

	// Parameters answers the parameter types AWS::SSM::Parameter::Value<…>: the value by the parameter's name. Nil knows none.
	Parameters func(name string) (value string, ok bool)

	// Providers make the resources, by type.
	Providers map[string]Provider

	// Observe gets what becomes of each resource, in order for one stack; nil drops it. It must not call the engine.
	Observe func(Event)
}

// Event is a resource of a stack on its way.
type Event struct {
	Stack, LogicalID, Type string
	PhysicalID             string // empty while there is none
	Status                 string // CREATE_IN_PROGRESS and so on
	Reason                 string // of a failure
}

// Provider makes and deletes resources of one type. Both may take until they are done or ctx is.
type Provider interface {
	// Create makes the resource. When it fails, nothing is left of it.
	Create(ctx context.Context, r Request) (Physical, error)

	// Delete deletes what Create made. It succeeds when it is gone already.
	Delete(ctx context.Context, r Request, p Physical) error
}

// Lister is a provider whose resources have lists of strings as attributes, which may come after the resource was made.
type Lister interface {
	// List returns the attribute as it is now; false when the type has none of that name.
	List(p Physical, attribute string) (values []string, ok bool)
}

// Request is one resource of a stack, with everything resolved.
type Request struct {
	Stack      string
	LogicalID  string
	Type       string
	Properties *Properties
}

// Physical is a resource as it was made.
type Physical struct {
	Ref        string            // what Ref returns
	Attributes map[string]string // what Fn::GetAtt returns; see also [Lister]
}

// Stack is a deployed template.
type Stack struct {
	Name      string
	Status    string // one of those below; of the last two, resources are left
	Outputs   map[string]string
	Resources []Resource // in the order in which they were made
}

// Resource is one resource of a [Stack].
type Resource struct {
	Request
	Physical
}

// Status of a [Stack] that exists.
const (
	StatusCreateComplete = "CREATE_COMPLETE"
	StatusRollbackFailed = "ROLLBACK_FAILED"
	StatusDeleteFailed   = "DELETE_FAILED"
)

// Find returns the resource of a logical ID.
func (s Stack) Find(logicalID string) (Resource, bool) {
	i := slices.IndexFunc(s.Resources, func(r Resource) bool { return r.LogicalID == logicalID })
	if i < 0 {
		return Resource{}, false
	}
	return s.Resources[i], true
}

// Engine holds the stacks of one account and Region. It is safe for concurrent use; a call for a stack that is
// being changed is refused.
type Engine struct {
	cfg Config

	mu     sync.Mutex
	stacks map[string]Stack
	busy   map[string]bool
}

// New returns an engine without stacks.
func New(cfg Config) *Engine {
	if cfg.Observe == nil {
		cfg.Observe = func(Event) {}
	}
	return &Engine{cfg: cfg, stacks: map[string]Stack{}, busy: map[string]bool{}}
}

// Stacks returns every stack, by name.
func (e *Engine) Stacks() []Stack {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.SortedFunc(maps.Values(e.stacks), func(a, b Stack) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
}

// Check returns why a template could not be deployed with these parameters, as far as that can be told before anything is
// made: parameters, conditions, types that the lab does not make.
func (e *Engine) Check(name string, t *Template, parameters map[string]string) error {
	s, err := newScope(e.cfg, name, t, parameters)
	if err != nil {
		return err
	}
	_, err = s.plan(e.cfg.Providers)
	return err
}

// observe tells of one resource.
func (e *Engine) observe(r Request, p Physical, status string, err error) {
	event := Event{Stack: r.Stack, LogicalID: r.LogicalID, Type: r.Type, PhysicalID: p.Ref, Status: status + "_COMPLETE"}
	if err != nil {
		event.Status, event.Reason = status+"_FAILED", err.Error()
	}
	e.cfg.Observe(event)
}

// Create deploys a template. Parameters that it leaves out have their defaults. When it fails nothing is left, unless
// the error says that the rollback failed too: then the stack exists with what is left, for [Engine.Delete].
func (e *Engine) Create(ctx context.Context, name string, t *Template, parameters map[string]string) (out Stack, err error) {
	if err = e.begin(name, true); err != nil {
		return Stack{}, err
	}
	defer func() { e.end(name, out) }()

	s, err := newScope(e.cfg, name, t, parameters)
	if err != nil {
		return Stack{}, err
	}
	order, err := s.plan(e.cfg.Providers)
	if err != nil {
		return Stack{}, err
	}
	out = Stack{Name: name, Status: StatusCreateComplete, Outputs: map[string]string{}}
	if err = e.createAll(ctx, s, order, &out); err == nil {
		return out, nil
	}
	err = fmt.Errorf("create stack %s: %w", name, err)
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	if left, failure := e.deleteAll(cleanup, out.Resources); failure != nil {
		out.Status, out.Resources = StatusRollbackFailed, left
		return out, errors.Join(err, fmt.Errorf("roll back: %w", failure))
	}
	return Stack{}, err
}

// rollbackTimeout bounds the deletion of what a failed stack had made: an Auto Scaling group's instances have their
// termination hooks, 300 s in our templates.
const rollbackTimeout = 10 * time.Minute

func (e *Engine) createAll(ctx context.Context, s *scope, order []string, out *Stack) error {
	for _, id := range order {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := s.request(id)
		if err != nil {
			return err
		}
		e.cfg.Observe(Event{Stack: r.Stack, LogicalID: r.LogicalID, Type: r.Type, Status: "CREATE_IN_PROGRESS"})
		p, err := e.cfg.Providers[r.Type].Create(ctx, r)
		if err == nil {
			out.Resources = append(out.Resources, Resource{Request: r, Physical: p})
			err = r.Properties.unread()
		}
		if e.observe(r, p, "CREATE", err); err != nil {
			return fmt.Errorf("create %s (%s): %w", id, r.Type, err)
		}
		s.made[id] = p
	}
	return s.outputs(out.Outputs)
}

// Delete deletes a stack, its resources in the reverse order. A resource that cannot be deleted keeps those that it
// depends on, and the stack: a later Delete goes on. A stack that does not exist is deleted.
func (e *Engine) Delete(ctx context.Context, name string) error {
	if err := e.begin(name, false); err != nil {
		return err
	}
	e.mu.Lock()
	s := e.stacks[name]
	e.mu.Unlock()
	defer func() { e.end(name, s) }()
	left, err := e.deleteAll(ctx, s.Resources)
	if err != nil {
		s.Status, s.Resources = StatusDeleteFailed, left
		return fmt.Errorf("delete stack %s: %w", name, err)
	}
	s = Stack{}
	return nil
}

func (e *Engine) deleteAll(ctx context.Context, made []Resource) (left []Resource, failure error) {
	for i, r := range slices.Backward(made) {
		e.cfg.Observe(Event{Stack: r.Stack, LogicalID: r.LogicalID, Type: r.Type, PhysicalID: r.Ref, Status: "DELETE_IN_PROGRESS"})
		err := e.cfg.Providers[r.Type].Delete(ctx, r.Request, r.Physical)
		if e.observe(r.Request, r.Physical, "DELETE", err); err != nil {
			return made[:i+1], fmt.Errorf("delete %s (%s) %s: %w", r.LogicalID, r.Type, r.Ref, err)
		}
	}
	return nil, nil
}

// begin claims a stack's name.
func (e *Engine) begin(name string, create bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[name] {
		return fmt.Errorf("stack %s is being changed", name)
	}
	if _, exists := e.stacks[name]; exists && create {
		return fmt.Errorf("stack %s exists already", name)
	}
	e.busy[name] = true
	return nil
}

// end gives the name back, with what there is of the stack now.
func (e *Engine) end(name string, s Stack) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.busy, name)
	if s.Name == "" {
		delete(e.stacks, name)
		return
	}
	e.stacks[name] = s
}
