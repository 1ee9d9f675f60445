// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// managed stands for EKS: a managed node group is an Auto Scaling group of its own name, with hooks that go on by
// themselves, a launch template made of the given one, and instances that carry the group's name.
// https://docs.aws.amazon.com/eks/latest/userguide/managed-node-groups.html
type managed struct{ *account }

func (m managed) Create(_ context.Context, r cloudformation.Request) (cloudformation.Physical, error) {
	in := r.Properties
	in.Ignore("AmiType", "NodeRole")
	name := "eks-" + in.Required("NodegroupName") + "-12345678-9abc-def0-1234-56789abcdef0"
	size, template := in.Object("ScalingConfig"), in.Object("LaunchTemplate")
	settings := autoscaling.GroupSettings{
		MinSize: size.Int("MinSize", 0), DesiredCapacity: size.Int("DesiredSize", 0), MaxSize: size.Int("MaxSize", 0),
		Subnets: in.Strings("Subnets"),
		Tags: []autoscaling.Tag{
			{Key: "eks:cluster-name", Value: in.Required("ClusterName"), PropagateAtLaunch: true},
			{Key: "eks:nodegroup-name", Value: in.Required("NodegroupName"), PropagateAtLaunch: true},
		},
	}
	given, err := m.lab.Cloud.View(time.Now()).LaunchTemplate(template.Required("Id"))
	if err = errors.Join(err, in.Err()); err != nil {
		return cloudformation.Physical{}, err
	}
	_, data, err := given.Version(template.Required("Version"))
	if err != nil {
		return cloudformation.Physical{}, err
	}
	data.ImageID, data.InstanceType = "ami-0123456789abcdef0", in.Strings("InstanceTypes")[0]
	own, err := m.lab.Cloud.CreateLaunchTemplate(time.Now(), vpc.CreateLaunchTemplateInput{Name: name, Data: data})
	if err != nil {
		return cloudformation.Physical{}, err
	}
	settings.Template = autoscaling.TemplateRef{ID: own.ID}
	err = m.lab.Scaling.CreateGroup(time.Now(), name, settings, []autoscaling.Hook{{
		Name: "Launch-LC-Hook", Transition: autoscaling.Launching, DefaultResult: autoscaling.Continue, HeartbeatTimeout: time.Minute,
	}})
	return cloudformation.Physical{Ref: name, Attributes: map[string]string{"template": own.ID}}, err
}

func (m managed) Delete(_ context.Context, _ cloudformation.Request, g cloudformation.Physical) error {
	_, err := m.lab.Cloud.DeleteLaunchTemplate(time.Now(), g.Attributes["template"])
	return errors.Join(err, m.lab.Scaling.DeleteGroup(time.Now(), g.Ref, true))
}

func TestAManagedGroupsWorkersGetTheirInterfaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		a.providers["AWS::EKS::Nodegroup"] = managed{a}
		network, err := a.engine.Create(t.Context(), "net", templates(t)["vpc.yaml"], nil)
		if err != nil {
			t.Fatal(err)
		}
		workers, err := a.engine.Create(t.Context(), "workers", templates(t)["multus-managed-node-group.yaml"], map[string]string{
			"ClusterName": "c", "NodeGroupName": "m", "VpcId": network.Outputs["VpcId"], "Subnets": network.Outputs["Subnets"],
			"MultusSubnets": network.Outputs["MultusSubnets"], "MultusSecurityGroupIds": network.Outputs["MultusSecurityGroups"],
			"NodeAutoScalingGroupDesiredCapacity": "0", "MultusInterfaces": "2", "LambdaS3Bucket": "bucket",
		})
		if err != nil {
			t.Fatal(err)
		}
		made, _ := workers.Find("NodeLaunchTemplate")
		template, err := a.lab.Cloud.View(time.Now()).LaunchTemplate(made.Ref)
		if err != nil {
			t.Fatal(err)
		}
		script := decode(t, template.Versions[0].UserData)
		for _, w := range []string{"kind: NodeConfig\nspec:\n  kubelet:\n    config: {}\n    flags: []\n", "-gt 2 ]", "\n--BOUNDARY--\n"} {
			if !strings.Contains(script, w) {
				t.Errorf("the user data lacks %q:\n%s", w, script)
			}
		}

		want := []string{
			"0:1 network 1 in the worker's zone, own address from the start false, stock 0, check true, deleted with it true, c-m true ",
			"0:2 network 2 in the worker's zone, own address from the start false, stock 0, check true, deleted with it true, c-m true ",
		}
		for _, i := range a.scale(workers.Outputs["NodeGroup"], 2) {
			got := a.interfaces(i.ID)
			for n := range got { // EC2 chooses: it may be the start by chance
				got[n] = strings.Replace(got[n], "start true", "start false", 1)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("interfaces of %s (-want +got):\n%s", i.ID, diff)
			}
		}
		for _, name := range []string{"workers", "net"} {
			if name == "net" {
				time.Sleep(time.Minute) // EKS terminates its instances without our hooks
			}
			if err := a.engine.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		a.nothingLeft()
	})
}

// TestTheLabHasNoManagedNodeGroups: it says so, and makes nothing.
func TestTheLabHasNoManagedNodeGroups(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		_, err := a.engine.Create(t.Context(), "managed", templates(t)["multus-managed-node-group.yaml"], map[string]string{
			"ClusterName": "c", "NodeGroupName": "m", "VpcId": "vpc-1", "Subnets": "subnet-1", "MultusSubnets": "subnet-2",
			"MultusSecurityGroupIds": "sg-1", "LambdaS3Bucket": "bucket",
		})
		if err == nil || err.Error() != "Resources.NodeGroup.Type: the lab does not make AWS::EKS::Nodegroup" {
			t.Errorf("got error %v", err)
		}
		a.nothingLeft()
	})
}
