// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// fleetVPC has a subnet whose first half is for workers, the second reserved for pods; EC2 lets 5 writes/s of each action through.
const fleetVPC = `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: nodes, cidr: 10.10.16.0/20, az: us-west-2a}
- {name: pods, cidr: 10.10.2.0/23, az: us-west-2a, reservations: [{cidr: 10.10.3.0/24, tags: {multus-vpc.io/role: pool}}]}
ec2:
  latency: 80ms
  propagation: {route: 1s, imds: 2s, describe: 1s}
  throttle: {default: {read: {burst: 100, refill: 20}, write: {burst: 50, refill: 5}}}
`

// TestAHundredWorkersAtOnce: static addresses from the start of the subnet, beside an explicit reservation.
func TestAHundredWorkersAtOnce(t *testing.T) {
	for name, fleet := range map[string]struct {
		group   string
		workers int
	}{"of one group": {"group-1", 100}, "that know nothing of one another": {"", 40}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				group, workers := fleet.group, fleet.workers
				w := newWorld(t, fleetVPC)
				cfg := w.config(w.on("pods", func(i *workereni.Interface) { i.Addressing = workereni.Start }))
				out, err := w.lab.Cloud.RunInstances(time.Now().Add(-time.Minute), vpc.RunInstancesInput{
					ImageID: "ami-0123456789abcdef0", InstanceType: "m5.2xlarge", MinCount: workers, MaxCount: workers, SubnetID: w.lab.Subnets["nodes"],
					Tags: map[string]string{"aws:autoscaling:groupName": "group-1"},
				})
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				var primaries []netip.Addr
				var last time.Duration
				began := time.Now()
				var runs sync.WaitGroup
				for _, i := range out.Instances {
					runs.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), 300*time.Second)
						defer cancel()
						got, err := w.quiet(cfg).Launch(ctx, workereni.Request{Instance: eni.InstanceID(i.ID), Group: group})
						mu.Lock()
						defer mu.Unlock()
						if err != nil {
							t.Errorf("%s: %v", i.ID, err)
							return
						}
						primaries, last = append(primaries, got[0].Interface.Primary), max(last, time.Since(began))
					})
				}
				runs.Wait()
				slices.SortFunc(primaries, netip.Addr.Compare)
				if n := len(slices.Compact(slices.Clone(primaries))); n != workers {
					t.Errorf("%d workers have %d addresses", workers, n)
				}
				for _, a := range primaries {
					if netip.MustParsePrefix("10.10.3.0/24").Contains(a) {
						t.Errorf("%s is of the reservation", a)
					}
				}
				if len(w.enis()) != workers {
					t.Errorf("%d ENIs", len(w.enis()))
				}
				total, writes := 0, map[string]int{}
				for _, c := range w.lab.Front.Calls() {
					total += c.Count
					writes[c.Action+" "+c.Result] += c.Count
				}
				t.Logf("%d workers in %s, %d calls, addresses %s to %s: %v", workers, last.Round(time.Second), total, primaries[0], primaries[len(primaries)-1], writes)
				if created := w.calls("CreateNetworkInterface", "InvalidIPAddress.InUse"); group != "" && created > workers/10 {
					t.Errorf("%d conflicts among workers of one group", created)
				}
				if last > 240*time.Second {
					t.Errorf("the last was ready after %s", last)
				}
			})
		})
	}
}
