// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// TestFailBackFasterThanReads: an address that goes to another worker and comes back while reads still show it at its first place is not
// believed to be there.
func TestFailBackFasterThanReads(t *testing.T) {
	for _, tt := range []struct {
		name, vip string
		faults    []front.Fault // of the fail-back
	}{
		{"IPv4", "10.10.1.90/24", nil},
		{"IPv4, EC2 fails once", "10.10.1.90/24", []front.Fault{{Action: "AssignPrivateIpAddresses", Kind: front.ServerError}}},
		{"IPv6", "2001:db8:10:1::90/64", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "ec2: {latency: 20ms, propagation: {route: 300ms, imds: 2s, describe: 2s}}")
				ip := netip.MustParsePrefix(tt.vip).Addr()
				a, b := w.rivals(t, tt.vip)
				defer func() { a.stop(); b.stop() }()
				idA, _ := w.eni("worker-1")
				idB, _ := w.eni("worker-2")
				a.add(tt.vip)
				eventually(t, 10*time.Second, "the first pod has it", func() bool { return a.state(ip) == podsync.Registered })
				time.Sleep(30 * time.Second) // longer than reads are behind
				a.remove(tt.vip)
				b.add(tt.vip)
				eventually(t, 5*time.Second, "the second pod has it", func() bool { return w.owner(ip) == idB })
				if err := w.lab.Front.SetFaults(tt.faults); err != nil {
					t.Fatal(err)
				}
				b.remove(tt.vip)
				a.add(tt.vip)
				eventually(t, 10*time.Second, "the first pod has it again", func() bool {
					return w.owner(ip) == idA && a.state(ip) == podsync.Registered
				})
			})
		})
	}
}

// TestSplitBrainThatNobodyCanRead: two pods carry an address, and EC2 says yes to both and shows neither. What was given to one is not
// claimed again by it.
func TestSplitBrainThatNobodyCanRead(t *testing.T) {
	for _, vip := range []string{"10.10.1.90/24", "2001:db8:10:1::90/64"} {
		t.Run(vip, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "ec2: {latency: 20ms}")
				ip := netip.MustParsePrefix(vip).Addr()
				a, b := w.rivals(t, vip)
				defer func() { a.stop(); b.stop() }()
				for i, p := range []*pod{a, b} { // so that each knows its ENI
					p.add(fmt.Sprintf("10.10.1.%d/24", 80+i))
				}
				time.Sleep(5 * time.Second)
				if err := w.lab.Front.SetFaults([]front.Fault{
					{Action: "DescribeNetworkInterfaces", Probability: 1, Kind: front.ErrorBefore, Code: "RequestLimitExceeded"},
				}); err != nil {
					t.Fatal(err)
				}
				a.add(vip)
				time.Sleep(10 * time.Second)
				b.add(vip)
				moves, last := 0, w.owner(ip)
				for range 3 * 60 * 10 {
					time.Sleep(100 * time.Millisecond)
					if now := w.owner(ip); now != last {
						moves, last = moves+1, now
					}
				}
				if moves > 2 {
					t.Errorf("%d moves in three minutes", moves)
				}
			})
		})
	}
}

// TestOneFlapIsNoMove: an address that went for a moment and never left its ENI is registered again in seconds, and said to be in use by
// nobody else.
func TestOneFlapIsNoMove(t *testing.T) {
	for _, tt := range []struct{ addr, ec2 string }{
		{"10.10.1.80/24", ""}, {"10.10.1.80/24", "ec2: {assignOwned: error}"}, {"2001:db8:10:1::80/64", ""},
	} {
		t.Run(tt.addr+tt.ec2, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.ec2)
				ip := netip.MustParsePrefix(tt.addr).Addr()
				p := w.pod("worker-1")
				p.run(t)
				defer func() { p.stop() }()
				p.add(tt.addr)
				eventually(t, 5*time.Second, "registered", func() bool { return p.state(ip) == podsync.Registered })
				p.remove(tt.addr)
				time.Sleep(100 * time.Millisecond)
				p.add(tt.addr)
				eventually(t, 7*time.Second, "registered again", func() bool {
					for _, a := range p.Report().Addresses {
						if a.Error != "" {
							t.Errorf("%s: %s", a.Addr, a.Error)
						}
					}
					return p.state(ip) == podsync.Registered
				})
			})
		})
	}
}

// replicas is EC2 with one answer out of a replica that is behind.
type replicas struct {
	podsync.EC2
	behind map[netip.Addr]eni.ID
	until  time.Time
}

func (r *replicas) Owners(ctx context.Context, subnet eni.SubnetID, addrs []netip.Addr) (map[netip.Addr]eni.ID, error) {
	owners, err := r.EC2.Owners(ctx, subnet, addrs)
	if r.behind != nil && err == nil && time.Now().Before(r.until) {
		owners, r.behind = r.behind, nil
	}
	return owners, err
}

// blindfold is a locator where pods do not reach the instance metadata.
type blindfold struct{ metadata }

func (blindfold) Held(context.Context, eni.MAC) ([]netip.Addr, error) { return nil, nil }

// TestLookRightAfterATakeOver: a periodic look that comes seconds after an address was taken over is no reason to give it up.
func TestLookRightAfterATakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		const vip = "10.10.1.80/24"
		ip := addr("10.10.1.80")
		idA, _ := w.eni("worker-1")
		idB, _ := w.eni("worker-2")
		before := w.pod("worker-2")
		before.add(vip)
		if err := before.Until(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		p, ec2 := w.pod("worker-1"), &replicas{EC2: w.ec2("worker-1", w.lab.EC2())}
		cfg := podsync.DefaultConfig()
		p.Syncer = podsync.New(cfg, p, podsync.NewDirect(ec2, blindfold{w.metadata("worker-1")}))
		p.run(t)
		time.Sleep(cfg.CheckInterval - 7*time.Second)
		p.add(vip) // waits five seconds for the other worker
		eventually(t, 6*time.Second, "registered", func() bool { return p.state(ip) == podsync.Registered })
		ec2.behind, ec2.until = map[netip.Addr]eni.ID{ip: eni.ID(idB)}, time.Now().Add(5*time.Second)
		time.Sleep(10 * time.Second)
		if got := p.state(ip); got != podsync.Registered {
			t.Errorf("EC2 has had it here all the time, and the syncer says %s", got)
		}
		time.Sleep(cfg.CheckInterval)
		p.stop()
		if err := p.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.owner(ip) == idA {
			t.Error("not given back at the end")
		}
	})
}
