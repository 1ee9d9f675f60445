// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package guard_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/guard"
)

const wait = attachment.WaitThenReassign

// TestWhatAPodMayNotClaim: whatever a pod that is root in its network namespace makes of it, these it does not get.
func TestWhatAPodMayNotClaim(t *testing.T) {
	tests := map[string]struct {
		config func(*testing.T, *guard.Config)
		make   func(*world, *pod) // the pod carries 10.10.1.80 on net1, which is a child of the ENI
		ifName string
		addr   string
		kind   error // nil: it may be tried again
		says   string
	}{
		"an address that it does not carry": {addr: "10.10.1.81", says: "net1 does not carry 10.10.1.81"},
		"the gateway":                       {addr: "10.10.1.1", kind: guard.ErrRefused, says: "the VPC keeps for itself"},
		"the VPC's DNS server":              {addr: "10.10.1.2", kind: guard.ErrRefused, says: "the VPC keeps for itself"},
		"the broadcast address":             {addr: "10.10.1.255", kind: guard.ErrRefused, says: "the VPC keeps for itself"},
		"an address of another subnet":      {addr: "10.10.2.80", kind: guard.ErrRefused, says: "is not in subnet subnet-1 of eni-1"},
		"IPv6 of another subnet":            {addr: "2001:db8:1::80", kind: guard.ErrRefused, says: "is not in subnet"},
		"the ENI's primary address":         {addr: "10.10.1.20", kind: guard.ErrRefused, says: "the primary address of eni-1"},
		"an address of a pool":              {addr: "10.10.1.70", kind: guard.ErrRefused, says: "of a range that vpcipam gives out"},
		"an address outside the ranges": {
			config: func(t *testing.T, c *guard.Config) { c.Ranges = ranges(t, "10.10.1.90-10.10.1.95") },
			addr:   "10.10.1.80", kind: guard.ErrRefused, says: "is not in the agent's sync.ranges [10.10.1.90-10.10.1.95]",
		},
		"a floating address outside the subnet": {
			config: func(t *testing.T, c *guard.Config) { c.Floating = ranges(t, "10.10.2.0/24") },
			addr:   "10.10.2.80", kind: guard.ErrRefused, says: "is not in subnet",
		},
		"the address of another pod of this worker": {
			make: func(w *world, _ *pod) { w.pod(2, "10.0.0.2", "10.10.1.80") },
			addr: "10.10.1.80", says: "another pod of this worker carries 10.10.1.80, in the network namespace /run/netns/2",
		},
		"an address on an interface that is no ipvlan child, with the ENI's MAC": {
			make:   func(_ *world, p *pod) { p.ifs["fake0"] = guard.Seen{Kind: "dummy", Addrs: addrs("10.10.1.80")} },
			ifName: "fake0", addr: "10.10.1.80", kind: guard.ErrRefused, says: "interface fake0 is dummy, and only an ipvlan child",
		},
		"an address on a child of something that is no ENI": {
			make: func(_ *world, p *pod) {
				p.ifs["net1"] = guard.Seen{Link: 9, Kind: "ipvlan", Mode: "l2", Addrs: addrs("10.10.1.80")}
			},
			ifName: "net1", addr: "10.10.1.80", says: "link 9 on the host, is not known as an ENI's",
		},
		"an address on a child in mode l3": {
			make: func(_ *world, p *pod) {
				p.ifs["net1"] = guard.Seen{Link: 3, Kind: "ipvlan", Mode: "l3", Addrs: addrs("10.10.1.80")}
			},
			ifName: "net1", addr: "10.10.1.80", kind: guard.ErrRefused, says: "mode l3",
		},
		"an interface that is not there": {ifName: "net9", addr: "10.10.1.80", says: `look at interface "net9"`},
		"more than sixteen": {
			make: func(w *world, p *pod) {
				net1 := p.ifs["net1"]
				for i := range 17 {
					a := addr(fmt.Sprintf("10.10.1.%d", 100+i))
					net1.Addrs = append(net1.Addrs, a)
					w.claims[p.cookie][a] = i < 16
					if i == 16 {
						delete(w.claims[p.cookie], a)
					}
				}
				p.ifs["net1"] = net1
			},
			addr: "10.10.1.116", kind: guard.ErrRefused, says: "has claimed 16 addresses",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.pod(1, "10.0.0.1", "10.10.1.80", "10.10.1.1", "10.10.1.2", "10.10.1.255", "10.10.2.80", "2001:db8:1::80", "10.10.1.20", "10.10.1.70")
			if tt.make != nil {
				tt.make(w, p)
			}
			g := w.guard(func(c *guard.Config) {
				if tt.config != nil {
					tt.config(t, c)
				}
			})
			ifName := "net1"
			if tt.ifName != "" {
				ifName = tt.ifName
			}
			got := g.Claim(t.Context(), p, ifName, addrs(tt.addr), attachment.Reassign)[addr(tt.addr)]
			if got.Err == nil || !strings.Contains(got.Err.Error(), tt.says) {
				t.Fatalf("%v, want an error that says %q", got.Err, tt.says)
			}
			if errors.Is(got.Err, guard.ErrRefused) != (tt.kind != nil) || errors.Is(got.Err, guard.ErrContested) {
				t.Errorf("%v: to try again is of use, or not: want the other", got.Err)
			}
			if w.writes != 0 {
				t.Errorf("EC2 was asked %d times", w.writes)
			}
		})
	}
}

// TestWhoGetsWhatAnotherENIHolds: only the operator's floating ranges, and what Multus gave this very pod.
func TestWhoGetsWhatAnotherENIHolds(t *testing.T) {
	const a = "10.10.1.80"
	tests := map[string]struct {
		config   func(*testing.T, *guard.Config)
		make     func(*world, *pod)
		conflict attachment.OnConflict
		moved    bool
		again    bool // the error says so
		asks     int  // the API
	}{
		"nobody vouches for the pod":                {conflict: attachment.Reassign, asks: 1},
		"Multus gave it to the pod":                 {make: func(w *world, _ *pod) { w.multus("a", "10.0.0.1", a) }, conflict: wait, moved: true, asks: 1},
		"Multus gave it, and the pod wants no move": {make: func(w *world, _ *pod) { w.multus("a", "10.0.0.1", a) }, conflict: attachment.Never},
		"Multus gave it, and the operator wants no move": {
			config: func(_ *testing.T, c *guard.Config) { c.OnConflict = attachment.Never },
			make:   func(w *world, _ *pod) { w.multus("a", "10.0.0.1", a) }, conflict: wait,
		},
		"Multus gave it to another pod of this worker": {
			make: func(w *world, _ *pod) { w.pod(2, "10.0.0.2"); w.multus("b", "10.0.0.2", a) }, conflict: wait, asks: 1,
		},
		"Multus gave it to another pod, whose first address the pod carries too": {
			make: func(w *world, p *pod) {
				w.pod(2, "10.0.0.2")
				w.multus("b", "10.0.0.2", a)
				p.ifs["lo1"] = guard.Seen{Kind: "dummy", Addrs: addrs("10.0.0.2")}
			},
			conflict: wait, asks: 1,
		},
		"Multus gave it to the pod on another interface": {
			make: func(w *world, _ *pod) {
				w.api = []guard.PodNetworks{{Default: addrs("10.0.0.1"), Addrs: map[string][]netip.Addr{"net2": addrs(a)}}}
			},
			conflict: wait, asks: 1,
		},
		"the API is down":                     {make: func(w *world, _ *pod) { w.noAPI = errors.New("connection refused") }, conflict: wait, again: true, asks: 1},
		"it floats":                           {config: floats, conflict: wait, moved: true},
		"it floats, and was asked for gently": {config: floats, conflict: attachment.Never},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.pod(1, "10.0.0.1", a)
			w.owners[addr(a)] = elsewhere
			if tt.make != nil {
				tt.make(w, p)
			}
			g := w.guard(func(c *guard.Config) {
				if tt.config != nil {
					tt.config(t, c)
				}
			})
			got := g.Claim(t.Context(), p, "net1", addrs(a), tt.conflict)[addr(a)]
			if moved := w.owners[addr(a)] == ours; moved != tt.moved || moved != (got.Err == nil) || moved != got.New {
				t.Errorf("moved: %t, %+v, want %t", moved, got, tt.moved)
			}
			if contested := errors.Is(got.Err, guard.ErrContested); contested == (tt.moved || tt.again) {
				t.Errorf("contested: %t (%v)", contested, got.Err)
			}
			if w.asked != tt.asks {
				t.Errorf("the API was asked %d times, want %d", w.asked, tt.asks)
			}
		})
	}
}

func floats(t *testing.T, c *guard.Config) { c.Floating = ranges(t, "10.10.1.80-10.10.1.95") }

// TestPodOfThisWorkerMayTakeItsTime: the address of a pod that is about to go, which Multus gave to the next one, is waited for.
func TestPodOfThisWorkerMayTakeItsTime(t *testing.T) {
	const a = "10.10.1.80"
	w := newWorld(t)
	old := w.pod(1, "10.0.0.1", a)
	next := w.pod(2, "10.0.0.2", a)
	g := w.guard(nil)
	w.owners[addr(a)], w.kept = second, true // by the old pod's claim
	w.multus("next", "10.0.0.2", a)
	if err := g.Claim(t.Context(), next, "net1", addrs(a), wait)[addr(a)].Err; err == nil || errors.Is(err, guard.ErrContested) || errors.Is(err, guard.ErrRefused) {
		t.Errorf("while the old pod carries it: %v", err)
	}
	delete(old.ifs, "net1")
	w.kept = false
	if err := g.Claim(t.Context(), next, "net1", addrs(a), wait)[addr(a)].Err; err != nil || w.owners[addr(a)] != ours {
		t.Errorf("afterwards: %v", err)
	}
}

// TestDisputeIsSettledByMultus: a pod that carries its neighbour's address on another ENI neither gets it nor keeps the neighbour from it.
func TestDisputeIsSettledByMultus(t *testing.T) {
	const a = "10.10.1.80"
	w := newWorld(t)
	honest, thief := w.pod(1, "10.0.0.1", a), w.pod(2, "10.0.0.2", a)
	g := w.guard(nil)
	claim := func(p *pod) error { return g.Claim(t.Context(), p, "net1", addrs(a), wait)[addr(a)].Err }
	if err := claim(honest); err == nil || errors.Is(err, guard.ErrRefused) || !strings.Contains(err.Error(), "another pod of this worker carries "+a) {
		t.Errorf("without a word of Multus: %v", err)
	}
	w.noAPI = errors.New("connection refused")
	if err := claim(honest); err == nil || errors.Is(err, guard.ErrRefused) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("without the API: %v", err)
	}
	w.noAPI = nil
	w.multus("a", "10.0.0.1", a)
	if err := claim(thief); err == nil || w.writes > 0 {
		t.Errorf("the thief: %v, %d writes", err, w.writes)
	}
	if err := claim(honest); err != nil {
		t.Errorf("Multus gave it to the pod: %v", err)
	}
	w.api = nil
	if err := claim(honest); err != nil { // as after a restart of the sidecar
		t.Errorf("what it has already: %v", err)
	}
}

func TestOneCallMixesWhatMayAndWhatMayNot(t *testing.T) {
	w := newWorld(t)
	p := w.pod(1, "10.0.0.1", "10.10.1.80", "10.10.1.81", "10.10.1.90", "2001:db8::80", "10.10.1.1", "10.10.1.70")
	w.given[1] = addrs("10.10.1.70") // by vpcipam, for this pod
	w.owners[addr("10.10.1.70")] = ours
	w.owners[addr("10.10.1.81")], w.owners[addr("10.10.1.90")] = elsewhere, elsewhere
	g := w.guard(func(c *guard.Config) { c.Floating = ranges(t, "10.10.1.90-10.10.1.95") })
	got := g.Claim(t.Context(), p, "net1", addrs("10.10.1.80", "10.10.1.81", "10.10.1.90", "2001:db8::80", "10.10.1.1", "10.10.1.70", "10.10.1.80"), wait)
	for a, want := range map[string]string{
		"10.10.1.80": "new", "10.10.1.81": "contested", "10.10.1.90": "new", "2001:db8::80": "new", "10.10.1.1": "refused", "10.10.1.70": "had",
	} {
		r, is := got[addr(a)], "had"
		switch {
		case errors.Is(r.Err, guard.ErrContested):
			is = "contested"
		case errors.Is(r.Err, guard.ErrRefused):
			is = "refused"
		case r.New:
			is = "new"
		}
		if is != want {
			t.Errorf("%s: %s (%v), want %s", a, is, r.Err, want)
		}
	}
	if len(got) != 6 {
		t.Errorf("%d results", len(got))
	}
	standings, err := g.Standing(t.Context(), p, "net1", addrs("10.10.1.80", "10.10.1.81"))
	if err != nil || standings[addr("10.10.1.80")] != attachment.Here || standings[addr("10.10.1.81")] != attachment.Elsewhere {
		t.Errorf("standings %v, %v", standings, err)
	}
	if _, err := g.Standing(t.Context(), p, "net1", addrs("10.10.1.82")); err == nil {
		t.Error("EC2 was asked about an address that the pod does not carry")
	}
}

// TestYieldIsAboutTheCallersOwn: another namespace's claims are none of its business, and its interface need not be there.
func TestYieldIsAboutTheCallersOwn(t *testing.T) {
	w := newWorld(t)
	p, q := w.pod(1, "10.0.0.1", "10.10.1.80"), w.pod(2, "10.0.0.2")
	g := w.guard(nil)
	if r := g.Claim(t.Context(), p, "net1", addrs("10.10.1.80"), wait)[addr("10.10.1.80")]; r.Err != nil {
		t.Fatal(r.Err)
	}
	if err := g.Yield(t.Context(), q, "net1", addrs("10.10.1.80")); err != nil || w.owners[addr("10.10.1.80")] != ours {
		t.Errorf("%v; the address is on %q", err, w.owners[addr("10.10.1.80")])
	}
	delete(p.ifs, "net1")
	if err := g.Yield(t.Context(), p, "net1", addrs("10.10.1.80")); err != nil || w.owners[addr("10.10.1.80")] != "" {
		t.Errorf("%v; the address is on %q", err, w.owners[addr("10.10.1.80")])
	}
}

// TestRequestsAreAboutFewAddresses: what fits in one request would have the pool busy for a long while, whether the pod has the addresses
// or not.
func TestRequestsAreAboutFewAddresses(t *testing.T) {
	w := newWorld(t)
	p := w.pod(1, "10.0.0.1")
	g := w.guard(nil)
	var most []netip.Addr
	for a := addr("192.0.2.0"); len(most) < guard.MaxAddresses; a = a.Next() {
		most = append(most, a)
	}
	tooMany := append(slices.Clone(most), addr("192.0.2.255"))
	for name, ask := range map[string]func([]netip.Addr) error{
		"claim": func(as []netip.Addr) error { return g.Claim(t.Context(), p, "net1", as, wait)[as[0]].Err },
		"yield": func(as []netip.Addr) error { return g.Yield(t.Context(), p, "net1", as) },
		"standing": func(as []netip.Addr) error {
			_, err := g.Standing(t.Context(), p, "net1", as)
			return err
		},
	} {
		if err := ask(most); errors.Is(err, guard.ErrRefused) {
			t.Errorf("%s of %d: %v", name, len(most), err)
		}
		if err := ask(tooMany); !errors.Is(err, guard.ErrRefused) {
			t.Errorf("%s of %d: %v", name, len(tooMany), err)
		}
	}
}

// TestOneComesAsOneGoes: of a pod that has all it may have and takes one address for another, claim and yield race. The claim is not
// refused for good when it is first.
func TestOneComesAsOneGoes(t *testing.T) {
	w := newWorld(t)
	p := w.pod(1, "10.0.0.1")
	g := w.guard(nil)
	carry := func(first int) {
		net1 := p.ifs["net1"]
		net1.Addrs = nil
		for i := range guard.MaxAddresses {
			net1.Addrs = append(net1.Addrs, addr(fmt.Sprintf("10.10.1.%d", first+i)))
		}
		p.ifs["net1"] = net1
	}
	carry(100)
	for a, r := range g.Claim(t.Context(), p, "net1", p.ifs["net1"].Addrs, wait) {
		if r.Err != nil {
			t.Fatalf("%s: %v", a, r.Err)
		}
	}
	carry(101)
	claim := func() error {
		return g.Claim(t.Context(), p, "net1", addrs("10.10.1.116"), wait)[addr("10.10.1.116")].Err
	}
	if err := claim(); err == nil || errors.Is(err, guard.ErrRefused) || !strings.Contains(err.Error(), "has yet to give back 10.10.1.100") {
		t.Errorf("before the other one is given back: %v", err)
	}
	if err := g.Yield(t.Context(), p, "net1", addrs("10.10.1.100")); err != nil {
		t.Fatal(err)
	}
	if err := claim(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestFlappingCostsACallASecond: a pod that claims and yields a thousand times a second changes EC2 once a second by each, and
// holds up nobody else.
func TestFlappingCostsACallASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, q := w.pod(1, "10.0.0.1", "10.10.1.80"), w.pod(2, "10.0.0.2", "10.10.1.81")
		g := w.guard(nil)
		const seconds = 60
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		for range 4 { // as many connections as it may have
			go func() {
				for ctx.Err() == nil {
					g.Claim(ctx, p, "net1", addrs("10.10.1.80"), wait)
					_ = g.Yield(ctx, p, "net1", addrs("10.10.1.80")) // it is too often
				}
			}()
		}
		began := time.Now()
		if r := g.Claim(t.Context(), q, "net1", addrs("10.10.1.81"), wait)[addr("10.10.1.81")]; r.Err != nil || time.Since(began) > 0 {
			t.Errorf("the neighbour waits %s: %v", time.Since(began), r.Err)
		}
		<-ctx.Done()
		synctest.Wait()
		if claims := w.writes / 2; claims < seconds/2 || claims > seconds+6 {
			t.Errorf("%d claims in %d s", claims, seconds)
		}
	})
}

// TestWhoGivesUpHoldsUpNobody: a pod whose addresses come and go faster than they may be claimed ends most claims before their turn.
// When it comes to rest it waits no longer than any other, and until then it had no more than its share.
func TestWhoGivesUpHoldsUpNobody(t *testing.T) {
	for _, callers := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			p := w.pod(1, "10.0.0.1", "10.10.1.80")
			g := w.guard(nil)
			const seconds = 60
			var served atomic.Int32
			var storm sync.WaitGroup
			for i := range callers {
				storm.Go(func() {
					time.Sleep(time.Duration(i) * 37 * time.Millisecond)
					for range seconds * 5 {
						ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
						began := time.Now()
						if r := g.Claim(ctx, p, "net1", addrs("10.10.1.80"), wait)[addr("10.10.1.80")]; r.Err == nil {
							served.Add(1)
						}
						cancel()
						time.Sleep(time.Until(began.Add(200 * time.Millisecond)))
					}
				})
			}
			storm.Wait()
			if n := served.Load(); n < seconds/2 || n > seconds+6 {
				t.Errorf("%d callers: %d claims in %d s", callers, n, seconds)
			}
			began := time.Now()
			g.Claim(t.Context(), p, "net1", addrs("10.10.1.80"), wait)
			if took := time.Since(began); took > time.Second {
				t.Errorf("%d callers: the claim after the storm waited %s", callers, took)
			}
		})
	}
}

func TestABurstIsServedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.pod(1, "10.0.0.1", "10.10.1.80")
		g := w.guard(nil)
		began := time.Now()
		for range 32 { // costs nothing, and holds up no claim
			if err := g.Yield(t.Context(), p, "net1", addrs("10.10.1.80")); err != nil {
				t.Error(err)
			}
		}
		for n, want := range []time.Duration{0, 0, 0, 0, 0, 1, 2} {
			g.Claim(t.Context(), p, "net1", addrs("10.10.1.80"), wait)
			if took := time.Since(began); took != want*time.Second {
				t.Errorf("claim %d after %s, want %d s", n, took, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if r := g.Claim(ctx, p, "net1", addrs("10.10.1.80"), wait)[addr("10.10.1.80")]; r.Err == nil || errors.Is(r.Err, guard.ErrRefused) {
			t.Errorf("a caller who does not wait gets %v", r.Err)
		}
		time.Sleep(time.Hour) // in the bubble
		w.pod(2, "10.0.0.2", "10.10.1.81")
		began = time.Now()
		for range 5 {
			g.Claim(t.Context(), p, "net1", addrs("10.10.1.80"), wait)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("a burst after an hour took %s", took)
		}
	})
}
