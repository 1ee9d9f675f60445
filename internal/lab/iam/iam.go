// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package iam is the lab's IAM: roles with their policies, and the judgement of each call that is made with a role's
// credentials, as EC2 and Auto Scaling make it.
//
// Stacks make roles, and functions assume them. It promises least privilege in earnest: what no statement allows is
// refused with the service's own error, conditions on tags included. Callers without a role (the agents of a scenario,
// people) may do everything. A statement that it does not understand is an error where the role is made. Users, groups,
// boundaries, resource policies and managed policies do not belong here.
//
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
package iam

import (
	"fmt"
	"maps"
	"strings"
	"sync"
)

// Request is one question to a principal's policies: an action on one resource. A call may ask several.
type Request struct {
	Action   string            // "ec2:AttachNetworkInterface"
	Resource string            // its ARN, or "*" of actions that know none
	Keys     map[string]string // condition keys with their values
}

// Service knows who has which role. Its methods are safe for concurrent use.
type Service struct {
	account string

	mu      sync.Mutex
	roles   map[string]Role   // by ARN
	callers map[string]caller // by access key ID
}

// caller is who has assumed a role.
type caller struct{ role, service string }

// Role is a set of permissions that services give to what they run.
type Role struct {
	ARN      string
	Policies []Policy
	Services []string // principals that may assume it, "lambda.amazonaws.com"
}

// New makes a service without roles.
func New(account string) *Service {
	return &Service{account: account, roles: map[string]Role{}, callers: map[string]caller{}}
}

// PutRole makes or replaces a role.
func (s *Service) PutRole(r Role) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[r.ARN] = r
}

// DeleteRole removes a role: those that have it may do nothing any more. Deleting twice succeeds.
func (s *Service) DeleteRole(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.roles, arn)
}

// Assume gives a role to who calls with the access key ID, on behalf of a service.
func (s *Service) Assume(service, accessKeyID, arn string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	role, ok := s.roles[arn]
	if !ok {
		return fmt.Errorf("there is no role %s", arn)
	}
	for _, may := range role.Services {
		if may == service {
			s.callers[accessKeyID] = caller{arn, service}
			return nil
		}
	}
	// The wording is Lambda's: https://repost.aws/knowledge-center/lambda-function-assume-iam-role
	return fmt.Errorf("the role %s cannot be assumed by %s", arn, service)
}

// Denied is a call that no policy allows.
type Denied struct {
	Principal string
	Request
}

// Error has the words of AWS.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
func (d *Denied) Error() string {
	return fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
		d.Principal, d.Action, d.Resource, d.Action)
}

// keySourceFunction is a key of all calls that a function's program makes, and of none that Lambda makes with the function's role.
// https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
const keySourceFunction, lambdaService = "lambda:SourceFunctionArn", "lambda.amazonaws.com"

// Judge returns a [*Denied] for the first request that the caller's role does not allow, and nil for a caller without one.
func (s *Service) Judge(accessKeyID string, requests []Request) error {
	s.mu.Lock()
	who, has := s.callers[accessKeyID]
	role, arn := s.roles[who.role], who.role
	s.mu.Unlock()
	if !has {
		return nil
	}
	for _, q := range requests {
		if who.service == lambdaService {
			q.Keys = maps.Clone(q.Keys)
			if q.Keys == nil {
				q.Keys = map[string]string{}
			}
			q.Keys[keySourceFunction] = accessKeyID // instead of its ARN: who asks is known by the function's name here
		}
		if !role.allows(q) {
			name := arn[strings.LastIndexByte(arn, '/')+1:]
			return &Denied{Request: q, Principal: fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", s.account, name, accessKeyID)}
		}
	}
	return nil
}

// allows: an explicit deny wins, and what nothing allows is denied.
func (r Role) allows(q Request) bool {
	allowed := false
	for _, p := range r.Policies {
		for _, s := range p.statements {
			if !s.covers(q) {
				continue
			}
			if s.deny {
				return false
			}
			allowed = true
		}
	}
	return allowed
}
