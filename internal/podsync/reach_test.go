// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// cable fails while it is cut as a transport does that finds no endpoint.
type cable struct {
	http.RoundTripper
	cut atomic.Bool
}

func (c *cable) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.cut.Load() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "server misbehaving", Name: r.URL.Hostname(), IsTemporary: true}}
	}
	return c.RoundTripper.RoundTrip(r)
}

// TestUnreachableEC2RefusesNothing: a name that does not resolve for a second costs seconds, and fails no init container.
func TestUnreachableEC2RefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		p, line := w.pod("worker-1"), &cable{RoundTripper: w.lab.EC2()}
		direct := podsync.NewDirect(w.ec2("worker-1", line), w.metadata("worker-1"))
		p.add("10.10.1.80/24")
		if _, err := direct.Standing(t.Context(), p.interfaces[1], []netip.Addr{addr("10.10.1.80")}); err != nil { // finds the ENI
			t.Fatal(err)
		}
		p.Syncer = podsync.New(podsync.DefaultConfig(), p, direct)
		line.cut.Store(true)
		time.AfterFunc(time.Second, func() { line.cut.Store(false) })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := p.Until(ctx, podsync.Promise{"net1"}); err != nil {
			t.Error(err)
		}
	})
}

// TestFullENIHasWhatItHas: an address that is on a full ENI already is registered, though EC2 refuses to count it once more.
func TestFullENIHasWhatItHas(t *testing.T) {
	for _, family := range []string{"10.10.1.%d/24", "2001:db8:10:1::%d/64"} {
		for _, ec2 := range []string{"", "ec2: {assignOwned: error}"} {
			t.Run(family+ec2, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, ec2)
					initContainer, other, sidecar := w.pod("worker-1"), w.pod("worker-1"), w.pod("worker-1")
					mine := []string{fmt.Sprintf(family, 80), fmt.Sprintf(family, 81)}
					initContainer.add(mine...)
					if err := initContainer.Until(t.Context(), nil); err != nil {
						t.Fatal(err)
					}
					var err error
					for i := 100; err == nil; i++ {
						other.add(fmt.Sprintf(family, i))
						ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
						err = other.Until(ctx, nil)
						cancel()
						if i > 150 {
							t.Fatal("the ENI is never full")
						}
					}
					sidecar.add(append(mine, fmt.Sprintf(family, 82))...)
					sidecar.run(t)
					defer func() { sidecar.stop() }()
					for _, a := range prefixes(mine...) {
						eventually(t, time.Minute, "registered", func() bool { return sidecar.state(a.Addr()) == podsync.Registered })
					}
					if got := sidecar.state(prefixes(fmt.Sprintf(family, 82))[0].Addr()); got != podsync.Pending {
						t.Errorf("one too many is %s", got)
					}
				})
			})
		}
	}
}

// TestSlowLookHoldsUpNoClaim: an address that comes back while a periodic look waits for its answer is claimed at once.
func TestSlowLookHoldsUpNoClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const vip = "10.10.1.90/24"
		w := newWorld(t, "ec2: {latency: 20ms}")
		ip := addr("10.10.1.90")
		idA, _ := w.eni("worker-1")
		idB, _ := w.eni("worker-2")
		began := time.Now()
		a, b := w.rivals(t, vip)
		defer func() { a.stop(); b.stop() }()
		a.add(vip)
		time.Sleep(2 * time.Second)
		b.add(vip) // before the other lets it go, which then has something to ask EC2
		eventually(t, 5*time.Second, "the second pod has it", func() bool { return w.owner(ip) == idB })
		if err := w.lab.Front.SetFaults([]front.Fault{
			{Action: "DescribeNetworkInterfaces", Nth: 1, Count: 1, Kind: front.Slow, Delay: 25 * time.Second},
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(podsync.DefaultConfig().CheckInterval - time.Since(began) + 500*time.Millisecond)
		a.remove(vip)
		time.Sleep(time.Second)
		b.remove(vip)
		a.add(vip)
		eventually(t, 2*time.Second, "the first pod has it again", func() bool { return w.owner(ip) == idA })
	})
}

// brittle is a pod whose interfaces cannot be listed a few times.
type brittle struct {
	*pod
	fails int
}

func (b *brittle) Interfaces() ([]attachment.Interface, error) {
	if b.fails > 0 {
		b.fails--
		return nil, errors.New("list interfaces: interrupted dump")
	}
	return b.pod.Interfaces()
}

func TestInterfacesAreListedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		p := w.pod("worker-1")
		p.add("10.10.1.80/24")
		p.Syncer = podsync.New(podsync.DefaultConfig(), &brittle{p, 3}, w.direct("worker-1"))
		p.run(t)
		defer func() { p.stop() }()
		eventually(t, 5*time.Second, "registered", func() bool { return p.state(addr("10.10.1.80")) == podsync.Registered })
	})
}

// bare is EC2 whose subnets have no IPv6 block yet.
type bare struct {
	podsync.EC2
	yet atomic.Bool
}

func (b *bare) Subnets(ctx context.Context, ids []eni.SubnetID) ([]eni.Subnet, error) {
	subnets, err := b.EC2.Subnets(ctx, ids)
	for i := range subnets {
		if b.yet.Load() {
			subnets[i].IPv6 = nil
		}
	}
	return subnets, err
}

func TestSubnetGetsItsIPv6BlockLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "")
		ec2 := &bare{EC2: w.ec2("worker-1", w.lab.EC2())}
		ec2.yet.Store(true)
		p := w.pod("worker-1")
		p.Syncer = podsync.New(podsync.DefaultConfig(), p, podsync.NewDirect(ec2, w.metadata("worker-1")))
		p.add("10.10.1.80/24", "2001:db8:10:1::80/64")
		p.run(t)
		defer func() { p.stop() }()
		time.Sleep(5 * time.Minute)
		if r := p.Report().Addresses[1]; !r.Refused {
			t.Errorf("before: %+v", r)
		}
		ec2.yet.Store(false)
		eventually(t, 3*time.Minute, "registered", func() bool { return p.state(addr("2001:db8:10:1::80")) == podsync.Registered })
	})
}

// TestPromiseIsKeptWithoutAnothersFloatingAddress: a floating address that another pod has is no reason to wait.
func TestPromiseIsKeptWithoutAnothersFloatingAddress(t *testing.T) {
	for _, floats := range []bool{true, false} {
		missing, err := podsync.Promise{"net1"}.Kept(podsync.Report{
			Interfaces: []podsync.InterfaceReport{{Name: "net1"}},
			Addresses: []podsync.AddressReport{
				{Addr: addr("10.10.1.80"), Interface: "net1", State: podsync.Registered},
				{Addr: addr("10.10.1.90"), Interface: "net1", State: podsync.Contested, Floating: floats, Error: "held by another ENI"},
			},
		})
		if missing != "" || (err == nil) != floats {
			t.Errorf("floating %t: %q, %v", floats, missing, err)
		}
	}
}
