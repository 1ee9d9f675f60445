// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// TestReleaseThatTheLedgerLostFreesNothing: the ledger says of the living pod's address that a dead one holds it, too.
func TestReleaseThatTheLedgerLostFreesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1", func(c *pool.Config) { c.MinimumIPTarget, c.WarmIPTarget = 1, 0 })
		defer func() { n.stop() }()
		dead := n.pod("dead")
		addr := n.mustAdd(dead, any1())
		before := n.book.copy()
		n.del(dead)
		n.netns.remove(dead.Netns.Path)
		eventually(t, 2*n.cfg.Cooldown, "the address is free", func() bool { return n.states()[addr] == "free" })
		living := n.pod("living")
		if again := n.mustAdd(living, any1()); again != addr {
			t.Fatalf("the next pod has %s, not %s", again, addr)
		}
		n.stop()
		kept := n.book.copy()
		kept["hold/dead/net1"] = before["hold/dead/net1"]
		n.book.replace(kept)
		n.start(false)
		time.Sleep(10 * time.Minute)
		if got := n.states()[addr]; got != "held" {
			t.Errorf("%s is %s though a living pod has it", addr, got)
		}
		if holds := n.Status().Holds; len(holds) != 1 || holds[0].Key != living.Key {
			t.Errorf("holds %+v, want the living pod's alone", holds)
		}
	})
}

// TestDamagedLedgerGivesNoAddressTwice: whatever records a damaged ledger lacks, no address is given to a pod while a
// living one has it. A ledger that lost a release and kept what came after it says of one address that two hold it.
func TestDamagedLedgerGivesNoAddressTwice(t *testing.T) {
	for seed := uint64(40); seed < 60; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { damaged(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func damaged(t *testing.T, rng *rand.Rand) {
	w := newWorld(t, twoWorkers)
	n := w.worker("worker-1")
	defer func() { n.stop() }()
	defer func() {
		if said := recover(); said != nil {
			t.Errorf("%v", said)
		}
	}()
	pods := map[string]attachment.Attachment{}
	history := []map[string]json.RawMessage{{}}
	named := 0
	step := func(rounds int) {
		for range rounds {
			switch roll := rng.IntN(10); {
			case roll < 5 && len(pods) < 8:
				named++
				id := fmt.Sprint("pod-", named)
				a := n.pod(id)
				if _, err := n.add(a, any1()); err == nil {
					pods[id] = a
				} else if refusal(t, err).Reason != pool.Exhausted { // what cools or is not understood takes slots
					t.Error(err)
				}
			case roll < 8:
				if living := slices.Sorted(maps.Keys(pods)); len(living) > 0 {
					id := living[rng.IntN(len(living))]
					n.del(pods[id])
					n.netns.remove(pods[id].Netns.Path)
					delete(pods, id)
				}
			default:
				time.Sleep(n.cfg.Cooldown + time.Second)
			}
			synctest.Wait()
			history = append(history, n.book.copy())
		}
	}
	step(30)
	n.stop()
	kept := map[string]json.RawMessage{}
	for i := 1; i < len(history); i++ {
		if rng.IntN(4) == 0 {
			continue // these records are damaged
		}
		for k := range history[i-1] {
			if _, still := history[i][k]; !still {
				delete(kept, k)
			}
		}
		for k, v := range history[i] {
			if string(history[i-1][k]) != string(v) {
				kept[k] = v
			}
		}
	}
	n.book.replace(kept)
	n.start(false)
	step(30)
	time.Sleep(5 * time.Minute)
	if n.count("foreign")+n.count("unknown") > 0 {
		t.Errorf("five minutes later there are %v", n.states())
	}
	step(10)
}

func (b *book) copy() map[string]json.RawMessage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.kept)
}

func (b *book) replace(kept map[string]json.RawMessage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = kept
}
