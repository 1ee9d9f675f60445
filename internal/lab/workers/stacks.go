// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// deploy is step 1: two stacks.
func (s *story) deploy(ctx context.Context) {
	t := s.teller
	t.Step(1, "A VPC and a node group of no workers yet: two stacks")
	if !t.Check("vpc.yaml: subnets of workers and of two Multus networks, in two zones", func() (_ string, err error) {
		if s.network, err = s.lab.Stacks.Create(ctx, "network", s.templates["vpc.yaml"], nil); err != nil {
			return "", err
		}
		view := s.lab.Cloud.View(time.Now())
		zones := map[string]bool{}
		subnets := s.subnets(view)
		for _, n := range subnets {
			zones[n.AZ] = true
		}
		if len(subnets) != 6 || len(zones) != 2 {
			return "", fmt.Errorf("%d subnets in %d zones, want 6 in 2", len(subnets), len(zones))
		}
		return fmt.Sprintf("%d resources, %d reservations for pods", len(s.network.Resources), len(view.Reservations())), nil
	}) {
		t.Skip("multus-node-group.yaml: a group with its hooks, and their function")
		return
	}
	t.Check("multus-node-group.yaml: a group with its hooks, and their function", func() (string, error) {
		made, err := s.nodeGroup(ctx, "workers", map[string]string{"NodeGroupName": "multus"})
		if err != nil {
			return "", err
		}
		function, ok := made.Find("LambdaAttachENI")
		if !ok || made.Outputs["NodeGroup"] != groupName {
			return "", fmt.Errorf("outputs %v", made.Outputs)
		}
		s.function = function.Ref
		packed, err := os.Stat(s.cfg.Package)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d resources, bootstrap from %s of %.1f MB", len(made.Resources), s.key, float64(packed.Size())/1e6), nil
	})
	s.lab.Events.SetMischief(twice)
}

// nodeGroup deploys a node group into the story's VPC.
func (s *story) nodeGroup(ctx context.Context, stack string, change map[string]string) (cloudformation.Stack, error) {
	out := s.network.Outputs
	parameters := map[string]string{
		"ClusterName": cluster, "ClusterControlPlaneSecurityGroup": "sg-0123456789abcdef0",
		"EksApiServerEndpoint": "https://0123.gr7.us-west-2.eks.amazonaws.com", "EksCertificateAuthority": "bGFi",
		"NodeAutoScalingGroupDesiredCapacity": "0", "NodeAutoScalingGroupMaxSize": "4",
		"VpcId": out["VpcId"], "Subnets": out["Subnets"], "MultusSubnets": out["MultusSubnets"], "MultusSecurityGroups": out["MultusSecurityGroups"],
		"MultusInterfaces": "2", "useIPsFromStartOfSubnet": "true", "InterfaceTags": "team=core", "InterfaceStock": strconv.Itoa(stock),
		"LambdaS3Bucket": bucket, "LambdaS3Key": s.key, "LambdaArchitecture": s.cfg.Architecture,
	}
	maps.Copy(parameters, change)
	return s.lab.Stacks.Create(ctx, stack, s.templates["multus-node-group.yaml"], parameters)
}

// subnets are those of the story's VPC, in the order of zones and networks.
func (s *story) subnets(view vpc.View) []vpc.Subnet {
	return slices.DeleteFunc(view.Subnets(), func(n vpc.Subnet) bool { return n.VPCID != s.network.Outputs["VpcId"] })
}

// remove is the last step: both stacks go, with the last worker.
func (s *story) remove(ctx context.Context) {
	t := s.teller
	t.Step(7, "The stacks are deleted")
	for _, name := range []string{"workers", "network"} {
		t.Check("stack "+name+" is deleted", func() (string, error) {
			limited, cancel := context.WithTimeout(ctx, s.cfg.Patience)
			defer cancel()
			begin := time.Now()
			err := s.lab.Stacks.Delete(limited, name)
			return "after " + teller.Since(begin), err
		})
	}
	after := s.count()
	t.Check("nothing of ours is left in the account", func() (string, error) {
		var errs []error
		for i, kind := range kinds {
			if after[i] != s.before[i] {
				errs = append(errs, fmt.Errorf("%d %s, before %d", after[i], kind, s.before[i]))
			}
		}
		return "", errors.Join(errs...)
	})
	rows := [][]string{{"", "BEFORE", "WITH 4 WORKERS", "NOW"}}
	for i, kind := range kinds {
		rows = append(rows, []string{kind, strconv.Itoa(s.before[i]), strconv.Itoa(s.most[i]), strconv.Itoa(after[i])})
	}
	t.Table(rows)
}

// census counts what is in the account, by kind.
type census [len(kinds)]int

var kinds = [...]string{
	"running instances", "ENIs", "Auto Scaling groups", "launch templates", "stacks", "VPCs", "subnets", "CIDR reservations", "security groups",
	"roles, alarms, logs and the like",
}

func (s *story) count() (c census) {
	view := s.lab.Cloud.View(time.Now())
	running := slices.DeleteFunc(view.Instances(), func(i vpc.Instance) bool { return i.State == vpc.StateTerminated })
	for i, n := range []int{
		len(running), len(view.AllENIs()), len(s.lab.Scaling.Groups()), len(view.LaunchTemplates()), len(s.lab.Stacks.Stacks()),
		len(view.VPCs()), len(view.Subnets()), len(view.Reservations()), len(view.SecurityGroups()), len(s.lab.Inert.Left()),
	} {
		c[i] = n
	}
	return c
}
