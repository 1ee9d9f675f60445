// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package awscli

import (
	"sync/atomic"
	"testing"
)

// workers is a VPC with two workers on two subnets; scenes append to it.
const workers = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2600:1f14:abc:de00::/56"}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, ipv6: "2600:1f14:abc:de01::/64", az: us-west-2a, tags: {multus: "1"},
   reservations: [{cidr: 10.10.1.64/26, type: explicit, tags: {multus-vpc.io/role: pool}}]}
- {name: tiny, cidr: 10.10.2.0/28, az: us-west-2a}
- {name: other-zone, cidr: 10.10.3.0/24, az: us-west-2b}
instances:
- name: worker-1
  type: m5.2xlarge
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.10.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: tiny}
- name: worker-2
  type: m5.2xlarge
  enis:
  - {subnet: primary}
  - {subnet: multus-1, addresses: [10.10.1.21, 10.10.1.22], ipv6Addresses: ["2600:1f14:abc:de01::22"]}
- {name: full, type: m5.large, enis: [{subnet: primary}, {subnet: primary}, {subnet: primary}]}
`

// minimumCalls is what the suite promises at least.
const minimumCalls = 40

func TestCLI(t *testing.T) {
	aws, err := cli()
	if err != nil {
		t.Fatal(err)
	}
	binary, remove, err := vpclab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	s := &suite{aws: aws, vpclab: binary}
	scenes := map[string]struct {
		ec2  string // of the scenario
		play func(*testing.T, *lab)
	}{
		"reading":             {"", reading},
		"naming addresses":    {"", namingAddresses},
		"limits":              {"", limits},
		"unassigning":         {"", unassigning},
		"full subnets":        {"", fullSubnets},
		"IPv6":                {"", ipv6},
		"creating interfaces": {"", creatingInterfaces},
		"attaching":           {"", attaching},
		"instances":           {"", instances},
		"reservations":        {"", reservations},
		"tags":                {"", tags},
		"groups":              {"", groups},
		"stacks":              {"", stacks},
		"assignOwned error":   {"ec2: {assignOwned: error}", assignOwnedError},
		"mixedBatch partial":  {"ec2: {mixedBatch: partial}", mixedBatchPartial},
		"throttled":           {"ec2: {throttle: {AssignPrivateIpAddresses: {burst: 1, refill: 0}}}", throttled},
		"faults":              {"", faults},
		"lost reply":          {"ec2: {faults: [{action: AssignPrivateIpAddresses, nth: 1, kind: lost-reply}]}", lostReply},
	}
	var played atomic.Int32
	t.Run("scenes", func(t *testing.T) {
		for name, scene := range scenes {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				scene.play(t, s.start(t, workers+scene.ec2))
				played.Add(1)
			})
		}
	})
	t.Logf("%d calls of %s, %d refused as EC2 would", s.calls.Load(), s.aws, s.refusals.Load())
	if int(played.Load()) == len(scenes) && s.calls.Load() < minimumCalls {
		t.Errorf("only %d calls, want %d", s.calls.Load(), minimumCalls)
	}
}
