// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package kill

import "testing"

// TestKilledAgentsAndIPVlanPluginsLoseNothing needs ipvlan.
func TestKilledAgentsAndIPVlanPluginsLoseNothing(t *testing.T) {
	campaign{
		wiring: withVPCIPVlan(),
		perWorker: map[round]int{
			{beforeAssign, theAgent}:   3,
			{lateAssign, theAgent}:     1,
			{afterAssign, theAgent}:    3,
			{beforeUnassign, theAgent}: 1,
			{afterUnassign, theAgent}:  1,
			{afterLedger, theAgent}:    3,
			{afterReply, theAgent}:     3,
			{linkMade, theAgent}:       2,
			{linkMade, thePlugin}:      5,
			{afterLedger, thePlugin}:   3,
			{linkMade, both}:           2,
		},
		batch: 14,
		kills: 50, inFlight: 40,
		steps: []step{beforeAssign, lateAssign, afterAssign, beforeUnassign, afterUnassign, afterLedger, afterReply, linkMade},
	}.run(t)
}

// withVPCIPVlan executes the interface plugin, which makes the link itself and asks the agent itself.
func withVPCIPVlan() wiring {
	return wiring{
		plugin: "vpcipvlan",
		config: func(socket string) map[string]any {
			return map[string]any{
				"cniVersion": "1.0.0", "name": "kill", "type": "vpcipvlan", "eni": map[string]any{"deviceIndex": 1},
				"ipam": map[string]any{"type": "vpcipam", "agentSocket": socket},
			}
		},
	}
}
