// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lab

import (
	"fmt"
	"os"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/lambda"
)

// mountStacks makes the engine that deploys templates. Functions run the bootstrap of their package.
func (r *Running) mountStacks(buckets map[string]string) (err error) {
	if r.work, err = os.MkdirTemp("", "multus-vpc-functions-"); err != nil {
		return fmt.Errorf("make a folder for functions: %w", err)
	}
	region := r.Cloud.Region()
	r.Inert = cloudformation.NewInert(region, r.Cloud.AccountID())
	r.Stacks = cloudformation.New(cloudformation.Config{
		Region: region, AccountID: r.Cloud.AccountID(),
		Zones:      []string{region + "a", region + "b", region + "c"},
		Parameters: imageParameter,
		Providers: cloudformation.Services{
			Cloud: r.Cloud, Scaling: r.Scaling, Events: r.Events, Functions: r.Functions, Inert: r.Inert, Roles: r.Roles,
			Code: lambda.NewBuckets(buckets, r.work).Program,
		}.Providers(),
	})
	return nil
}

// imageParameter answers the public parameters that name the images of workers. The lab has no images: one ID stands for all.
// https://docs.aws.amazon.com/eks/latest/userguide/retrieve-ami-id.html
func imageParameter(name string) (value string, ok bool) {
	return "ami-0123456789abcdef0", strings.HasPrefix(name, "/aws/service/eks/optimized-ami/") ||
		strings.HasPrefix(name, "/aws/service/bottlerocket/")
}
