// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// seeds is how many runs each of these tests has.
const seeds = 25

// moody is an EC2 of some latency whose reads are behind.
func moody(t *testing.T, rng *rand.Rand) *world {
	return newWorld(t, fmt.Sprintf("ec2: {latency: %dms, propagation: {route: 300ms, imds: 2s, describe: %dms}}", 10+rng.IntN(150), rng.IntN(2500)))
}

func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

// moods are faults of some of the calls that podsync makes, each with one of the probabilities.
func moods(rng *rand.Rand, probabilities ...float64) (faults []front.Fault) {
	for _, action := range []string{"AssignPrivateIpAddresses", "AssignIpv6Addresses", "UnassignIpv6Addresses", "DescribeNetworkInterfaces"} {
		f := []front.Fault{
			{Kind: front.LostReply},
			{Kind: front.ErrorBefore, Code: "RequestLimitExceeded"},
			{Kind: front.ServerError},
			{Kind: front.Slow, Delay: 3 * time.Second},
		}[rng.IntN(4)]
		f.Action, f.Probability = action, probabilities[rng.IntN(len(probabilities))]
		if f.Probability > 0 {
			faults = append(faults, f)
		}
	}
	return faults
}

// TestFailoversAtRandom: addresses move between two pods, in every rhythm and while EC2 fails. In the end each is where the pod is that
// carries it, and that pod says so.
func TestFailoversAtRandom(t *testing.T) {
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { failovers(t, seed) }) })
	}
}

func failovers(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := moody(t, rng)
	vips := []string{"10.10.1.90/24", "2001:db8:10:1::90/64", "10.10.1.91/24", "2001:db8:10:1::91/64"}
	a, b := w.rivals(t, vips...)
	defer func() { a.stop(); b.stop() }()
	pods, carrier := []*pod{a, b}, map[string]int{}
	for step := range 40 {
		if seed%2 == 1 && step%10 == 5 {
			if err := w.lab.Front.SetFaults(moods(rng, 0.3)); err != nil {
				t.Fatal(err)
			}
		}
		vip, to := vips[rng.IntN(len(vips))], rng.IntN(2)
		if at, ok := carrier[vip]; ok {
			pods[at].remove(vip)
			time.Sleep([]time.Duration{0, 0, upTo(rng, 400*time.Millisecond)}[rng.IntN(3)])
		}
		pods[to].add(vip)
		carrier[vip] = to
		time.Sleep([]time.Duration{0, upTo(rng, 30*time.Millisecond), upTo(rng, 3*time.Second), upTo(rng, 20*time.Second)}[rng.IntN(4)])
	}
	if err := w.lab.Front.SetFaults(nil); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Minute)
	for i, worker := range []string{"worker-1", "worker-2"} {
		id, _ := w.eni(worker)
		for _, vip := range vips {
			ip := prefixes(vip)[0].Addr()
			if at, ok := carrier[vip]; ok && at == i && (w.owner(ip) != id || pods[i].state(ip) != podsync.Registered) {
				t.Errorf("%s is on %s alone, whose pod says %q; EC2 has it on %q", ip, worker, pods[i].state(ip), w.owner(ip))
			}
		}
	}
}

// TestSplitBrainAtRandom: two pods carry an address, each from some moment on, while EC2 fails. It moves twice at most.
func TestSplitBrainAtRandom(t *testing.T) {
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { splitBrain(t, seed) }) })
	}
}

func splitBrain(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	w := moody(t, rng)
	vip := []string{"10.10.1.90/24", "2001:db8:10:1::90/64"}[seed%2]
	ip := prefixes(vip)[0].Addr()
	a, b := w.rivals(t, vip)
	defer func() { a.stop(); b.stop() }()
	for i, p := range []*pod{a, b} { // so that each knows its ENI
		p.add(fmt.Sprintf("10.10.1.%d/24", 70+i))
	}
	time.Sleep(5 * time.Second)
	faults := moods(rng, 0, 0.3, 0.6)
	if err := w.lab.Front.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
	a.add(vip)
	second := time.AfterFunc(upTo(rng, 20*time.Second), func() { b.add(vip) })
	defer second.Stop()
	moves, last := 0, ""
	for range 2 * 60 * 100 {
		time.Sleep(10 * time.Millisecond)
		now := w.owner(ip)
		if now != last && now != "" && last != "" {
			moves++
		}
		if now != "" { // IPv6 is nowhere for a moment
			last = now
		}
	}
	if moves > 2 {
		t.Errorf("%d moves in two minutes, with %+v", moves, faults)
	}
}
