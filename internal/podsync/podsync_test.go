// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

func TestUntilRegistersAllAddressesInOneCallForEachFamily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		p := w.pod("worker-1")
		p.add("10.10.1.80/24", "10.10.1.81/32", "2001:db8:10:1::80/64", "2001:db8:10:1::81/128", "fe80::1/64")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Until(ctx, podsync.Promise{"net1"}); err != nil {
			t.Fatal(err)
		}
		id, _ := w.eni("worker-1")
		for _, a := range []string{"10.10.1.80", "10.10.1.81", "2001:db8:10:1::80", "2001:db8:10:1::81"} {
			if got := w.owner(addr(a)); got != id {
				t.Errorf("%s is routed to %q when Until returns", a, got)
			}
		}
		if v4, v6 := w.calls("AssignPrivateIpAddresses"), w.calls("AssignIpv6Addresses"); v4 != 1 || v6 != 1 {
			t.Errorf("%d and %d calls", v4, v6)
		}
	})
}

func TestUntilSaysWhatIsMissing(t *testing.T) {
	tests := map[string]struct {
		prepare func(*pod)
		ec2     string
		faults  []front.Fault
		promise podsync.Promise
		within  time.Duration // of virtual time
		is      error
		says    []string
	}{
		"an interface that never comes":      {promise: podsync.Promise{"net2"}, within: time.Minute, is: context.DeadlineExceeded, says: []string{"net2 has not appeared"}},
		"an interface without address":       {promise: podsync.Promise{"net1"}, within: time.Minute, is: context.DeadlineExceeded, says: []string{"net1 has no address"}},
		"an address of another subnet":       {prepare: func(p *pod) { p.add("10.10.9.9/24") }, within: time.Second, is: podsync.ErrRefused, says: []string{"10.10.9.9", "10.10.1.0/24", "eni-"}},
		"the gateway's address":              {prepare: func(p *pod) { p.add("10.10.1.1/24") }, within: time.Second, is: podsync.ErrRefused, says: []string{"10.10.1.1", "five addresses"}},
		"the worker's own address":           {prepare: func(p *pod) { p.add("10.10.1.20/24") }, within: time.Second, is: podsync.ErrRefused, says: []string{"10.10.1.20", "primary address"}},
		"a stranger's primary address":       {prepare: func(p *pod) { p.add("10.10.1.30/24") }, within: 20 * time.Second, is: podsync.ErrRefused, says: []string{"10.10.1.30", "primary address", "cannot be moved"}},
		"a stranger's secondary address":     {prepare: func(p *pod) { p.add("10.10.1.31/24") }, within: 20 * time.Second, is: podsync.ErrContested, says: []string{"10.10.1.31", "not tagged"}},
		"no permission":                      {prepare: func(p *pod) { p.add("10.10.1.80/24") }, faults: []front.Fault{{Action: "AssignPrivateIpAddresses", Probability: 1, Kind: "error-before", Code: "UnauthorizedOperation"}}, within: time.Second, is: podsync.ErrRefused, says: []string{"10.10.1.80", "UnauthorizedOperation", "allow ec2:AssignPrivateIpAddresses"}},
		"EC2 throttles for as long as asked": {prepare: func(p *pod) { p.add("10.10.1.80/24") }, faults: []front.Fault{{Action: "AssignPrivateIpAddresses", Probability: 1, Kind: "error-before", Code: "RequestLimitExceeded"}}, within: time.Minute, is: context.DeadlineExceeded, says: []string{"10.10.1.80", "RequestLimitExceeded"}},
		"a macvlan interface": {prepare: func(p *pod) {
			p.interfaces[1].Kind = "macvlan"
			p.add("10.10.1.80/24")
		}, promise: podsync.Promise{"net1"}, within: time.Second, is: podsync.ErrRefused, says: []string{"net1", "macvlan", "use ipvlan in mode l2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.ec2)
				if err := w.lab.Front.SetFaults(tt.faults); err != nil {
					t.Fatal(err)
				}
				p := w.pod("worker-1")
				if tt.prepare != nil {
					tt.prepare(p)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				err := p.Until(ctx, tt.promise)
				if !errors.Is(err, tt.is) {
					t.Fatalf("got %v, want %v", err, tt.is)
				}
				for _, s := range tt.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("%q does not say %q", err, s)
					}
				}
				if took := time.Since(began); took > tt.within {
					t.Errorf("said so after %s", took)
				}
			})
		})
	}
}

func TestUntilRegistersTheGoodOnesOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		p := w.pod("worker-1")
		p.add("10.10.1.2/24", "10.10.1.30/24", "10.10.1.80/24")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Until(ctx, nil); !errors.Is(err, podsync.ErrRefused) || !strings.Contains(err.Error(), "10.10.1.2 ") {
			t.Errorf("got %v", err)
		}
		id, _ := w.eni("worker-1")
		if got := w.owner(addr("10.10.1.80")); got != id {
			t.Errorf("the good one is routed to %q", got)
		}
	})
}

func TestRegistrationSurvivesWhatEC2Does(t *testing.T) {
	for _, action := range []string{"AssignPrivateIpAddresses", "DescribeNetworkInterfaces", "DescribeSubnets"} {
		for _, fault := range []front.Fault{
			{Kind: "lost-reply"},
			{Kind: "error-before", Code: "RequestLimitExceeded"},
			{Kind: "error-after", Code: "InternalError"},
			{Kind: "5xx"},
			{Kind: "error-before", Code: "Unavailable"},
		} {
			t.Run(fmt.Sprint(action, " ", fault.Kind, " ", fault.Code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, "ec2: {propagation: {route: 3s, imds: 4s, describe: 5s}}")
					fault.Action, fault.Nth, fault.Count = action, 1, 2
					if err := w.lab.Front.SetFaults([]front.Fault{fault}); err != nil {
						t.Fatal(err)
					}
					p := w.pod("worker-1")
					p.add("10.10.1.80/24", "10.10.1.81/24")
					p.run(t)
					defer func() { p.stop() }()
					id, _ := w.eni("worker-1")
					eventually(t, 3*time.Minute, "both registered", func() bool {
						return p.state(addr("10.10.1.80")) == podsync.Registered && p.state(addr("10.10.1.81")) == podsync.Registered
					})
					if a, b := w.owner(addr("10.10.1.80")), w.owner(addr("10.10.1.81")); a != id || b != id {
						t.Errorf("routed to %q and %q", a, b)
					}
				})
			})
		}
	}
}

func TestFloatingAddressFollowsThePodThatCarriesIt(t *testing.T) {
	for _, vip := range []string{"10.10.1.90/24", "10.10.1.90/32", "2001:db8:10:1::90/64", "2001:db8:10:1::90/128"} {
		t.Run(vip, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "ec2: {latency: 80ms}")
				float := floating("10.10.1.88/29", "2001:db8:10:1::90")
				direct := func(c *podsync.Config) { c.KeepFloating = true }
				a, b := w.pod("worker-1", float, direct), w.pod("worker-2", float, direct)
				a.run(t)
				defer func() { a.stop() }()
				b.run(t)
				defer func() { b.stop() }()
				ip := addr(strings.Split(vip, "/")[0])
				for i := range 50 {
					for _, move := range []struct {
						worker   string
						from, to *pod
					}{{"worker-1", b, a}, {"worker-2", a, b}} {
						move.from.remove(vip)
						move.to.add(vip)
						id, _ := w.eni(move.worker)
						eventually(t, 5*time.Second, fmt.Sprintf("move %d to %s", i, move.worker), func() bool { return w.owner(ip) == id && move.to.state(ip) == podsync.Registered })
					}
				}
			})
		})
	}
}

// The pod on worker-1 gets the address again while its first claim still waits for EC2 to show it there, which EC2 never will: the
// other pod has taken it.
func TestAddressThatComesBackWaitsForNoOlderClaim(t *testing.T) {
	for _, vip := range []string{"10.10.1.90/24", "2001:db8:10:1::90/64"} {
		t.Run(vip, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "ec2: {latency: 20ms, propagation: {route: 300ms, imds: 2s, describe: 2s}}")
				float := floating("10.10.1.88/29", "2001:db8:10:1::90")
				a, b := w.pod("worker-1", float), w.pod("worker-2", float)
				a.run(t)
				defer func() { a.stop() }()
				b.run(t)
				defer func() { b.stop() }()
				ip := addr(strings.Split(vip, "/")[0])
				idA, _ := w.eni("worker-1")
				idB, _ := w.eni("worker-2")
				a.add(vip, "10.10.1.80/24")
				eventually(t, time.Second, "a has it", func() bool { return w.owner(ip) == idA })
				a.remove(vip)
				b.add(vip)
				eventually(t, 5*time.Second, "b has it", func() bool { return w.owner(ip) == idB })
				b.remove(vip)
				a.add(vip)
				eventually(t, 8*time.Second, "a has it again", func() bool { return w.owner(ip) == idA && a.state(ip) == podsync.Registered })
				if got := a.state(addr("10.10.1.80")); got != podsync.Registered {
					t.Errorf("the address that stayed is %s", got)
				}
			})
		})
	}
}

func TestSplitBrainSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		float := floating("10.10.1.88/29")
		a, b := w.pod("worker-1", float), w.pod("worker-2", float)
		for _, p := range []*pod{a, b} {
			p.run(t)
			defer func() { p.stop() }()
		}
		ip := addr("10.10.1.90")
		a.add("10.10.1.90/24")
		eventually(t, 5*time.Second, "a has it", func() bool { return a.state(ip) == podsync.Registered })
		b.add("10.10.1.90/24")
		eventually(t, 2*time.Minute, "one of them is told", func() bool { return a.state(ip) == podsync.Contested })
		if n := w.calls("AssignPrivateIpAddresses"); n != 2 {
			t.Errorf("%d moves in split brain", n)
		}
		if idB, _ := w.eni("worker-2"); w.owner(ip) != idB {
			t.Error("b does not have it")
		}
		if !a.Report().Ready() {
			t.Error("a is not ready because of an address that b has")
		}
		b.remove("10.10.1.90/24")
		eventually(t, 3*time.Minute, "a has it again when b has given it back", func() bool { return a.state(ip) == podsync.Registered })
		if n := w.calls("AssignPrivateIpAddresses"); n != 3 {
			t.Errorf("%d moves in all", n)
		}
	})
}

// Both claims leave before either pod can know of the other's, and no read ever shows the first one.
func TestSplitBrainThatBeginsAtOnceSettles(t *testing.T) {
	for _, vip := range []string{"10.10.1.90/24", "2001:db8:10:1::90/64"} {
		t.Run(vip, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "ec2: {latency: 20ms, propagation: {route: 300ms, imds: 2s, describe: 2s}}")
				float := floating("10.10.1.88/29", "2001:db8:10:1::90")
				a, b := w.pod("worker-1", float), w.pod("worker-2", float)
				for _, p := range []*pod{a, b} {
					p.run(t)
					defer func() { p.stop() }()
				}
				a.add(vip)
				b.add(vip)
				ip := addr(strings.Split(vip, "/")[0])
				time.Sleep(5 * time.Second)
				settled := w.owner(ip)
				for range 3 * 60 {
					time.Sleep(time.Second)
					if now := w.owner(ip); now != settled {
						t.Fatalf("it moved again, from %s to %q", settled, now)
					}
				}
				if a.state(ip) != podsync.Contested && b.state(ip) != podsync.Contested {
					t.Errorf("a says %s and b says %s, want one of them contested", a.state(ip), b.state(ip))
				}
			})
		})
	}
}

func TestOldOwnerMayGiveBackFirst(t *testing.T) {
	for _, vip := range []string{"10.10.1.80/24", "2001:db8:10:1::80/64"} {
		t.Run(vip, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "")
				a, b := w.pod("worker-1"), w.pod("worker-2")
				ip := addr(strings.Split(vip, "/")[0])
				a.add(vip)
				if err := a.Until(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				b.add(vip)
				b.run(t)
				defer func() { b.stop() }()
				time.Sleep(2 * time.Second)
				if idA, _ := w.eni("worker-1"); w.owner(ip) != idA {
					t.Error("taken from its owner at once")
				}
				if err := a.Leave(t.Context()); err != nil {
					t.Fatal(err)
				}
				idB, _ := w.eni("worker-2")
				eventually(t, 5*time.Second, "b has it", func() bool { return b.state(ip) == podsync.Registered })
				if w.owner(ip) != idB {
					t.Errorf("routed to %q", w.owner(ip))
				}
				if err := a.Leave(t.Context()); err != nil || w.owner(ip) != idB {
					t.Errorf("a second Leave of the old owner: %v, routed to %q", err, w.owner(ip))
				}
			})
		})
	}
}

func TestOwnerThatDoesNotGiveBackLosesItAfterFiveSeconds(t *testing.T) {
	for conflict, moves := range map[attachment.OnConflict]bool{attachment.WaitThenReassign: true, attachment.Reassign: true, attachment.Never: false} {
		t.Run(string(conflict), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "")
				on := func(c *podsync.Config) { c.OnConflict = conflict }
				a, b := w.pod("worker-1", on), w.pod("worker-2", on)
				a.add("10.10.1.80/24")
				if err := a.Until(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				b.add("10.10.1.80/24")
				began := time.Now()
				err := b.Until(t.Context(), nil)
				if took := time.Since(began); conflict == attachment.WaitThenReassign && took < 5*time.Second {
					t.Errorf("moved after %s", took)
				}
				if moved := err == nil; moved != moves {
					t.Errorf("got %v", err)
				}
				if !moves && !errors.Is(err, podsync.ErrContested) {
					t.Errorf("got %v, want %v", err, podsync.ErrContested)
				}
			})
		})
	}
}

// TestFailoverOfManyAddressesTakesTwoCalls: the first is claimed at once, the others that follow it together.
func TestFailoverOfManyAddressesTakesTwoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		var late time.Duration
		p := w.pod("worker-1", floating("10.10.1.88/29"), func(c *podsync.Config) { c.Claimed = func(d time.Duration) { late = max(late, d) } })
		p.run(t)
		defer func() { p.stop() }()
		for last := 88; last < 94; last++ {
			p.add(fmt.Sprintf("10.10.1.%d/32", last))
			time.Sleep(500 * time.Microsecond)
		}
		time.Sleep(time.Minute)
		id, _ := w.eni("worker-1")
		for last := 88; last < 94; last++ {
			if a := fmt.Sprintf("10.10.1.%d", last); w.owner(addr(a)) != id {
				t.Errorf("%s is not registered", a)
			}
		}
		if n := w.calls("AssignPrivateIpAddresses"); n != 2 || late > 5*time.Millisecond {
			t.Errorf("%d calls for six addresses, the last %s after its address", n, late)
		}
	})
}

func TestFlappingCostsOneCallASecond(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "")
				p := w.pod("worker-1", floating("10.10.1.88/29"), func(c *podsync.Config) { c.KeepFloating = keep })
				p.run(t)
				defer func() { p.stop() }()
				for range 10_000 {
					p.add("10.10.1.90/32")
					time.Sleep(500 * time.Microsecond)
					p.remove("10.10.1.90/32")
					time.Sleep(500 * time.Microsecond)
				}
				if n := w.calls("AssignPrivateIpAddresses") + w.calls("UnassignPrivateIpAddresses"); n > 11 || n < 2 {
					t.Errorf("%d calls in 10 s", n)
				}
			})
		})
	}
}

func TestAddressThatGoesIsGivenBackAfterItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		p := w.pod("worker-1")
		p.add("10.10.1.80/24")
		p.run(t)
		defer func() { p.stop() }()
		id, _ := w.eni("worker-1")
		ip := addr("10.10.1.80")
		eventually(t, 5*time.Second, "registered", func() bool { return p.state(ip) == podsync.Registered })
		p.remove("10.10.1.80/24")
		time.Sleep(29 * time.Second)
		if w.owner(ip) != id {
			t.Fatal("given back before its grace was over")
		}
		p.add("10.10.1.80/24")
		time.Sleep(time.Minute)
		if w.owner(ip) != id || p.state(ip) != podsync.Registered {
			t.Fatal("given back though it came back")
		}
		p.remove("10.10.1.80/24")
		eventually(t, 35*time.Second, "given back", func() bool { return w.owner(ip) == "" && p.state(ip) == "" })
	})
}

func TestUnownedAddressIsClaimedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		p := w.pod("worker-1")
		p.add("10.10.1.80/24")
		p.run(t)
		defer func() { p.stop() }()
		id, _ := w.eni("worker-1")
		ip := addr("10.10.1.80")
		eventually(t, 5*time.Second, "registered", func() bool { return w.owner(ip) == id })
		if err := w.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: id, Addresses: []netip.Addr{ip}}); err != nil {
			t.Fatal(err)
		}
		eventually(t, 2*time.Minute, "claimed again", func() bool { return w.owner(ip) == id })
	})
}

// tellingPod is a pod where an address changes whenever its interfaces are being read, and is told of before they are.
type tellingPod struct {
	tell chan func(attachment.Change)
	told chan struct{}
}

func (p *tellingPod) Interfaces() ([]attachment.Interface, error) {
	tell := <-p.tell
	done := make(chan struct{})
	go func() {
		defer close(done)
		tell(attachment.Change{Index: 3, Addr: netip.MustParsePrefix("10.10.1.80/24"), Gone: true})
	}()
	select {
	case <-done:
		p.told <- struct{}{}
	case <-time.After(10 * time.Second):
	}
	return nil, nil
}

func (p *tellingPod) Watch(ctx context.Context, tell func(attachment.Change)) error {
	tell(attachment.Change{})
	p.tell <- tell
	<-ctx.Done()
	return nil
}

// TestTellingWaitsForNobody runs on the machine's clock: where time is virtual, who waits for a mutex stops it.
func TestTellingWaitsForNobody(t *testing.T) {
	p := &tellingPod{tell: make(chan func(attachment.Change)), told: make(chan struct{}, 1)}
	s := podsync.New(podsync.DefaultConfig(), p, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	select {
	case <-p.told:
	case <-time.After(10 * time.Second):
		t.Error("what is told waits for the interfaces to be read")
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
