// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
)

// TestAddressGivenAgainStaysAtItsNewPod has an IPAM plugin give an address to a new pod on another worker, while the old pod's
// sidecar waits for EC2's answer to its release, or for one that is lost. What the old worker's side still does about that is no
// harm to the new pod.
func TestAddressGivenAgainStaysAtItsNewPod(t *testing.T) {
	g := up(t)
	client := g.nodes["worker-1"].attachKnown(t, "client", prefixes("10.10.1.110/24", "2001:db8:10:1::110/64")...)
	for i, kind := range []front.Kind{front.Slow, front.LostReply, front.ServerError} {
		t.Run(string(kind), func(t *testing.T) {
			addrs := prefixes(fmt.Sprintf("10.10.1.%d/24", 80+i), fmt.Sprintf("2001:db8:10:1::%d/64", 80+i))
			old := g.nodes["worker-1"].attachStatic(t, fmt.Sprintf("old-%d", i), addrs...)
			sidecar := old.static(t, "sidecar", "MULTUS_VPC_GRACE=8s")
			sidecar.ready(t)
			if err := g.ownedBy(addrs, "worker-1"); err != nil {
				t.Fatal(err)
			}
			err := g.lab.Front.SetFaults([]front.Fault{
				{Action: releases()[0], Nth: 1, Kind: kind}, {Action: releases()[1], Nth: 1, Kind: kind},
			})
			if err != nil {
				t.Fatal(err)
			}
			ending := time.Now()
			sidecar.signal()
			for _, a := range addrs {
				await(t, "the old pod's sidecar gives "+a.String()+" back", func() error {
					if _, ok := g.log.first(ending, a.Addr(), releases()); !ok {
						return fmt.Errorf("no release")
					}
					return nil
				})
			}
			// The old pod's interface goes with it, and the IPAM plugin is free to give its addresses again.
			if err := old.node.place.Remove(old.Name); err != nil {
				t.Fatal(err)
			}
			fresh := g.nodes["worker-2"].attachStatic(t, fmt.Sprintf("new-%d", i), addrs...)
			fresh.static(t, "initcontainer").end(t)
			var histories []*history
			for _, a := range addrs {
				client.reaches(t, a.Addr())
				histories = append(histories, g.watch(t, a.Addr()))
			}
			<-sidecar.ended // whatever it still does is done
			for j, h := range histories {
				if seen := h.end(); len(seen) != 1 || !slices.Equal(seen[0], []string{"worker-2"}) {
					t.Errorf("%s had the owners %v one after another, want worker-2 all the time", addrs[j], seen)
				}
				client.reaches(t, addrs[j].Addr())
			}
		})
	}
}
