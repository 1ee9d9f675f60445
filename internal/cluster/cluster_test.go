// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package cluster_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/cluster"
	"github.com/multus-vpc/multus-vpc/internal/eni"
)

// aStatus is a network-status as Multus 4.2 writes it.
const aStatus = `[{
    "name": "aws-cni",
    "interface": "dummy81d3b1b0",
    "ips": ["10.10.12.77"],
    "mac": "0",
    "default": true,
    "dns": {}
},{
    "name": "default/n6",
    "interface": "net1",
    "ips": ["10.10.1.80", "2001:db8:1::80"],
    "mac": "0a:58:0a:0a:01:50",
    "dns": {},
    "gateway": ["\u003cnil\u003e"]
}]`

func annotated(key, value string) cluster.Pod {
	return cluster.Pod{Namespace: "ns", Name: "p", Annotations: map[string]string{key: value}}
}

func TestAttached(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pod     cluster.Pod
		want    string
		written bool
		err     string
	}{
		"nothing":              {cluster.Pod{}, "[]", false, ""},
		"the first interface":  {cluster.Pod{IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, "[10.0.0.1]", false, ""},
		"what Multus writes":   {annotated(cluster.AnnotationNetworkStatus, aStatus), "[10.10.12.77 10.10.1.80 2001:db8:1::80]", true, ""},
		"what Multus wrote":    {annotated(cluster.AnnotationOldStatus, aStatus), "[10.10.12.77 10.10.1.80 2001:db8:1::80]", true, ""},
		"interfaces without":   {annotated(cluster.AnnotationNetworkStatus, `[{"name": "sriov", "interface": "net1"}]`), "[]", true, ""},
		"with prefix length":   {annotated(cluster.AnnotationNetworkStatus, `[{"ips": ["10.0.0.1/24", "::ffff:10.0.0.2"]}]`), "[10.0.0.1 10.0.0.2]", true, ""},
		"no JSON":              {annotated(cluster.AnnotationNetworkStatus, "{"), "[]", true, "pod ns/p: annotation k8s.v1.cni.cncf.io/network-status: unexpected end of JSON input"},
		"no list":              {annotated(cluster.AnnotationNetworkStatus, "{}"), "[]", true, "cannot unmarshal object"},
		"something else there": {annotated(cluster.AnnotationOldStatus, `[{"ips": ["x"]}]`), "[]", true, `pod ns/p: annotation k8s.v1.cni.cncf.io/networks-status: ParseAddr("x")`},
	} {
		addrs, written, err := tc.pod.Attached()
		if got := fmt.Sprint(addrs); got != tc.want || written != tc.written || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %s, %v, %v; want %s, %v, %q", name, got, written, err, tc.want, tc.written, tc.err)
		}
	}
}

func TestMultus(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pod  cluster.Pod
		want bool
	}{
		"no annotation":    {cluster.Pod{}, false},
		"networks":         {annotated(cluster.AnnotationNetworks, "n6"), true},
		"an empty one":     {annotated(cluster.AnnotationNetworks, " "), false},
		"another default":  {annotated(cluster.AnnotationDefault, "kube-system/vpc-first"), true},
		"the host's netns": {cluster.Pod{HostNetwork: true, Annotations: map[string]string{cluster.AnnotationNetworks: "n6"}}, false},
	} {
		if got := tc.pod.Multus(); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestRegisters(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]bool{
		"/sidecar":                                 true,
		"/usr/bin/sidecar --via ec2":               true,
		"/initcontainer":                           false,
		"/bin/sh|-c|/app/script.sh sidecar":        true,
		"/bin/sh|-c|/app/script.sh initContainers": false,
		"/my-sidecar-free-app":                     false,
		"":                                         false,
	} {
		p := annotated(cluster.AnnotationNetworks, "n6")
		p.Containers = []cluster.Container{{Command: []string{"/app"}}, {Command: strings.Split(command, "|")}}
		if got := p.Registers(); got != want {
			t.Errorf("%s: %v", command, got)
		}
		p.Annotations = nil
		if p.Registers() {
			t.Errorf("%s: in a pod without networks", command)
		}
	}
}

func TestFloating(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		pod  cluster.Pod
		want string
	}{
		"none":           {cluster.Pod{}, "[]"},
		"the annotation": {annotated(cluster.AnnotationFloating, "10.0.0.1, 10.0.1.0/31"), "[10.0.0.1 10.0.1.0-10.0.1.1]"},
		"a variable":     {cluster.Pod{Containers: []cluster.Container{{Command: []string{"/sidecar"}, Env: map[string]string{"MULTUS_VPC_FLOATING": "10.0.0.1"}}}}, "[10.0.0.1]"},
		"a flag":         {cluster.Pod{Containers: []cluster.Container{{Command: []string{"/sidecar", "-floating", "10.0.0.1"}}}}, "[10.0.0.1]"},
		"a flag with =":  {cluster.Pod{Containers: []cluster.Container{{Command: []string{"/sidecar", "--floating=10.0.0.1"}}}}, "[10.0.0.1]"},
		"a flag alone":   {cluster.Pod{Containers: []cluster.Container{{Command: []string{"/sidecar", "--floating"}}}}, "[]"},
		"another's flag": {cluster.Pod{Containers: []cluster.Container{{Command: []string{"/app", "--floating=x"}}}}, "[]"},
		"a flag like it": {cluster.Pod{Containers: []cluster.Container{{Command: []string{"/sidecar", "--floating-point", "x"}}}}, "[]"},
		"nonsense":       {annotated(cluster.AnnotationFloating, "10.0.0.1/24"), "pod ns/p: floating addresses: "},
	} {
		ranges, err := tc.pod.Floating()
		got := fmt.Sprint(ranges)
		if err != nil {
			got = err.Error()
		}
		if got != tc.want && (err == nil || !strings.HasPrefix(got, tc.want)) {
			t.Errorf("%s: %s, %v; want %s", name, got, err, tc.want)
		}
	}
}

func TestInstanceOf(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]eni.InstanceID{
		"aws:///us-west-2a/i-0123456789abcdef0": "i-0123456789abcdef0",
		"aws:///us-west-2a/fargate-ip-10-0-0-1": "",
		"kind://docker/kind/i-0":                "",
		"":                                      "",
	} {
		if got := cluster.InstanceOf(id); got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

func TestUse(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		``: "{true false []}",
		`{"type": "ipvlan", "ipam": {"type": "whereabouts"}}`:                                                            "{false false []}",
		`{"type": "vpcipvlan", "ipam": {"type": "vpcipam"}}`:                                                             "{true false []}",
		`{"type": "ipvlan", "ipam": {"type": "vpcipam", "source": "prefix"}}`:                                            "{false false []}",
		`{"type": "ipvlan", "ipam": {"type": "vpcipam", "source": "subnet"}}`:                                            "{false true []}",
		`{"plugins": [{"type": "vpcipvlan", "ipam": {"type": "vpcipam", "source": "reservation"}}, {"type": "tuning"}]}`: "{true false []}",
		`{"type": "vpcipvlan", "floating": ["10.0.0.1", "10.0.1.0/31"], "ipam": {"type": "static"}}`:                     "{false false [10.0.0.1 10.0.1.0-10.0.1.1]}",
		`{"plugins": [{"type": "vpcipvlan", "floating": ["10.0.0.1"], "ipam": {"type": "vpcipam"}}]}`:                    "{true false [10.0.0.1]}",
	} {
		use, err := cluster.Network{Config: config}.Use()
		if got := fmt.Sprint(use); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", config, got, err, want)
		}
	}
	for config, want := range map[string]string{`{`: "network ns/n: unexpected end", `{"floating": ["x"]}`: `network ns/n: "x" is neither`} {
		if _, err := (cluster.Network{Namespace: "ns", Name: "n", Config: config}).Use(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
	n := cluster.Network{Namespace: "ns", Name: "n", Config: "{}", Annotations: map[string]string{cluster.AnnotationFloating: "x"}}
	if _, err := n.Use(); err == nil || !strings.Contains(err.Error(), "network ns/n: annotation multus-vpc.io/floating: ") {
		t.Errorf("%v", err)
	}
}

// FuzzAnnotations: what pods' authors write never panics, and what is read of it are addresses and ranges.
func FuzzAnnotations(f *testing.F) {
	f.Add(aStatus, "10.0.0.1, 10.0.1.0/31", `{"plugins": [{"floating": ["10.0.0.1"], "ipam": {"type": "vpcipam"}}]}`)
	f.Add(`[{"ips": ["10.0.0.1/24"]}]`, "", "")
	f.Add(`{`, "2001:db8::-2001:db8::1", `{"ipam": {"type": "vpcipam", "source": "subnet"}}`)
	f.Fuzz(func(t *testing.T, status, floating, config string) {
		p := cluster.Pod{Annotations: map[string]string{cluster.AnnotationNetworkStatus: status, cluster.AnnotationFloating: floating}}
		addrs, _, err := p.Attached()
		for _, a := range addrs {
			if !a.IsValid() {
				t.Errorf("%v of %s, %v", addrs, status, err)
			}
		}
		ranges, err := p.Floating()
		for _, r := range ranges {
			if err != nil || !r.Contains(r.From) || !r.Contains(r.To) {
				t.Errorf("%v of %s, %v", ranges, floating, err)
			}
		}
		use, err := cluster.Network{Config: config}.Use()
		for _, r := range use.Floating {
			if err == nil && !r.Contains(r.From) {
				t.Errorf("%v of %s", use.Floating, config)
			}
		}
	})
}
