// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// karpenter launches an instance as Karpenter does, with nothing but a first ENI.
func (a *account) karpenter(subnet string, tags map[string]string) eni.InstanceID {
	a.t.Helper()
	out, err := a.lab.Cloud.RunInstances(time.Now(), vpc.RunInstancesInput{
		ImageID: "ami-0123456789abcdef0", InstanceType: "m5.2xlarge", MinCount: 1, MaxCount: 1, SubnetID: subnet, Tags: tags,
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return eni.InstanceID(out.Instances[0].ID)
}

// agents makes what the agents' keepers of a cluster do, with the role of the stack.
func (a *account) agents(roles cloudformation.Stack, owner string) *workereni.Flow {
	a.t.Helper()
	if err := a.lab.Roles.Assume("pods.eks.amazonaws.com", "AKAGENT", roles.Outputs["AgentRole"]); err != nil {
		a.t.Fatal(err)
	}
	var interfaces []workereni.Interface
	for _, n := range []string{"1", "2"} {
		interfaces = append(interfaces, workereni.Interface{
			SubnetTags: map[string]string{"multus": n}, Last: true, Addressing: workereni.DHCP, SourceDestCheck: n == "1", DeleteOnTermination: true,
		})
	}
	cfg := workereni.Config{Owner: owner, Interfaces: interfaces}
	if err := cfg.Validate(); err != nil {
		a.t.Fatal(err)
	}
	client := ec2eni.New(ec2eni.Config{SDK: aws.Config{
		Region: a.lab.Cloud.Region(), Credentials: credentials.NewStaticCredentialsProvider("AKAGENT", "secret", ""),
		HTTPClient: &http.Client{Transport: a.lab.EC2()},
	}})
	return workereni.New(cfg, client, slog.New(slog.NewTextHandler(a.t.Output(), nil)))
}

// network makes the VPC with IPv6, and the roles for agents that give their workers ENIs.
func (a *account) network() (network, roles cloudformation.Stack) {
	a.t.Helper()
	create := func(name, file string, parameters map[string]string) cloudformation.Stack {
		stack, err := a.engine.Create(a.t.Context(), name, templates(a.t)[file], parameters)
		if err != nil {
			a.t.Fatal(err)
		}
		return stack
	}
	network = create("net", "vpc.yaml", map[string]string{"EnableIpv6": "true"})
	return network, create("roles", "pod-roles.yaml", map[string]string{"ClusterName": "c", "AgentCreatesInterfacesInVpc": network.Outputs["VpcId"]})
}

// TestAnAgentGivesItsWorkerENIs: in both zones by one configuration, under the role of the template, with IPv6 of the VPC's template.
func TestAnAgentGivesItsWorkerENIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		network, roles := a.network()
		flow := a.agents(roles, "c")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, subnet := range strings.Split(network.Outputs["Subnets"], ",") {
			id := a.karpenter(subnet, map[string]string{"kubernetes.io/cluster/c": "owned"})
			k := workereni.NewKeeper(flow, id)
			go k.Run(ctx)
			<-k.Placed()
			view := a.lab.Cloud.View(time.Now())
			enis := view.ENIs(string(id))
			if len(enis) != 3 {
				t.Fatalf("%s has %d ENIs, want 3", id, len(enis))
			}
			for _, e := range enis[1:] {
				s, _ := view.Subnet(e.SubnetID)
				i, _ := view.Instance(string(id))
				if s.AZ != i.AZ || len(e.IPv6) != 1 || !s.IPv6.Contains(e.IPv6[0]) {
					t.Errorf("ENI of network %s in %s, the worker in %s, IPv6 %v of %s", s.Tags["multus"], s.AZ, i.AZ, e.IPv6, s.IPv6)
				}
			}
			if _, err := a.lab.Cloud.TerminateInstances(time.Now(), []string{string(id)}); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		time.Sleep(5 * time.Minute) // until EC2 has deleted them with their instances
		for _, name := range []string{"roles", "net"} {
			if err := a.engine.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		a.nothingLeft()
	})
}

// TestTheAgentsRoleReachesItsClusterOnly: what an agent may not, and that nothing is left of the attempt.
func TestTheAgentsRoleReachesItsClusterOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		network, roles := a.network()
		subnet, _, _ := strings.Cut(network.Outputs["Subnets"], ",")
		for name, tc := range map[string]struct {
			owner string
			tags  map[string]string
		}{
			"an instance of another cluster": {"c", map[string]string{"kubernetes.io/cluster/other": "owned"}},
			"another owner":                  {"other", map[string]string{"kubernetes.io/cluster/c": "owned"}},
		} {
			id := a.karpenter(subnet, tc.tags)
			time.Sleep(time.Minute)
			_, err := a.agents(roles, tc.owner).Launch(t.Context(), workereni.Request{Instance: id})
			if !errors.Is(err, workereni.ErrImpossible) || !errors.Is(err, eni.ErrUnauthorized) {
				t.Errorf("%s: got error %v", name, err)
			}
			if n := len(a.lab.Cloud.View(time.Now()).ENIs(string(id))); n != 1 {
				t.Errorf("%s: it has %d ENIs", name, n)
			}
		}
		time.Sleep(time.Minute)
		for _, e := range a.lab.Cloud.View(time.Now()).AllENIs() {
			if e.Attachment == nil {
				t.Errorf("%s is left", e.ID)
			}
		}
	})
}

// TestIPv6OfTheVPC: each subnet has its /64, with a pool's and a static reservation in each Multus subnet.
func TestIPv6OfTheVPC(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		network, _ := a.network()
		view := a.lab.Cloud.View(time.Now())
		v, _ := view.VPC(network.Outputs["VpcId"])
		var blocks []netip.Prefix
		for _, s := range view.Subnets() {
			if s.VPCID != v.ID {
				continue
			}
			if s.IPv6.Bits() != 64 || !v.IPv6.Contains(s.IPv6.Addr()) || slices.Contains(blocks, s.IPv6) {
				t.Errorf("%s has %s of %s", s.ID, s.IPv6, v.IPv6)
			}
			blocks = append(blocks, s.IPv6)
			roles := map[string]string{}
			for _, r := range view.Reservations() {
				if r.SubnetID == s.ID && r.CIDR.Addr().Is6() {
					roles[r.Tags["multus-vpc.io/role"]] = r.CIDR.String()
				}
			}
			if s.Tags["multus"] != "" && (len(roles) != 2 || roles["pool"] == "" || roles["static"] == "") {
				t.Errorf("IPv6 reservations of %s: %v", s.IPv6, roles)
			}
		}
		if len(blocks) != 6 {
			t.Errorf("%d subnets", len(blocks))
		}
	})
}
