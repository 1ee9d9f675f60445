// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfnapi

import (
	"maps"
	"slices"

	"github.com/multus-vpc/multus-vpc/internal/lab/query"
)

// changeSet is a stack that has been looked at and not made: how `aws cloudformation deploy` begins.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
type changeSet struct {
	id, name string
	plan     plan
	executed bool
}

func (s *Service) createChangeSet(in *query.Parameters) (any, error) {
	name, kind := in.Required("ChangeSetName"), in.Text("ChangeSetType")
	in.Text("Description")
	in.Text("ClientToken")
	if kind != "CREATE" {
		return nil, invalid("the lab does not change stacks: delete %s, and deploy it anew", in.Text("StackName"))
	}
	stackName, p, capabilities, err := s.read(in)
	if err != nil {
		return nil, err
	}
	k, err := s.find(stackName)
	switch {
	case err == nil && k.status != inReview:
		return nil, invalid("Stack [%s] already exists and cannot be created again with the changeSet [%s].", stackName, name)
	case err != nil:
		k = s.add(stackName, inReview)
	}
	k.capabilities = capabilities
	c := changeSet{id: s.config.StackID(stackName) + "/" + name, name: name, plan: p}
	if _, err := k.changeSet(name); err == nil {
		return nil, &query.Error{Code: "AlreadyExistsException", Message: "ChangeSet " + name + " already exists"}
	}
	k.changes = append(k.changes, c)
	return struct {
		ID      string `xml:"Id"`
		StackID string `xml:"StackId"`
	}{c.id, k.id}, nil
}

func (k *stack) changeSet(nameOrID string) (*changeSet, error) {
	i := slices.IndexFunc(k.changes, func(c changeSet) bool { return c.name == nameOrID || c.id == nameOrID })
	if i < 0 {
		return nil, &query.Error{Code: "ChangeSetNotFound", Message: "ChangeSet [" + nameOrID + "] does not exist"}
	}
	return &k.changes[i], nil
}

// named finds the change set of a request.
func (s *Service) named(in *query.Parameters) (*stack, *changeSet, error) {
	name, of := in.Required("ChangeSetName"), in.Text("StackName")
	if err := in.Done(); err != nil {
		return nil, nil, err
	}
	for _, k := range slices.Backward(s.stacks) {
		if of != "" && k.name != of && k.id != of || k.status == deleted {
			continue
		}
		if c, err := k.changeSet(name); err == nil {
			return k, c, nil
		}
	}
	return nil, nil, &query.Error{Code: "ChangeSetNotFound", Message: "ChangeSet [" + name + "] does not exist"}
}

type changeXML struct {
	Type      string
	Action    string `xml:"ResourceChange>Action"`
	LogicalID string `xml:"ResourceChange>LogicalResourceId"`
	Resource  string `xml:"ResourceChange>ResourceType"`
}

func (s *Service) describeChangeSet(in *query.Parameters) (any, error) {
	in.Text("IncludePropertyValues")
	k, c, err := s.named(in)
	if err != nil {
		return nil, err
	}
	out := struct {
		Name      string `xml:"ChangeSetName"`
		ID        string `xml:"ChangeSetId"`
		StackName string
		StackID   string `xml:"StackId"`
		Status    string
		Execution string `xml:"ExecutionStatus"`
		Changes   query.List[changeXML]
	}{Name: c.name, ID: c.id, StackName: k.name, StackID: k.id, Status: "CREATE_COMPLETE", Execution: "AVAILABLE"}
	if c.executed {
		out.Execution = "EXECUTE_COMPLETE"
	}
	for _, id := range slices.Sorted(maps.Keys(c.plan.template.Resources)) {
		out.Changes.Items = append(out.Changes.Items, changeXML{"Resource", "Add", id, c.plan.template.Resources[id].Type})
	}
	return out, nil
}

func (s *Service) executeChangeSet(in *query.Parameters) (any, error) {
	in.Text("ClientRequestToken")
	in.Flag("DisableRollback")
	k, c, err := s.named(in)
	if err != nil {
		return nil, err
	}
	if c.executed || k.status != inReview {
		return nil, &query.Error{Code: "InvalidChangeSetStatus", Message: "ChangeSet [" + c.name + "] cannot be executed in its current status"}
	}
	c.executed = true
	k.plan = c.plan
	s.turn(k, creating, "User Initiated")
	s.deploy(k)
	return nil, nil
}
