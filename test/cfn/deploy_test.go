// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cfn

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/autoscaling"
	"github.com/multus-vpc/multus-vpc/internal/lab/cloudformation"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// deploy makes the VPC and the node group with no workers yet.
func (a *account) deploy(change map[string]string) (network, workers cloudformation.Stack) {
	a.t.Helper()
	all := templates(a.t)
	network, err := a.engine.Create(a.t.Context(), "net", all["vpc.yaml"], map[string]string{"EnableIpv6": "true"})
	if err != nil {
		a.t.Fatal(err)
	}
	parameters := map[string]string{
		"ClusterName": "c", "NodeGroupName": "multus", "ClusterControlPlaneSecurityGroup": "sg-0123456789abcdef0",
		"EksApiServerEndpoint": "https://0123.gr7.us-west-2.eks.amazonaws.com", "EksCertificateAuthority": "YWJj",
		"NodeAutoScalingGroupDesiredCapacity": "0", "VpcId": network.Outputs["VpcId"], "Subnets": network.Outputs["Subnets"],
		"MultusSubnets": network.Outputs["MultusSubnets"], "MultusSecurityGroups": network.Outputs["MultusSecurityGroups"],
		"MultusInterfaces": "2", "useIPsFromStartOfSubnet": "true", "InterfaceTags": "team=core", "InterfaceStock": "4", "LambdaS3Bucket": "bucket",
	}
	maps.Copy(parameters, change)
	workers, err = a.engine.Create(a.t.Context(), "workers", all["multus-node-group.yaml"], parameters)
	if err != nil {
		a.t.Fatal(err)
	}
	return network, workers
}

// scale sets the group's size and waits until so many are in service, and no other is there.
func (a *account) scale(group string, size int) []autoscaling.Instance {
	a.t.Helper()
	if err := a.lab.Scaling.SetDesiredCapacity(time.Now(), group, size); err != nil {
		a.t.Fatal(err)
	}
	deadline := time.After(10 * time.Minute)
	for {
		changed := a.lab.Scaling.Changed()
		g, _ := a.lab.Scaling.Group(group)
		ready := func(i autoscaling.Instance) bool { return i.State == autoscaling.InService }
		if len(g.Instances) == size && !slices.ContainsFunc(g.Instances, func(i autoscaling.Instance) bool { return !ready(i) }) {
			return g.Instances
		}
		select {
		case <-changed:
		case <-deadline:
			a.t.Fatalf("the group is %+v", g.Instances)
		}
	}
}

// interfaces describes the ENIs of a worker beside its first.
func (a *account) interfaces(id string) (out []string) {
	view := a.lab.Cloud.View(time.Now())
	for _, e := range view.ENIs(id)[1:] {
		s, _ := view.Subnet(e.SubnetID)
		i, _ := view.Instance(id)
		place := "in the worker's zone"
		if s.AZ != i.AZ {
			place = "in " + s.AZ
		}
		pool, static, start := netip.Prefix{}, netip.Prefix{}, 0
		for _, r := range view.Reservations() {
			switch {
			case r.SubnetID != s.ID || r.CIDR.Addr().Is6():
			case r.Tags["multus-vpc.io/role"] == "pool":
				pool = r.CIDR
			default:
				static = r.CIDR
			}
		}
		addresses := e.IPv4()
		start = int(addresses[0].As4()[3])
		stock := 0
		for _, x := range addresses[1:] {
			if pool.Contains(x) {
				stock++
			}
		}
		kept := !pool.Contains(addresses[0]) && !static.Contains(addresses[0]) && start < 16
		out = append(out, fmt.Sprintf("%d:%d network %s %s, own address from the start %t, stock %d, check %t, deleted with it %t, %s %s %s",
			e.Attachment.NetworkCard, e.Attachment.DeviceIndex, s.Tags["multus"], place, kept, stock, e.SourceDestCheck,
			e.Attachment.DeleteOnTermination, e.Tags["multus-vpc.io/owner"], e.Tags["node.k8s.amazonaws.com/no_manage"], e.Tags["team"]))
	}
	return out
}

func TestWorkersComeAndGoWithTheirInterfaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		network, workers := a.deploy(nil)
		group := workers.Outputs["NodeGroup"]
		if group != "c-multus" {
			t.Fatalf("group %q", group)
		}
		want := []string{
			"0:1 network 1 in the worker's zone, own address from the start true, stock 4, check true, deleted with it true, c-multus true core",
			"0:2 network 2 in the worker's zone, own address from the start true, stock 4, check true, deleted with it true, c-multus true core",
		}
		zones := map[string]bool{}
		for _, i := range a.scale(group, 3) {
			if diff := cmp.Diff(want, a.interfaces(i.ID)); diff != "" {
				t.Errorf("interfaces of %s (-want +got):\n%s", i.ID, diff)
			}
			zones[i.AZ] = true
		}
		if len(zones) != 2 {
			t.Errorf("all workers are in %v", zones)
		}
		addresses := map[netip.Addr]bool{}
		for _, e := range a.lab.Cloud.View(time.Now()).AllENIs() {
			for _, x := range e.Addresses() {
				if addresses[x] {
					t.Errorf("%s is given twice", x)
				}
				addresses[x] = true
			}
			if e.Attachment.DeviceIndex > 0 && len(e.IPv6) != 1 {
				t.Errorf("IPv6 addresses of %s: %v", e.ID, e.IPv6)
			}
			if e.Attachment.DeviceIndex > 0 && !slices.Equal(e.Groups, []string{network.Outputs["MultusSecurityGroups"]}) {
				t.Errorf("security groups of %s: %v", e.ID, e.Groups)
			}
		}

		a.scale(group, 1)
		if n := len(a.lab.Cloud.View(time.Now()).AllENIs()); n != 3 {
			t.Errorf("one worker is left, and %d ENIs", n)
		}
		for _, name := range []string{"workers", "net"} {
			if err := a.engine.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		a.nothingLeft()
		a.permitted()
	})
}

// permitted compares what the function asked of EC2 and Auto Scaling with its role.
func (a *account) permitted() {
	a.t.Helper()
	granted := map[string]bool{}
	for _, s := range statements(a.t) {
		if s.file == "multus-node-group.yaml" && s.resource == "LambdaRole" {
			for _, action := range s.actions {
				granted[action] = true
			}
		}
	}
	called := map[string]bool{}
	for service, calls := range map[string][]front.CallCount{"ec2:": a.lab.Front.Calls(), "autoscaling:": a.lab.ScalingFront.Calls()} {
		for _, c := range calls {
			if action := service + c.Action; c.Caller == "AKLAMBDA" {
				called[action] = true
				if !granted[action] {
					a.t.Errorf("the function called %s, which its role does not allow", action)
				}
			}
		}
	}
	for _, action := range []string{"ec2:CreateNetworkInterface", "autoscaling:CompleteLifecycleAction"} {
		if !called[action] {
			a.t.Errorf("the function called only %v", called)
		}
	}
}

// nothingLeft: only the scenario's own VPC is there.
func (a *account) nothingLeft() {
	a.t.Helper()
	view := a.lab.Cloud.View(time.Now())
	left := a.inert.Left()
	for _, e := range view.AllENIs() {
		left = append(left, e.ID)
	}
	left = append(left, slices.Collect(maps.Keys(ids(view.LaunchTemplates(), func(l vpc.LaunchTemplate) string { return l.ID })))...)
	left = append(left, slices.Collect(maps.Keys(ids(a.lab.Scaling.Groups(), func(g autoscaling.Group) string { return g.Name })))...)
	if len(left) != 0 || len(view.VPCs()) != 1 || len(view.Subnets()) != 1 || len(view.Reservations()) != 0 || len(a.engine.Stacks()) != 0 {
		a.t.Errorf("left: %v, %d VPCs, %d subnets, %d reservations, stacks %v", left, len(view.VPCs()), len(view.Subnets()),
			len(view.Reservations()), a.engine.Stacks())
	}
}

func ids[T any](list []T, id func(T) string) map[string]bool {
	out := map[string]bool{}
	for _, v := range list {
		out[id(v)] = true
	}
	return out
}

// TestAWorkerThatCannotHaveItsInterfacesIsAbandoned: the type has fewer interfaces than there are networks.
func TestAWorkerThatCannotHaveItsInterfacesIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		_, workers := a.deploy(map[string]string{"NodeInstanceType": "m4.large"})
		if err := a.lab.Scaling.SetDesiredCapacity(time.Now(), workers.Outputs["NodeGroup"], 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		abandoned := a.log.lines(`"result":"ABANDON"`) // as the template's metric filter has it
		if len(abandoned) == 0 || !strings.Contains(abandoned[0], "m4.large") {
			t.Errorf("abandoned: %q", abandoned)
		}
		g, _ := a.lab.Scaling.Group(workers.Outputs["NodeGroup"])
		for _, i := range g.Instances {
			if i.State == autoscaling.InService {
				t.Errorf("%s is in service", i.ID)
			}
		}
		for _, name := range []string{"workers", "net"} {
			if err := a.engine.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		a.nothingLeft()
	})
}

// TestHooksOfOthersAreLeftAlone: somebody adds one to the group, and answers it.
func TestHooksOfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t)
		_, workers := a.deploy(nil)
		group := workers.Outputs["NodeGroup"]
		others := autoscaling.Hook{Name: "others", Transition: autoscaling.Launching, HeartbeatTimeout: time.Hour}
		if err := errors.Join(a.lab.Scaling.PutHook(time.Now(), group, others), a.lab.Scaling.SetDesiredCapacity(time.Now(), group, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		g, _ := a.lab.Scaling.Group(group)
		if len(g.Instances) != 1 || g.Instances[0].State != autoscaling.PendingWait || len(a.interfaces(g.Instances[0].ID)) != 2 {
			t.Errorf("the group is %+v", g.Instances)
		}
	})
}

// TestEachOperatingSystemAndOptionDeploys: every branch of the node group's functions can be computed.
func TestEachOperatingSystemAndOptionDeploys(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change map[string]string
		want   []string // in the user data
	}{
		{"AL2023", nil, []string{"kind: NodeConfig", "name: c\n", "flags: []", "config: {}", "-gt 2 ]", "Content-Type: text/x-shellscript"}},
		{"AL2023 with options", map[string]string{"KubeletExtraArguments": "--node-labels=a=b --v=4", "NodeMaxPods": "30"}, []string{
			"flags: ['--node-labels=a=b --v=4']", "config: {maxPods: 30}",
		}},
		{"AL2023 with a startup taint", map[string]string{"StartupTaint": "true", "KubeletExtraArguments": "--v=4"}, []string{
			"flags: ['--register-with-taints=multus-vpc.io/agent-not-ready=true:NoSchedule', '--v=4']",
		}},
		{"Bottlerocket with a startup taint", map[string]string{"NodeOperatingSystem": "Bottlerocket", "StartupTaint": "true"}, []string{
			"[settings.kubernetes.node-taints]\n\"multus-vpc.io/agent-not-ready\" = \"true:NoSchedule\"\n",
		}},
		{"AL2 with a startup taint", map[string]string{"NodeOperatingSystem": "AL2", "StartupTaint": "true"}, []string{
			"--kubelet-extra-args ' --register-with-taints=multus-vpc.io/agent-not-ready=true:NoSchedule '",
		}},
		{"Bottlerocket", map[string]string{"NodeOperatingSystem": "Bottlerocket", "NodeMaxPods": "30"}, []string{
			"[settings.kubernetes]\ncluster-name = \"c\"", "max-pods = 30",
		}},
		{"AL2", map[string]string{"NodeOperatingSystem": "AL2", "BootstrapArguments": "--dns-cluster-ip 10.0.0.10"}, []string{
			"#!/bin/bash\n", "/etc/eks/bootstrap.sh 'c'", "--dns-cluster-ip 10.0.0.10",
		}},
		{"a key, an image, a topic, no access entry", map[string]string{
			"KeyName": "k", "NodeImageId": "ami-1", "AlarmTopicArn": "arn:aws:sns:us-west-2:1:t", "CreateAccessEntry": "false",
			"VpcCniPolicyOnNodeRole": "false",
		}, nil},
		{"drained workers, by a private endpoint", map[string]string{
			"DrainNodes": "true", "DrainTimeout": "90s", "LambdaSubnets": "subnet-1,subnet-2", "EksCertificateAuthority": authority(t),
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAccount(t)
				_, workers := a.deploy(tc.change)
				made, _ := workers.Find("NodeLaunchTemplate")
				template, err := a.lab.Cloud.View(time.Now()).LaunchTemplate(made.Ref)
				if err != nil {
					t.Fatal(err)
				}
				script := decode(t, template.Versions[0].UserData)
				for _, w := range tc.want {
					if !strings.Contains(script, w) {
						t.Errorf("the user data lacks %q:\n%s", w, script)
					}
				}
				checkScript(t, script)
			})
		})
	}
}

// authority is a certificate in PEM in base64, as EKS shows it.
func authority(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestTheRolesDeploy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		parameters map[string]string
		made       []string
	}{
		"Pod Identity":        {nil, []string{"AgentRole", "AgentIdentity"}},
		"IRSA":                {map[string]string{"OIDCIssuer": "oidc.eks.us-west-2.amazonaws.com/id/0A"}, []string{"AgentRole"}},
		"with sidecars":       {map[string]string{"SidecarNamespace": "core"}, []string{"AgentRole", "AgentIdentity", "SidecarRole", "SidecarIdentity"}},
		"with interfaces":     {map[string]string{"AgentCreatesInterfacesInVpc": "vpc-0a"}, []string{"AgentRole", "AgentIdentity"}},
		"with sidecars, IRSA": {map[string]string{"SidecarNamespace": "core", "OIDCIssuer": "o.a/id/0A"}, []string{"AgentRole", "SidecarRole"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAccount(t)
				parameters := map[string]string{"ClusterName": "c"}
				maps.Copy(parameters, tc.parameters)
				stack, err := a.engine.Create(t.Context(), "roles", templates(t)["pod-roles.yaml"], parameters)
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]bool{}
				for _, r := range stack.Resources {
					got[r.LogicalID] = true
				}
				if len(got) != len(tc.made) {
					t.Errorf("made %v, want %v", got, tc.made)
				}
				role, _ := stack.Find("AgentRole")
				if trust, isText := role.Properties.Raw("AssumeRolePolicyDocument").(string); isText {
					var document struct {
						Statement []struct{ Condition map[string]map[string]string }
					}
					if err := json.Unmarshal([]byte(trust), &document); err != nil {
						t.Fatalf("the trust policy is no JSON: %v\n%s", err, trust)
					}
					subject := document.Statement[0].Condition["StringEquals"][tc.parameters["OIDCIssuer"]+":sub"]
					if subject != "system:serviceaccount:multus-vpc:agent" {
						t.Errorf("the role trusts %q", subject)
					}
				} else if tc.parameters["OIDCIssuer"] != "" {
					t.Error("the role does not trust the issuer")
				}
			})
		})
	}
}

// checkScript has bash read the script in a user data, without running it.
func checkScript(t *testing.T, userData string) {
	t.Helper()
	_, script, ok := strings.Cut(userData, "#!/bin/bash\n")
	if !ok {
		return
	}
	script, _, _ = strings.Cut(script, "\n--BOUNDARY--")
	bash := exec.CommandContext(t.Context(), "bash", "-n")
	bash.Stdin = strings.NewReader(script)
	if out, err := bash.CombinedOutput(); err != nil {
		t.Errorf("bash: %v: %s\n%s", err, out, script)
	}
}

func decode(t *testing.T, data string) string {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
