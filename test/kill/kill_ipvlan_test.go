// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package kill

import (
	"testing"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

// TestKilledAgentsAndIPVlanPluginsLoseNothing needs ipvlan.
func TestKilledAgentsAndIPVlanPluginsLoseNothing(t *testing.T) {
	campaign{
		wiring: stage.VPCIPVlan(),
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
