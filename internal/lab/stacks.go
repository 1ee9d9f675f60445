// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab

import (
	"context"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/cfnapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
)

// mountStacks makes the engine that deploys templates, and its API. Functions run the bootstrap of their package.
func (r *Running) mountStacks(live context.Context, buckets map[string]string) {
	r.buckets = lambda.NewBuckets(buckets)
	region := r.Cloud.Region()
	r.Inert = cloudformation.NewInert(region, r.Cloud.AccountID())
	var api *cfnapi.Service
	cfg := cloudformation.Config{
		Region: region, AccountID: r.Cloud.AccountID(),
		Zones:      []string{region + "a", region + "b", region + "c"},
		Parameters: imageParameter,
		Providers: cloudformation.Services{
			Cloud: r.Cloud, Scaling: r.Scaling, Events: r.Events, Functions: r.Functions, Inert: r.Inert, Roles: r.Roles,
			Code: r.buckets.Program,
		}.Providers(),
		Observe: func(e cloudformation.Event) { api.Observe(e) },
	}
	r.Stacks = cloudformation.New(cfg)
	api = cfnapi.New(cfnapi.Config{Engine: r.Stacks, StackID: cfg.StackID, Go: func(work func(context.Context)) {
		r.group.Go(func() error {
			work(live)
			return nil
		})
	}})
	r.cloudFormation = api
}

// imageParameter answers the public parameters that name the images of workers. The lab has no images: one ID stands for all.
// https://docs.aws.amazon.com/eks/latest/userguide/retrieve-ami-id.html
func imageParameter(name string) (value string, ok bool) {
	return "ami-0123456789abcdef0", strings.HasPrefix(name, "/aws/service/eks/optimized-ami/") ||
		strings.HasPrefix(name, "/aws/service/bottlerocket/")
}
