// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workerhook_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lifecycle"
)

// storm is a sky of which the seed decides how bad it is: late views, events up to three times and late, lost replies, errors before and after the
// change, servers' errors, throttled calls, of EC2 and of Auto Scaling.
func storm(rng *rand.Rand) string {
	faults := func() string {
		p := func() float64 { return float64(rng.IntN(8)+1) / 100 }
		return fmt.Sprintf(`[{probability: %g, kind: lost-reply}, {probability: %g, kind: error-before, code: RequestLimitExceeded},`+
			` {probability: %g, kind: error-after}, {probability: %g, kind: 5xx}, {probability: %g, kind: slow, delay: 7s}]`, p(), p(), p(), p(), p())
	}
	return fmt.Sprintf("ec2: {latency: 80ms, boot: %ds, propagation: {route: 1s, imds: 5s, describe: %ds}, seed: %d, faults: %s}\n",
		rng.IntN(30), rng.IntN(6), rng.Uint32(), faults()) +
		fmt.Sprintf("autoScaling: {faults: %s}\n", faults()) +
		fmt.Sprintf("events: {duplicates: %d, delay: %ds}\n", rng.IntN(3), rng.IntN(60)+1)
}

// TestStorms: whatever EC2, Auto Scaling, the bus and death do, workers go into service with their ENIs, none is thrown away, and nothing is
// left of those that end. MULTUS_VPC_SEED repeats a storm, MULTUS_VPC_ROUNDS says how many there are.
func TestStorms(t *testing.T) {
	t.Parallel()
	first, rounds := setting(t, "MULTUS_VPC_SEED", 1), setting(t, "MULTUS_VPC_ROUNDS", 12)
	if os.Getenv("MULTUS_VPC_SEED") != "" {
		rounds = 1
	}
	for seed := first; seed < first+rounds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 0))
				w := newWorld(t, oneZone+storm(rng))
				w.killer = &killer{
					transition: []lifecycle.Transition{lifecycle.Launching, lifecycle.Terminating}[rng.IntN(2)], n: 1 + rng.IntN(40), after: rng.IntN(2) == 0,
				}
				w.give()
				if rng.IntN(2) == 0 {
					w.giveTheLast()
				}
				w.deploy(3)
				most := 1
				if w.cfg.Interfaces[0].Subnet == w.on("n4").Subnet {
					most = 3
				}
				ids := w.scale(most)
				time.Sleep(10 * time.Minute)
				w.settle(most)
				for _, id := range ids {
					if got := len(w.lab.Cloud.View(time.Now().Add(time.Minute)).ENIs(id)); got != 1+len(w.cfg.Interfaces) {
						t.Errorf("%s is in service with %d ENIs", id, got)
					}
				}
				if n := w.launches(); n != most {
					t.Errorf("%d instances were launched for %d", n, most)
				}
				if n := w.logged(`"result":"ABANDON"`); n != 0 {
					t.Errorf("%d healthy workers were abandoned", n)
				}
				w.workersFor(0, 4*time.Hour)
				w.wantENIs()
			})
		})
	}
}

func setting(t *testing.T, variable string, fallback uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return fallback
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		t.Fatalf("%s: %q is no number above 0", variable, text)
	}
	return n
}
