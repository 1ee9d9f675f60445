// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package sticky

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

// oneWorker has an ENI for pods, and one in a subnet without a reservation, on which every ADD fails.
const oneWorker = `
vpc: {cidr: 10.70.0.0/16}
subnets:
- {name: primary, cidr: 10.70.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.70.1.0/24, az: us-west-2a, reservations: [{cidr: 10.70.1.64/26}]}
- {name: bare, cidr: 10.70.2.0/24, az: us-west-2a}
instances:
- name: worker-1
  enis:
  - {subnet: primary}
  - {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: bare, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2: {latency: 5ms, propagation: {route: 50ms, imds: 100ms, describe: 100ms}}
`

// TestEighthAttachmentFailsOverAndOver has the kubelet try a pod twenty times: a sandbox with a new container ID, seven
// attachments that succeed, an eighth that does not, DELs as far as they come through, and again.
func TestEighthAttachmentFailsOverAndOver(t *testing.T) {
	const attempts, attachments, stock = 20, 8, 1
	tests := map[string]struct {
		dels func(attempt, attachment int) int // how often DEL comes
	}{
		"DEL comes":            {dels: func(int, int) int { return 1 }},
		"every DEL is lost":    {dels: func(int, int) int { return 0 }},
		"some DELs are lost":   {dels: func(attempt, attachment int) int { return (attempt + attachment) % 3 }},
		"lost before the last": {dels: func(attempt, _ int) int { return attempt % 2 }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := up(t, oneWorker, fmt.Sprintf("warmIPTarget: %d\nminimumIPTarget: 0\n", stock))
			for attempt := range attempts {
				s := g.sandbox("worker-1", "web", "u1")
				for i := 1; i < attachments; i++ {
					if err := g.call(s, "vpcipam", "ADD", interfaceOf(i), network(i, 1)).Err(); err != nil {
						t.Fatalf("attempt %d: ADD of attachment %d: %v", attempt, i, err)
					}
				}
				if _, err := g.call(s, "vpcipam", "ADD", interfaceOf(attachments), network(attachments, 2)).Refusal(); err != nil {
					t.Fatalf("attempt %d: ADD of attachment %d: %v", attempt, attachments, err)
				}
				g.consumes(attempt, attachments, stock)
				g.must(s.Delete())
				for i := attachments; i > 0; i-- {
					for range tt.dels(attempt, i) {
						if err := g.call(s, "vpcipam", "DEL", interfaceOf(i), network(i, 1)).Err(); err != nil {
							t.Fatalf("attempt %d: DEL of attachment %d: %v", attempt, i, err)
						}
					}
				}
				g.consumes(attempt, attachments, stock)
			}
		})
	}
}

func interfaceOf(attachment int) string { return fmt.Sprint("net", attachment) }

func network(attachment, deviceIndex int) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "n%d", "type": "vpcipvlan", "eni": {"deviceIndex": %d}, "ipam": {"type": "vpcipam"}}`, attachment, deviceIndex)
}

// consumes demands that the pod has, or had a moment ago, at most so many addresses, and EC2 no more than those and the
// stock on the worker's ENI.
func (g *ground) consumes(attempt, most, stock int) {
	g.t.Helper()
	s, err := g.nodes["worker-1"].Status(g.ctx)
	g.must(err)
	used := 0
	for _, e := range s.ENIs {
		used += len(slices.DeleteFunc(slices.Clone(e.Addresses), func(a agentapi.AddressStatus) bool { return a.State != "held" && a.State != "cooling" }))
	}
	e, ok := g.lab.Cloud.View(time.Now()).ENI(g.lab.ENIs["worker-1"][1])
	if onENI := len(e.Addresses()) - 1; !ok || used > most || onENI > most+stock {
		g.t.Fatalf("attempt %d: the pod has %d addresses, want at most %d; EC2 has %d on the ENI, want at most %d", attempt, used, most, onENI, most+stock)
	}
}
