// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// TestStockOfTheLaunchNeedsNoAssign: whoever made the worker's ENI gave it its first stock in the same call, and the agent that
// starts later works with that alone.
func TestStockOfTheLaunchNeedsNoAssign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: primary, cidr: 10.10.12.0/24, az: us-west-2a}
- name: multus-1
  cidr: 10.10.1.0/24
  az: us-west-2a
  reservations: [{cidr: 10.10.1.0/27, tags: {multus-vpc.io/role: static}}, {cidr: 10.10.1.64/26, tags: {multus-vpc.io/role: pool}}]
instances:
- {name: worker-1, type: m5.2xlarge, enis: [{subnet: primary}]}
ec2: {latency: 80ms, propagation: {route: 1s, imds: 2s, describe: 1s}}
`)
		const stock = 14
		cfg := workereni.Config{Owner: "group-1", Interfaces: []workereni.Interface{{
			Subnet: eni.SubnetID(w.lab.Subnets["multus-1"]), Addressing: workereni.Start, Stock: stock, SourceDestCheck: true, DeleteOnTermination: true,
		}}}
		client := ec2eni.New(ec2eni.Config{SDK: w.client("AKLAMBDA", w.lab.EC2()), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		got, err := workereni.New(cfg, client, w.log).Launch(ctx, workereni.Request{Instance: eni.InstanceID(w.lab.Instances["worker-1"])})
		if err != nil {
			t.Fatal(err)
		}
		if len(got[0].Secondary) != stock {
			t.Fatalf("the ENI has %d addresses besides its own", len(got[0].Secondary))
		}
		before := w.writes()
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		eventually(t, 2*n.cfg.Cooldown+5*time.Second, "the stock is the agent's", func() bool { return n.count("free") == stock })
		for _, id := range []string{"a", "b", "c"} {
			n.mustAdd(n.pod(id), any1())
		}
		time.Sleep(10 * time.Minute)
		if more := w.writes() - before; more != 0 {
			t.Errorf("%d calls of the agent changed EC2", more)
		}
	})
}
