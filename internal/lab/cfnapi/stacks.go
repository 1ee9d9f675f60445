// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfnapi

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/query"
)

// stack is a stack as its describers see it.
type stack struct {
	id, name, status, reason string
	created, gone            time.Time
	capabilities             []string
	plan                     plan
	outputs                  map[string]string
	events                   []event // the newest last
	changes                  []changeSet
}

// event is a line of a stack's history.
type event struct {
	cloudformation.Event
	id string
	at time.Time
}

// Status of a stack, beside those of package cloudformation.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html
const (
	inReview   = "REVIEW_IN_PROGRESS"
	creating   = "CREATE_IN_PROGRESS"
	rolledBack = "ROLLBACK_COMPLETE"
	deleting   = "DELETE_IN_PROGRESS"
	deleted    = "DELETE_COMPLETE"
)

const stackType = "AWS::CloudFormation::Stack"

// plan is what a stack is to be made of.
type plan struct {
	template   *cloudformation.Template
	parameters map[string]string
}

var stackName = regexp.MustCompile(`^[A-Za-z][-A-Za-z0-9]{0,127}$`)

// read reads template, parameters and capabilities, which CreateStack and CreateChangeSet have in common.
func (s *Service) read(in *query.Parameters) (name string, p plan, capabilities []string, err error) {
	name = in.Required("StackName")
	body := in.Required("TemplateBody")
	p.parameters = map[string]string{}
	for _, at := range in.Members("Parameters") {
		key := in.Required(at + ".ParameterKey")
		p.parameters[key] = in.Text(at + ".ParameterValue")
	}
	capabilities = in.Texts("Capabilities")
	in.Members("Tags") // of none: a tag is refused as unknown
	return name, p, capabilities, s.check(in, name, body, &p, capabilities)
}

// check refuses what CloudFormation refuses at once, and reads the template into p.
func (s *Service) check(in *query.Parameters, name, body string, p *plan, capabilities []string) (err error) {
	if err = in.Done(); err != nil {
		return err
	}
	if !stackName.MatchString(name) {
		return invalid("1 validation error detected: Value '%s' at 'stackName' failed to satisfy constraint: "+
			"Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*", name)
	}
	// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
	if len(body) > 51200 {
		return invalid("1 validation error detected: Value at 'templateBody' failed to satisfy constraint: Member must have length less than or equal to 51200")
	}
	if p.template, err = cloudformation.Parse([]byte(body)); err != nil {
		return invalid("Template format error: %v", err)
	}
	for _, r := range p.template.Resources {
		// https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html (Capabilities)
		if strings.HasPrefix(r.Type, "AWS::IAM::") && !slices.Contains(capabilities, "CAPABILITY_IAM") && !slices.Contains(capabilities, "CAPABILITY_NAMED_IAM") {
			return &query.Error{Code: "InsufficientCapabilitiesException", Message: "Requires capabilities : [CAPABILITY_IAM]"}
		}
	}
	if err = s.config.Engine.Check(name, p.template, p.parameters); err != nil {
		return invalid("%v", err)
	}
	return nil
}

type stackIDResult struct {
	StackID string `xml:"StackId"`
}

func (s *Service) createStack(in *query.Parameters) (any, error) {
	in.Text("ClientRequestToken")
	name, p, capabilities, err := s.read(in)
	if err != nil {
		return nil, err
	}
	if _, err := s.find(name); err == nil {
		return nil, &query.Error{Code: "AlreadyExistsException", Message: "Stack [" + name + "] already exists"}
	}
	k := s.add(name, creating)
	k.plan, k.capabilities = p, capabilities
	s.deploy(k)
	return stackIDResult{k.id}, nil
}

func (s *Service) add(name, status string) *stack {
	k := &stack{id: s.config.StackID(name), name: name, created: s.config.Now()}
	s.stacks = append(s.stacks, k)
	s.turn(k, status, "")
	return k
}

// turn gives a stack a status.
func (s *Service) turn(k *stack, status, reason string) {
	k.status, k.reason = status, reason
	s.note(k, cloudformation.Event{Stack: k.name, LogicalID: k.name, Type: stackType, PhysicalID: k.id, Status: status, Reason: reason})
}

// deploy makes the stack beside the call.
func (s *Service) deploy(k *stack) {
	p := k.plan
	s.config.Go(func(ctx context.Context) {
		made, err := s.config.Engine.Create(ctx, k.name, p.template, p.parameters)
		s.mu.Lock()
		defer s.mu.Unlock()
		k.outputs = made.Outputs
		switch {
		case err == nil:
			s.turn(k, made.Status, "")
		case made.Status != "":
			s.turn(k, made.Status, err.Error())
		default:
			s.turn(k, rolledBack, err.Error())
		}
	})
}

func (s *Service) deleteStack(in *query.Parameters) (any, error) {
	name := in.Required("StackName")
	in.Text("ClientRequestToken")
	if err := in.Done(); err != nil {
		return nil, err
	}
	k, err := s.find(name)
	switch {
	case err != nil || k.status == deleted || k.status == deleting:
		return nil, nil // deleting what is not there succeeds
	case k.status == creating:
		return nil, invalid("Stack [%s] is being created; the lab does not cancel that", name)
	}
	s.turn(k, deleting, "User Initiated")
	s.config.Go(func(ctx context.Context) {
		err := s.config.Engine.Delete(ctx, k.name)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.turn(k, cloudformation.StatusDeleteFailed, err.Error())
			return
		}
		s.turn(k, deleted, "")
		k.gone = s.config.Now()
	})
	return nil, nil
}

type parameterXML struct {
	Key   string `xml:"ParameterKey"`
	Value string `xml:"ParameterValue"`
}

type outputXML struct {
	Key         string `xml:"OutputKey"`
	Value       string `xml:"OutputValue"`
	Description string `xml:"Description,omitempty"`
}

type stackXML struct {
	ID              string `xml:"StackId"`
	Name            string `xml:"StackName"`
	Description     string `xml:"Description,omitempty"`
	CreationTime    string
	DeletionTime    string                   `xml:"DeletionTime,omitempty"`
	Status          string                   `xml:"StackStatus"`
	Reason          string                   `xml:"StackStatusReason,omitempty"`
	Capabilities    query.List[string]       `xml:"Capabilities"`
	Parameters      query.List[parameterXML] `xml:"Parameters"`
	Outputs         query.List[outputXML]    `xml:"Outputs"`
	DisableRollback bool
}

func (k *stack) xml() stackXML {
	out := stackXML{
		ID: k.id, Name: k.name, Status: k.status, Reason: k.reason, CreationTime: stamp(k.created), DeletionTime: stamp(k.gone),
		Capabilities: query.List[string]{Items: k.capabilities},
	}
	t := k.plan.template
	if t == nil {
		return out
	}
	out.Description = t.Description
	for _, name := range slices.Sorted(maps.Keys(t.Parameters)) {
		value, given := k.plan.parameters[name]
		if p := t.Parameters[name]; !given && p.Default != nil {
			value = *p.Default
		}
		out.Parameters.Items = append(out.Parameters.Items, parameterXML{name, value})
	}
	for _, name := range slices.Sorted(maps.Keys(k.outputs)) {
		out.Outputs.Items = append(out.Outputs.Items, outputXML{name, k.outputs[name], t.Outputs[name].Description})
	}
	return out
}

// stamp writes a time as the API does, and nothing for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
