// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sticky

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/kubernetes"
	"github.com/multus-vpc/multus-vpc/test/stack"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

const twoInOneSubnet = `
vpc: {cidr: 10.73.0.0/16}
subnets:
- {name: primary, cidr: 10.73.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.73.1.0/24, az: us-west-2a, reservations: [{cidr: 10.73.1.192/28, tags: {multus-vpc.io/role: static}}]}
instances:
- {name: worker-1, enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: worker-2, enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
ec2: {latency: 5ms, propagation: {route: 50ms, imds: 100ms, describe: 100ms}}
`

// TestARealAPIServerSaysWhoseAnAddressIs moves db-2 between two workers whose agents ask a real API server.
func TestARealAPIServerSaysWhoseAnAddressIs(t *testing.T) {
	t.Parallel()
	programs, err := stack.Programs()
	if err != nil {
		t.Fatal(err)
	}
	g := raise(t, twoInOneSubnet, "warmIPTarget: 0\nminimumIPTarget: 0\n")
	c, err := kubernetes.Start(g.ctx, kubernetes.Config{Programs: programs})
	g.must(err)
	g.cleanUp(c.Close)
	g.access = func(w *worker.Worker) string {
		f, forwardErr := c.Forward(g.ctx, w.Netns)
		g.must(forwardErr)
		g.cleanUp(f.Close)
		return c.Kubeconfig
	}
	g.start()

	network := `{"cniVersion": "1.0.0", "name": "n", "type": "vpcipvlan", "eni": {"deviceIndex": 1},
		"ipam": {"type": "vpcipam", "ranges": ["10.73.1.192/28"], "sticky": {"statefulSet": "db"}}}`
	want := netip.MustParseAddr("10.73.1.194")
	var first, second *sandbox
	for _, s := range []**sandbox{&first, &second} {
		on := map[**sandbox]string{&first: "worker-1", &second: "worker-2"}[s]
		if first != nil { // in order: DEL, and then another pod of that name
			g.must(g.call(first, "vpcipam", "DEL", "net1", network).Err())
			g.must(c.Do(g.ctx, http.MethodDelete, "/api/v1/namespaces/default/pods/db-2", object{"gracePeriodSeconds": 0}, nil))
		}
		*s = g.sandbox(on, "db-2", g.created(c, "db-2", "db"))
		got, addErr := g.call(*s, "vpcipam", "ADD", "net1", network).Address()
		if addErr != nil || got.Addr() != want || g.owner(want) != on {
			t.Fatalf("db-2 on %s has %s, %v, which EC2 has on %q; want %s", on, got, addErr, g.owner(want), want)
		}
	}

	again := g.sandbox("worker-1", "db-2", first.uid) // by a kubelet that has not heard of the successor
	stranger := g.sandbox("worker-1", "web", g.created(c, "web", ""))
	for s, says := range map[*sandbox]string{again: "it has been replaced", stranger: "pod default/web belongs to no StatefulSet"} {
		r, refusalErr := g.call(s, "vpcipam", "ADD", "net1", network).Refusal()
		if refusalErr != nil || !strings.Contains(r.Msg+r.Details, says) {
			t.Errorf("%s of UID %s: %+v, %v; want %q", s.name, s.uid, r, refusalErr, says)
		}
	}
	if got := g.owner(want); got != "worker-2" {
		t.Errorf("in the end EC2 has the address on %q, want worker-2", got)
	}
}

// created makes the pod, as its StatefulSet's controller would if it has one, and returns its UID.
func (g *ground) created(c *kubernetes.Cluster, name, statefulSet string) (uid string) {
	g.t.Helper()
	meta := object{"name": name}
	if statefulSet != "" {
		meta["ownerReferences"] = []object{{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": statefulSet, "uid": "5e7", "controller": true}}
	}
	var made struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	pod := object{"metadata": meta, "spec": object{"containers": []object{{"name": "c", "image": "c"}}}}
	g.must(c.Do(g.ctx, http.MethodPost, "/api/v1/namespaces/default/pods", pod, &made))
	return made.Metadata.UID
}
