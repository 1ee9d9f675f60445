// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cloudformation

import (
	"maps"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/events"
	"github.com/multus-vpc/multus-vpc/internal/lab/iam"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// Services are what a lab has to make resources of.
type Services struct {
	Cloud     *vpc.Cloud
	Scaling   *autoscaling.Service
	Events    *events.Bus
	Functions *lambda.Service
	Inert     *Inert
	Roles     *iam.Service
	// Code finds the program of a function by the bucket and the key of its package, see [Reactions].
	Code func(bucket, key string) (program string, err error)
}

// Providers returns those of every type that the lab makes.
func (s Services) Providers() map[string]Provider {
	out := s.Inert.Providers()
	maps.Copy(out, Network(s.Cloud))
	maps.Copy(out, Scaling(s.Cloud, s.Scaling))
	maps.Copy(out, Reactions(s.Functions, s.Events, s.Roles, s.Code))
	out["AWS::IAM::Role"] = roleProvider{s.Inert, s.Roles}
	return out
}
