// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package agentapi_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// TestGCOfAFullNodeIsHeard: GC lists all attachments of the node, libcni twice, and the agent must have the whole list: what is not on
// it is taken for dead.
func TestGCOfAFullNodeIsHeard(t *testing.T) {
	socket, h := socketIn(t), newHandler()
	start(t, socket, &agentapi.Server{}, h)
	const pods, interfaces = 737, 16 // the most that EKS places on a worker, and the most ENIs that one has
	var valid []attachment.Key
	for p := range pods {
		for i := range interfaces {
			valid = append(valid, attachment.Key{ContainerID: fmt.Sprintf("%064x", p), IfName: fmt.Sprintf("net%d", i)})
		}
	}
	req := agentapi.Request{Method: agentapi.MethodGC, Network: "n6", Valid: slices.Concat(valid, valid)}
	if _, err := (agentapi.Client{Socket: socket}).Call(within(t, enough), req); err != nil {
		t.Fatal(err)
	}
	if got := h.requests()[0].Valid; !slices.Equal(got, req.Valid) {
		t.Errorf("the agent saw %d attachments of %d", len(got), len(req.Valid))
	}
}

// TestPodsSayLittle: any pod may use the sync socket, and the agent must not read much for each connection.
func TestPodsSayLittle(t *testing.T) {
	socket, _ := podServer(t, &pods{})
	req := claim
	for len(req.Addresses)*len(`"10.10.1.80/32",`) < 64<<10 {
		req.Addresses = append(req.Addresses, netip.MustParsePrefix("10.10.1.80/32"))
	}
	_, err := agentapi.Client{Socket: socket}.Call(within(t, enough), req)
	wantCode(t, err, agentapi.CodeDecode, "at most 65536 bytes")
}
