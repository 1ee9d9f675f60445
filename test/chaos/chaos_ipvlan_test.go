// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package chaos

import (
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/test/stage"
)

// TestChaosOnIPVlan runs the interface plugin, which makes the pods' links itself.
func TestChaosOnIPVlan(t *testing.T) {
	campaign{
		weather: weather{name: "ipvlan", lags: lags(100*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond), cut: 5 * time.Second, settle: 4 * time.Minute},
		wiring:  stage.VPCIPVlan(), kills: 8, epochs: 1,
	}.run(t)
}
