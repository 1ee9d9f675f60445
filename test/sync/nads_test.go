// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// forExamples is a VPC in which all definitions of examples/nad have what they ask for: ENIs by index, by their subnets' tags
// and on a second network card, reservations of both types and of both families, one tagged for a network, one for a
// StatefulSet.
const forExamples = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: primary, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, ipv6: "2001:db8:10:1::/64", az: us-west-2a, tags: {network: n2}, reservations: [
    {cidr: 10.10.1.16/28},
    {cidr: "2001:db8:10:1::1000/116"},
    {cidr: 10.10.1.64/27, tags: {multus-vpc.io/role: static}},
    {cidr: 10.10.1.96/27, tags: {network: n4}},
    {cidr: 10.10.1.128/26, tags: {multus-vpc.io/role: static}},
    {cidr: 10.10.1.192/27, tags: {multus-vpc.io/role: static}},
    {cidr: 10.10.1.32/27, type: prefix}]}
- {name: multus-2, cidr: 10.10.2.0/24, az: us-west-2a, tags: {network: n6}, reservations: [{cidr: 10.10.2.64/28}]}
- {name: multus-3, cidr: 10.10.3.0/24, az: us-west-2a, reservations: [{cidr: 10.10.3.64/28}]}
instances:
- name: worker-1
  type: c6in.32xlarge
  enis:
  - {subnet: primary, addresses: [10.10.12.11]}
  - {subnet: multus-1, addresses: [10.10.1.10], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-2, addresses: [10.10.2.10], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-3, networkCard: 1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
- name: worker-2
  type: c6in.32xlarge
  enis:
  - {subnet: primary, addresses: [10.10.12.12]}
  - {subnet: multus-1, addresses: [10.10.1.11], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-2, addresses: [10.10.2.11], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-3, networkCard: 1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2:
  latency: 20ms
  propagation: {route: 100ms, imds: 200ms, describe: 200ms}
`

// example is what comes of two pods, one on each worker, with a definition of examples/nad.
type example struct {
	metadata   func(i int) any // of the i-th pod, when it does not just ask for the network by its name
	from       []string        // where the addresses come from, in the order of the result
	eni        int             // index of the ENI among the worker's; 0: the one at device index 1
	unknown    bool            // EC2 is not told
	init       bool            // EC2 is told by an init container
	floats     string          // goes to the first pod, and then to the second
	interfaces string          // "eth0" for a pod's first; net1 otherwise
}

// ofPool is where addresses for whoever asks for nothing special come from: the subnet's reservations that have no role.
const ofPool = "10.10.1.0/24"

// examples has a row for each file.
var examples = map[string]example{
	"by-device-index.yaml":      {from: []string{ofPool}},
	"by-network-card.yaml":      {from: []string{"10.10.3.64/28"}, eni: 3},
	"by-subnet-tags.yaml":       {from: []string{"10.10.2.64/28"}, eni: 2},
	"conflist-with-tuning.yaml": {from: []string{ofPool}},
	"dual-stack.yaml":           {from: []string{ofPool, "2001:db8:10:1::1000/116"}},
	"first-interface.yaml": {
		metadata: func(int) any {
			return object{"annotations": object{"v1.multus-cni.io/default-network": "kube-system/vpc-first"}}
		},
		from: []string{ofPool}, interfaces: "eth0",
	},
	"floating.yaml":                {from: []string{ofPool}, floats: "10.10.1.90/32"},
	"host-local.yaml":              {from: []string{"10.10.1.200/29"}, unknown: true},
	"ipvlan-with-vpcipam.yaml":     {from: []string{ofPool}},
	"ipvlan-with-whereabouts.yaml": {from: []string{"10.10.1.80/28"}, init: true},
	"prefixes.yaml":                {from: []string{"10.10.1.32/27"}},
	"requested-addresses.yaml": {
		metadata: func(i int) any {
			ask := fmt.Sprintf(`[{"name": "n4", "ips": ["10.10.1.%d"]}]`, 98+i)
			return object{"annotations": object{networksAnnotation: ask}}
		},
		from: []string{"10.10.1.98/31"},
	},
	"sticky.yaml": {
		metadata: func(i int) any {
			return object{
				"annotations": object{networksAnnotation: "n2"},
				"labels":      object{"apps.kubernetes.io/pod-index": fmt.Sprint(i)},
				"ownerReferences": []any{object{
					"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "amf", "uid": "5f0c0f5e-0000-4000-8000-000000000001", "controller": true,
				}},
			}
		},
		from: []string{"10.10.1.64/31"},
	},
	"whereabouts.yaml": {from: []string{"10.10.1.128/26"}},
	"with-routes.yaml": {from: []string{"10.10.2.64/28"}, eni: 2},
}

// TestExampleNADs applies each file of examples/nad to the API server and has real Multus give it to pods on two workers, who
// then reach one another.
func TestExampleNADs(t *testing.T) {
	const dir = "../../examples/nad"
	g := raise(t, forExamples)
	c := g.install(t)
	for _, n := range c.nodes {
		c.thin(t, n)
		c.whereaboutsByDefault(t, n)
		n.startAgent(t, "ipCooldownPeriod: 1\n", "KUBECONFIG="+c.api.Kubeconfig)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) < len(examples) {
		t.Fatalf("%d files in %s (%v), and %d rows", len(files), dir, err, len(examples))
	}
	for _, file := range files {
		e, ok := examples[filepath.Base(file)]
		if !ok {
			t.Errorf("%s has no row: what comes of it?", file)
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.api.Apply(t.Context(), text); err != nil {
				t.Fatal(err)
			}
			c.tryExample(t, e, nameIn(t, string(text)))
		})
	}
}

// nameIn is the name of a definition.
func nameIn(t *testing.T, text string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n  name: ")
	name, _, more := strings.Cut(rest, "\n")
	if !ok || !more {
		t.Fatalf("no name in %s", text)
	}
	return name
}

// whereaboutsByDefault puts whereabouts' configuration where it looks for it without being told.
// https://github.com/k8snetworkplumbingwg/whereabouts/blob/v0.8.0/doc/extended-configuration.md
func (c *cluster) whereaboutsByDefault(t *testing.T, n *node) {
	t.Helper()
	dir := filepath.Join(n.dir, "whereabouts.d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeJSON(t, filepath.Join(dir, "whereabouts.conf"), object{"kubernetes": object{"kubeconfig": c.api.Kubeconfig}})
	if err := n.mount(dir, "/etc/cni/net.d/whereabouts.d"); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) tryExample(t *testing.T, e example, name string) {
	began := time.Now()
	var pods []*aPod
	var addrs [][]netip.Addr
	for i, worker := range []string{"worker-1", "worker-2"} {
		metadata := object{"annotations": object{networksAnnotation: name}}
		if e.metadata != nil {
			metadata = e.metadata(i).(object)
		}
		p := c.schedule(t, c.nodes[worker], fmt.Sprintf("amf-%d", i), metadata)
		if err := p.multus(t.Context(), "thin", "add"); err != nil {
			t.Fatal(err)
		}
		pods, addrs = append(pods, p), append(addrs, c.given(t, p, e.interfaces))
	}
	t.Logf("%v after %v", addrs, time.Since(began).Round(time.Millisecond))
	if e.init {
		for _, p := range pods {
			p.start(t, "initcontainer", name).end(t)
		}
	}
	for i, p := range pods {
		c.judge(t, e, p, addrs[i])
		for _, to := range addrs[1-i] {
			if e.unknown {
				p.misses(t, to)
			} else {
				p.reaches(t, to)
			}
		}
	}
	if e.floats != "" {
		c.float(t, netip.MustParsePrefix(e.floats), pods)
	}
	for _, p := range pods {
		c.del(t, "thin", p)
	}
}

// float lets one pod after another carry an address, which EC2 moves along.
func (c *cluster) float(t *testing.T, a netip.Prefix, pods []*aPod) {
	t.Helper()
	for i, p := range pods {
		if i > 0 {
			pods[i-1].remove(t, a)
		}
		p.add(t, a)
		await(t, fmt.Sprintf("%s is on %s", a, p.node.name), func() error { return c.ownedBy([]netip.Prefix{a}, p.node.name) })
		pods[(i+1)%len(pods)].reaches(t, a.Addr())
	}
}

// given are the addresses that the API server has for the pod, from Multus.
func (c *cluster) given(t *testing.T, p *aPod, ifName string) []netip.Addr {
	t.Helper()
	if ifName == "" {
		ifName = "net1"
	}
	for _, s := range c.status(t, p) {
		if s.Interface == ifName {
			return s.IPs
		}
	}
	t.Fatalf("network-status of %s has no %s", p.Name, ifName)
	return nil
}

// judge demands that each address comes from where it should and is on the right ENI, or on none.
func (c *cluster) judge(t *testing.T, e example, p *aPod, addrs []netip.Addr) {
	t.Helper()
	if len(addrs) != len(e.from) {
		t.Errorf("%s has %v, want one of each of %v", p.Name, addrs, e.from)
		return
	}
	index := max(e.eni, deviceIndex)
	holder, _ := c.lab.Cloud.View(time.Now()).ENI(c.lab.ENIs[p.node.name][index])
	for i, a := range addrs {
		if !netip.MustParsePrefix(e.from[i]).Contains(a) {
			t.Errorf("%s has %s, want one of %s", p.Name, a, e.from[i])
		}
		within := func(prefix netip.Prefix) bool { return prefix.Contains(a) }
		held := slices.Contains(holder.Secondary, a) || slices.Contains(holder.IPv6, a) || slices.ContainsFunc(holder.Prefixes, within)
		if held == e.unknown {
			t.Errorf("%s: ENI %d of %s has %s: %t", p.Name, index, p.node.name, a, held)
		}
	}
}

// attached is an element of Multus' network-status.
type attached struct {
	Name, Interface string
	IPs             []netip.Addr
	Default         bool
}

// status is what Multus says of the pod in the API.
func (c *cluster) status(t *testing.T, p *aPod) (all []attached) {
	t.Helper()
	var got struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := c.api.Do(t.Context(), http.MethodGet, podsPath+"/"+p.Name, nil, &got); err != nil {
		t.Fatal(err)
	}
	text := got.Metadata.Annotations[statusAnnotation]
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("network-status of %s: %v: %q", p.Name, err, text)
	}
	return all
}
