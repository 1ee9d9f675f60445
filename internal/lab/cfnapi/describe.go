// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfnapi

import (
	"maps"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/query"
)

func (s *Service) describeStacks(in *query.Parameters) (any, error) {
	name := in.Text("StackName")
	if err := in.Done(); err != nil {
		return nil, err
	}
	var out struct{ Stacks query.List[stackXML] }
	if name != "" {
		k, err := s.find(name)
		if err != nil {
			return nil, err
		}
		out.Stacks.Items = []stackXML{k.xml()}
		return out, nil
	}
	for _, k := range slices.Backward(s.stacks) {
		if k.status != deleted {
			out.Stacks.Items = append(out.Stacks.Items, k.xml())
		}
	}
	return out, nil
}

type eventXML struct {
	StackID    string `xml:"StackId"`
	EventID    string `xml:"EventId"`
	StackName  string
	LogicalID  string `xml:"LogicalResourceId"`
	PhysicalID string `xml:"PhysicalResourceId"`
	Type       string `xml:"ResourceType"`
	Timestamp  string
	Status     string `xml:"ResourceStatus"`
	Reason     string `xml:"ResourceStatusReason,omitempty"`
}

// describeEvents answers the newest first, all on one page.
func (s *Service) describeEvents(in *query.Parameters) (any, error) {
	name := in.Required("StackName")
	if err := in.Done(); err != nil {
		return nil, err
	}
	k, err := s.find(name)
	if err != nil {
		return nil, err
	}
	var out struct {
		Events query.List[eventXML] `xml:"StackEvents"`
	}
	for _, e := range slices.Backward(k.events) {
		out.Events.Items = append(out.Events.Items, eventXML{
			StackID: k.id, EventID: e.id, StackName: k.name, LogicalID: e.LogicalID, PhysicalID: e.PhysicalID, Type: e.Type,
			Timestamp: stamp(e.at), Status: e.Status, Reason: e.Reason,
		})
	}
	return out, nil
}

// describeResources answers each resource as it was seen last.
func (s *Service) describeResources(in *query.Parameters) (any, error) {
	name, only := in.Required("StackName"), in.Text("LogicalResourceId")
	if err := in.Done(); err != nil {
		return nil, err
	}
	k, err := s.find(name)
	if err != nil {
		return nil, err
	}
	var out struct {
		Resources query.List[eventXML] `xml:"StackResources"`
	}
	seen := map[string]bool{k.name: true}
	for _, e := range slices.Backward(k.events) {
		if seen[e.LogicalID] || only != "" && e.LogicalID != only {
			continue
		}
		seen[e.LogicalID] = true
		out.Resources.Items = append(out.Resources.Items, eventXML{
			StackID: k.id, StackName: k.name, LogicalID: e.LogicalID, PhysicalID: e.PhysicalID, Type: e.Type,
			Timestamp: stamp(e.at), Status: e.Status, Reason: e.Reason,
		})
	}
	slices.Reverse(out.Resources.Items)
	return out, nil
}

type declarationXML struct {
	Key         string  `xml:"ParameterKey"`
	Default     *string `xml:"DefaultValue"`
	Type        string  `xml:"ParameterType"`
	Description string  `xml:"Description,omitempty"`
}

// summarize tells what a template takes: that of a stack, or one that is given.
func (s *Service) summarize(in *query.Parameters) (any, error) {
	name, body := in.Text("StackName"), in.Text("TemplateBody")
	if err := in.Done(); err != nil {
		return nil, err
	}
	var t *cloudformation.Template
	if body != "" {
		var err error
		if t, err = cloudformation.Parse([]byte(body)); err != nil {
			return nil, invalid("Template format error: %v", err)
		}
	} else {
		k, err := s.find(name)
		if err != nil {
			return nil, err
		}
		t = k.plan.template
	}
	var out struct {
		Description string                     `xml:"Description,omitempty"`
		Parameters  query.List[declarationXML] `xml:"Parameters"`
	}
	if t == nil { // of a stack that has only been looked at
		return out, nil
	}
	out.Description = t.Description
	for _, name := range slices.Sorted(maps.Keys(t.Parameters)) {
		p := t.Parameters[name]
		out.Parameters.Items = append(out.Parameters.Items, declarationXML{name, p.Default, p.Type, p.Description})
	}
	return out, nil
}
