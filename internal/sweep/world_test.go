// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sweep_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/sweep"
)

// theVPC has two workers with an ENI for pods each, a worker of another cluster, and an ENI that nobody told us to manage.
// Addresses .80 to .95 are in no reservation, .112/28 feeds stock, .128/28 does not say, .144/28 is for other IPAM plugins.
const theVPC = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- name: multus-1
  cidr: 10.10.1.0/24
  ipv6: "2001:db8:10:1::/64"
  az: us-west-2a
  reservations:
  - {cidr: 10.10.1.112/28, tags: {multus-vpc.io/role: pool}}
  - {cidr: 10.10.1.128/28}
  - {cidr: 10.10.1.144/28, tags: {multus-vpc.io/role: static}}
  - {cidr: "2001:db8:10:1:5::/80", tags: {multus-vpc.io/role: static}}
- {name: multus-2, cidr: 10.10.2.0/24, az: us-west-2a}
instances:
- name: worker-1
  enis:
  - {subnet: primary, tags: {node.k8s.amazonaws.com/no_manage: "true"}, addresses: [10.10.12.10, 10.10.12.80]}
  - subnet: multus-1
    addresses: [10.10.1.20, 10.10.1.80, 10.10.1.81, 10.10.1.112, 10.10.1.128, 10.10.1.144]
    ipv6Addresses: ["2001:db8:10:1::80", "2001:db8:10:1:5::80"]
    tags: {node.k8s.amazonaws.com/no_manage: "true", kubernetes.io/cluster/core: owned}
- name: worker-2
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.10.1.21, 10.10.1.82], tags: {node.k8s.amazonaws.com/no_manage: "true", kubernetes.io/cluster/core: owned}}
  - {subnet: multus-2, addresses: [10.10.2.21, 10.10.2.80], tags: {node.k8s.amazonaws.com/no_manage: "true", kubernetes.io/cluster/core: owned}}
- name: theirs
  enis: [{subnet: primary}, {subnet: multus-1, addresses: [10.10.1.22, 10.10.1.84], tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: unmanaged
  enis: [{subnet: primary}, {subnet: multus-1, addresses: [10.10.1.23, 10.10.1.86]}]
`

// world is a lab in a synctest bubble and a cluster of two nodes without pods.
type world struct {
	t   *testing.T
	lab *scenario.Lab
	api *api
	sweep.Sweeper
	told   []string
	onTell func(line string)
}

// api is a Kubernetes API. A call of before runs ahead of every list of pods, of which it is told the number.
type api struct {
	pods     []cluster.Pod
	nodes    []cluster.Node
	networks []cluster.Network
	before   func(n int) error
	lists    int
}

func (a *api) Pods(ctx context.Context) ([]cluster.Pod, error) {
	a.lists++
	if a.before != nil {
		if err := a.before(a.lists); err != nil {
			return nil, err
		}
	}
	return slices.Clone(a.pods), ctx.Err()
}

func (a *api) Nodes(context.Context) ([]cluster.Node, error)       { return a.nodes, nil }
func (a *api) Networks(context.Context) ([]cluster.Network, error) { return a.networks, nil }

// inWorld runs a test in a bubble, in a lab whose EC2 behaves as the YAML says.
func inWorld(t *testing.T, ec2 string, f func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := scenario.Parse([]byte(theVPC + ec2))
		if err != nil {
			t.Fatal(err)
		}
		lab, err := scenario.Build(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, lab: lab, api: &api{nodes: []cluster.Node{
			{Name: "node-1", Instance: eni.InstanceID(lab.Instances["worker-1"])}, {Name: "node-2", Instance: eni.InstanceID(lab.Instances["worker-2"])},
		}}}
		w.Sweeper = sweep.Sweeper{Kubernetes: w.api, EC2: ec2eni.New(ec2eni.Config{SDK: aws.Config{
			Region: lab.Cloud.Region(), Credentials: credentials.NewStaticCredentialsProvider("AKIALAB", "secret", ""),
			HTTPClient: &http.Client{Transport: lab.EC2()},
		}})}
		f(t, w)
	})
}

// run sweeps as the options say, with a minute between the looks.
func (w *world) run(o sweep.Options) (sweep.Report, error) {
	o.Wait = sweep.DefaultWait
	o.Tell = func(line string) {
		w.told = append(w.told, line)
		if w.onTell != nil {
			w.onTell(line)
		}
	}
	return w.Run(w.t.Context(), o)
}

// want compares the findings, but for kept ones that want does not name, with lines such as "10.10.1.80 orphan: no pod has it",
// of which the end may be left out.
func (w *world) want(r sweep.Report, want ...string) {
	w.t.Helper()
	var got []string
	for _, f := range r.Findings {
		line := f.Address.String() + " " + string(f.Verdict) + ": " + f.Reason
		if f.Verdict != sweep.Kept || slices.ContainsFunc(want, func(s string) bool { return strings.HasPrefix(s, f.Address.String()+" ") }) {
			got = append(got, line)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		w.t.Errorf("found\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// onENIs demands that EC2 has these of the world's addresses on ENIs, and no other.
func (w *world) onENIs(want ...string) {
	w.t.Helper()
	var got []string
	for _, e := range w.lab.Cloud.View(time.Now()).AllENIs() {
		for _, a := range slices.Concat(e.Secondary, e.IPv6) {
			got = append(got, a.String())
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("EC2 has %q, want %q", got, want)
	}
}

// all are the addresses that are not an ENI's own at first.
func all() []string {
	return []string{
		"10.10.12.80", "10.10.1.80", "10.10.1.81", "10.10.1.112", "10.10.1.128", "10.10.1.144", "2001:db8:10:1::80", "2001:db8:10:1:5::80",
		"10.10.1.82", "10.10.2.80", "10.10.1.84", "10.10.1.86",
	}
}

// without is all but these.
func without(gone ...string) []string {
	return slices.DeleteFunc(all(), func(a string) bool { return slices.Contains(gone, a) })
}

// pod runs on the node and has these addresses by its network-status.
func pod(name, node string, ips ...string) cluster.Pod {
	quoted, err := json.Marshal(append([]string{}, ips...))
	if err != nil {
		panic(err)
	}
	return cluster.Pod{
		Namespace: "default", Name: name, Node: node,
		IPs: []netip.Addr{netip.MustParseAddr("10.10.12.99")},
		Annotations: map[string]string{
			cluster.AnnotationNetworks:      "n",
			cluster.AnnotationNetworkStatus: `[{"name":"aws-cni","interface":"eth0","ips":["10.10.12.99"],"default":true,"dns":{}},{"name":"default/n","interface":"net1","ips":` + string(quoted) + `,"dns":{}}]`,
		},
	}
}

func network(config string) cluster.Network {
	return cluster.Network{Namespace: "default", Name: "n", Config: config}
}

// eni is the worker's ENI at the device index.
func (w *world) eni(worker string, index int) eni.ID { return eni.ID(w.lab.ENIs[worker][index]) }
