// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/test/stack"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// A worker as Karpenter makes it: nobody gives it ENIs for pods while it launches.
const bare = `
vpc: {cidr: 10.68.0.0/16}
subnets:
- {name: primary, cidr: 10.68.12.0/24, az: us-west-2a}
- {name: n4, cidr: 10.68.1.0/24, az: us-west-2a, tags: {network: n4}, reservations: [{cidr: 10.68.1.64/26}]}
- {name: n6, cidr: 10.68.2.0/24, az: us-west-2a, tags: {network: n6}}
- {name: n4-b, cidr: 10.68.3.0/24, az: us-west-2b, tags: {network: n4}}
instances:
- name: worker-1
  type: TYPE
  enis: [{subnet: primary}]
ec2: {latency: 5ms, propagation: {route: 50ms, imds: 100ms, describe: 100ms}}
`

// twoNetworks is an agent's configuration for workers of all zones.
const twoNetworks = "warmIPTarget: 1\nminimumIPTarget: 2\nowner: my-cluster\ntags: {team: core}\n" +
	"interfaces: [{subnetTags: {network: n4}}, {subnetTags: {network: n6}, sourceDestCheck: false}]\n"

// given are the worker's ENIs besides its first, as EC2 has them.
func (n *node) given() (out []string) {
	n.t.Helper()
	view := n.lab.Cloud.View(time.Now())
	for _, e := range view.AllENIs() {
		if e.Attachment != nil && e.Attachment.DeviceIndex == 0 {
			continue
		}
		subnet, _ := view.Subnet(e.SubnetID)
		what := fmt.Sprintf("%s %s/%s", subnet.Tags["network"], e.Tags["multus-vpc.io/owner"], e.Tags["team"])
		if e.Tags["node.k8s.amazonaws.com/no_manage"] != "true" {
			what += " without no_manage"
		}
		if !e.SourceDestCheck {
			what += " unchecked"
		}
		if a := e.Attachment; a != nil {
			what = fmt.Sprintf("%d:%d %s, deleted with the worker %t", a.NetworkCard, a.DeviceIndex, what, a.DeleteOnTermination)
		}
		out = append(out, what)
	}
	slices.Sort(out)
	return out
}

var bothGiven = []string{
	"0:2 n6 my-cluster/core unchecked, deleted with the worker true",
	"0:3 n4 my-cluster/core, deleted with the worker true",
}

// served waits until the agent knows so many ENIs and sees no problem.
func (n *node) served(enis int) {
	n.t.Helper()
	n.must(n.Await(n.ctx, func(s *agentapi.Status) string {
		if len(s.ENIs) != enis || len(s.Problems) > 0 {
			return fmt.Sprintf("%d ENIs; there are %d, and problems %q", enis, len(s.ENIs), s.Problems)
		}
		return ""
	}))
}

func TestABareWorkerGetsItsENIs(t *testing.T) {
	n := up(t, strings.Replace(bare, "TYPE", "m5.2xlarge", 1), vpcipam)
	n.start(twoNetworks)
	n.served(3)
	if got := n.given(); !slices.Equal(got, bothGiven) {
		t.Fatalf("ENIs %q, want %q", got, bothGiven)
	}
	s := n.sandbox("web")
	a, err := n.CNI(n.ctx, worker.Call{
		Plugin: vpcipam, Command: "ADD", ContainerID: s.id, Netns: s.Netns, IfName: ifName, Pod: s.name,
		Config: []byte(`{"cniVersion": "1.1.0", "name": "n4", "type": "vpcipvlan", "eni": {"subnetTags": {"network": "n4"}}, "ipam": {"type": "vpcipam"}}`),
	})
	n.must(err)
	if p, err := a.Address(); err != nil || !netip.MustParsePrefix("10.68.1.64/26").Contains(p.Addr()) {
		t.Errorf("ADD: %v, %v", p, err)
	}

	for _, end := range []func(){func() { n.must(n.Stop()) }, n.Kill} {
		end()
		n.start(twoNetworks)
		n.served(3)
	}
	if got := n.given(); !slices.Equal(got, bothGiven) {
		t.Errorf("after restarts: ENIs %q, want %q", got, bothGiven)
	}
	for _, c := range n.lab.Front.Calls() {
		if c.Action == "CreateNetworkInterface" && c.Count != 2 {
			t.Errorf("%d calls of %s, want 2", c.Count, c.Action)
		}
	}
}

// TestKilledWhileItGivesENIs: EC2 did what was asked, and the agent dies before it is told.
func TestKilledWhileItGivesENIs(t *testing.T) {
	attached := func(e vpc.ENI) bool { return e.Attachment != nil && e.Attachment.DeviceIndex > 0 }
	for action, done := range map[string]func(vpc.ENI) bool{
		"CreateNetworkInterface":          func(e vpc.ENI) bool { return e.Attachment == nil },
		"AttachNetworkInterface":          attached,
		"ModifyNetworkInterfaceAttribute": func(e vpc.ENI) bool { return !e.SourceDestCheck || attached(e) && e.Attachment.DeleteOnTermination },
	} {
		for nth := 1; nth <= 2; nth++ {
			t.Run(fmt.Sprintf("%s %d", action, nth), func(t *testing.T) {
				// A new ENI is known at once: a call that is refused is none to die in.
				n := up(t, strings.NewReplacer("TYPE", "m5.2xlarge", "describe: 100ms", "describe: 0s").Replace(bare), vpcipam)
				n.must(n.lab.Front.SetFaults([]front.Fault{{Action: action, Nth: nth, Kind: front.Slow, Delay: testTimeout}}))
				n.must(n.Start(twoNetworks))
				n.until("EC2 has done it", func() bool {
					count := 0
					for _, e := range n.lab.Cloud.View(time.Now()).AllENIs() {
						if done(e) {
							count++
						}
					}
					return count >= nth
				})
				n.Kill()
				n.must(n.lab.Front.SetFaults(nil))
				n.start(twoNetworks)
				n.served(3)
				if got := n.given(); !slices.Equal(got, bothGiven) {
					t.Errorf("ENIs %q, want %q", got, bothGiven)
				}
			})
		}
	}
}

// TestAWorkerThatCannotHaveItsENIs: the agent says why, leaves all as it was, and works on.
func TestAWorkerThatCannotHaveItsENIs(t *testing.T) {
	n := up(t, strings.Replace(bare, "TYPE", "m4.large", 1), vpcipam)
	n.start(twoNetworks)
	n.must(n.Await(n.ctx, func(s *agentapi.Status) string {
		want := "does not have all ENIs of the configuration's interfaces: give " + string(s.InstanceID) + " its ENIs: worker cannot get its ENIs: m4.large allows 2 ENIs: 1 are attached and 2 are wanted"
		if !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, want) }) {
			return fmt.Sprintf("%q among the problems; there are %q", want, s.Problems)
		}
		return ""
	}))
	if got := n.given(); len(got) > 0 {
		t.Errorf("ENIs %q, want none", got)
	}
	n.must(n.Stop())
	if !strings.Contains(n.Log(), `"level":"ERROR","msg":"the worker does not have its ENIs"`) {
		t.Errorf("the log does not say so:\n%s", n.Log())
	}
}

// TestNoPodComesBeforeTheENIs: a node is registered with the startup taint, which the agent takes off when it serves all ENIs. A real API
// server has the node.
func TestNoPodComesBeforeTheENIs(t *testing.T) {
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	n := up(t, strings.Replace(bare, "TYPE", "m5.2xlarge", 1), vpcipam)
	c, err := kubernetes.Start(n.ctx, kubernetes.Config{Programs: programs})
	n.must(err)
	t.Cleanup(func() { n.check(c.Close()) })
	f, err := c.Forward(n.ctx, n.Netns)
	n.must(err)
	t.Cleanup(func() { n.check(f.Close()) })
	n.Env = []string{"KUBECONFIG=" + c.Kubeconfig, "NODE_NAME=node-1"}
	type object = map[string]any
	n.must(c.Do(n.ctx, http.MethodPost, "/api/v1/nodes", object{
		"metadata": object{"name": "node-1"}, "spec": object{"taints": []object{{"key": "multus-vpc.io/agent-not-ready", "effect": "NoSchedule"}}},
	}, nil))
	tainted := func() bool {
		var node struct {
			Spec struct{ Taints []struct{ Key string } }
		}
		n.must(c.Do(n.ctx, http.MethodGet, "/api/v1/nodes/node-1", nil, &node))
		return slices.ContainsFunc(node.Spec.Taints, func(t struct{ Key string }) bool { return t.Key == "multus-vpc.io/agent-not-ready" })
	}

	// EC2 refuses to make them for as long as it is told to.
	n.must(n.lab.Front.SetFaults([]front.Fault{{Action: "CreateNetworkInterface", Probability: 1, Kind: front.ErrorBefore, Code: "InternalError"}}))
	n.start(twoNetworks)
	n.until("the agent has tried twice", func() bool {
		return slices.ContainsFunc(n.lab.Front.Calls(), func(c front.CallCount) bool { return c.Action == "CreateNetworkInterface" && c.Count >= 2 })
	})
	if !tainted() {
		t.Error("without the ENIs the taint is gone")
	}
	n.must(n.lab.Front.SetFaults(nil))
	n.until("the taint is gone", func() bool { return !tainted() })
	if got := n.given(); !slices.Equal(got, bothGiven) {
		t.Errorf("when the taint is gone: ENIs %q, want %q", got, bothGiven)
	}
	s, err := n.Status(n.ctx)
	n.must(err)
	if len(s.ENIs) != 3 {
		t.Errorf("when the taint is gone the agent knows %d ENIs, want 3", len(s.ENIs))
	}
}

// TestSomebodyElseMakesTheENIs: the agent counts as ready when it sees as many as it is told to await.
func TestSomebodyElseMakesTheENIs(t *testing.T) {
	n := up(t, strings.Replace(bare, "TYPE", "m5.2xlarge", 1), vpcipam)
	n.start("awaitInterfaces: 1\n")
	awaited := func(s *agentapi.Status) bool {
		return slices.Contains(s.Problems, "the worker has 0 ENIs for pods, and awaitInterfaces of the configuration is 1")
	}
	n.must(n.Await(n.ctx, func(s *agentapi.Status) string {
		if !awaited(s) {
			return fmt.Sprintf("the problem; there are %q", s.Problems)
		}
		return ""
	}))
	e, err := n.lab.Cloud.CreateNetworkInterface(time.Now(), vpc.CreateNetworkInterfaceInput{
		SubnetID: n.lab.Subnets["n4"], Tags: map[string]string{"node.k8s.amazonaws.com/no_manage": "true"},
	})
	n.must(err)
	n.until("it is attached", func() bool {
		_, err = n.lab.Cloud.AttachNetworkInterface(time.Now(), vpc.AttachNetworkInterfaceInput{
			NetworkInterfaceID: e.ID, InstanceID: n.lab.Instances["worker-1"], DeviceIndex: 1,
		})
		return err == nil
	})
	n.served(2)
}
