// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi_test

import (
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

// BenchmarkCall is one exchange between processes that are warm: what an ADD costs beside the plugin's start.
func BenchmarkCall(b *testing.B) {
	socket := b.TempDir() + "/agent.sock"
	start(b, socket, &agentapi.Server{}, newHandler())
	for b.Loop() {
		if _, err := (agentapi.Client{Socket: socket}).Call(b.Context(), status); err != nil {
			b.Fatal(err)
		}
	}
}
