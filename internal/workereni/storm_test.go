// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package workereni_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

// TestStorms: launches of one worker at once, each with its own old view of EC2, some killed, under a policy by tags and lost replies.
// None of them gives the worker up, and the last one leaves exactly what was asked for. STORMS is how many there are, STORM which one.
func TestStorms(t *testing.T) {
	storms := 25
	if n, err := strconv.Atoi(os.Getenv("STORMS")); err == nil {
		storms = n
	}
	for n := range uint64(storms) {
		if only, err := strconv.ParseUint(os.Getenv("STORM"), 10, 64); err == nil && n != only {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { storm(t, rand.New(rand.NewPCG(n, 7))) })
		})
	}
}

func storm(t *testing.T, rng *rand.Rand) {
	w := newWorld(t, twoZones+lags["late"])
	w.through = byTags
	var faults []front.Fault
	for _, action := range []string{"CreateNetworkInterface", "AttachNetworkInterface", "ModifyNetworkInterfaceAttribute", "DeleteNetworkInterface"} {
		faults = append(faults, front.Fault{Action: action, Probability: rng.Float64() / 3, Count: 3, Kind: front.LostReply})
	}
	if err := w.lab.Front.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	kind := []string{"m5.large", "m5.2xlarge"}[rng.IntN(2)]
	cfg, id := w.twoENIs(), w.instance(kind, "nodes-a")
	upTo := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
	var runs sync.WaitGroup
	for n := range 1 + rng.IntN(4) {
		view := &stale{EC2: w.client(), devices: upTo(25 * time.Second), workers: upTo(25 * time.Second), seen: map[string]seen{}}
		after, life := upTo(20*time.Second), 5*time.Minute
		if rng.IntN(2) == 0 {
			life = upTo(30 * time.Second)
		}
		runs.Go(func() {
			<-time.After(after)
			ctx, cancel := context.WithTimeout(t.Context(), life+1)
			defer cancel()
			if _, err := workereni.New(cfg, view, w.log).Launch(ctx, workereni.Request{Instance: id}); err != nil && !errors.Is(err, workereni.ErrUnfinished) {
				t.Errorf("run %d: %v", n, err)
			}
		})
	}
	runs.Wait()
	w.mustLaunch(w.flow(cfg), id)
	w.wantENIs("0:1 n4-a at 0:1 dies", "0:2 n6-a at 0:2 unchecked")
}
