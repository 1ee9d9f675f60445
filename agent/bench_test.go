// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

// BenchmarkAddDel is what the agent does between reading a request and writing its answer, for a pod that comes and goes
// on an ENI with stock.
func BenchmarkAddDel(b *testing.B) {
	h, _ := serving(b, true)
	add := agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: onIndex(1)}
	del := agentapi.Request{Method: agentapi.MethodDel, Attachment: attached("a")}
	handle := func(req agentapi.Request) {
		if resp := h.Handle(b.Context(), req); resp.Error != nil {
			b.Fatal(resp.Error)
		}
	}
	handle(add) // waits for the first stock
	handle(del)
	b.ReportAllocs()
	for b.Loop() {
		handle(add)
		handle(del)
	}
}
