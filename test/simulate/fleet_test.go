// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package simulate

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/ownership"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

const (
	// clusterSize is the most workers that share a reservation. A subnet ends at a /16, so a larger fleet is several
	// clusters in VPCs of their own, in one account with one set of rate limits.
	clusterSize = 500
	// primaries is the part of each pool subnet that is left to the ENIs' primary addresses.
	primaries = 1 << 9
	azName    = region + "a"
)

// plan is a fleet to be built.
type plan struct {
	workers      int
	instanceType string
	// perWorker is how many addresses each worker has in the end, and full the percentage of the reservation that all of
	// them then take.
	perWorker, full int
	tagged          bool    // the reservation invites the pools; else the first pod does
	direct          bool    // see newAccount
	lost            float64 // share of the replies that do not arrive
}

// fleet is workers in one account, each with a pool ENI beside its primary one.
type fleet struct {
	account *account
	workers []*worker
	stop    context.CancelFunc
	running sync.WaitGroup
}

// worker is one agent's pool and what it stands on.
type worker struct {
	*pool.Node
	name     string
	instance eni.Instance
	enis     []string
	kernel   *kernel
	look     chan struct{} // something may have been filled
}

// newFleet builds the account's VPCs and workers. No agent runs yet.
func newFleet(p plan) (*fleet, error) {
	a, err := newAccount(p.direct, p.lost)
	if err != nil {
		return nil, err
	}
	f := &fleet{account: a}
	began := time.Now().Add(-time.Hour)
	for done := 0; done < p.workers; done += clusterSize {
		size := min(clusterSize, p.workers-done)
		if err := f.cluster(p, began, done/clusterSize, size); err != nil {
			return nil, fmt.Errorf("build cluster %d: %w", done/clusterSize, err)
		}
	}
	ofInstance := map[string][]vpc.ENI{}
	for _, e := range a.cloud.View(time.Now()).AllENIs() {
		a.owners.note(began, e.ID)
		ofInstance[e.Attachment.InstanceID] = append(ofInstance[e.Attachment.InstanceID], e)
	}
	for _, w := range f.workers {
		w.furnish(ofInstance[string(w.instance.ID)])
	}
	return f, nil
}

// cluster makes a VPC with a subnet for primary ENIs and one for pool ENIs, and its workers.
func (f *fleet) cluster(p plan, at time.Time, number, size int) error {
	cloud := f.account.cloud
	base := netip.AddrFrom4([4]byte{10, byte(number), 0, 0})
	v, err := cloud.AddVPC(at, vpc.VPCSetup{Name: fmt.Sprintf("cluster-%d", number), IPv4: netip.PrefixFrom(base, 16)})
	if err != nil {
		return err
	}
	hosts, err := cloud.AddSubnet(at, vpc.SubnetSetup{Name: "primary", VPCID: v.ID, AZ: azName, IPv4: netip.PrefixFrom(base, 20)})
	if err != nil {
		return err
	}
	base = netip.AddrFrom4([4]byte{10, byte(number), 128, 0})
	pods, err := cloud.AddSubnet(at, vpc.SubnetSetup{Name: "multus", VPCID: v.ID, AZ: azName, IPv4: netip.PrefixFrom(base, 17)})
	if err != nil {
		return err
	}
	tags := map[string]string{}
	if p.tagged {
		tags[eni.TagRole] = eni.RolePool
	}
	for _, cidr := range blocks(later(base, primaries), (size*p.perWorker*100+p.full-1)/p.full) {
		if _, err := cloud.CreateSubnetCIDRReservation(at, vpc.CreateSubnetCIDRReservationInput{
			SubnetID: pods.ID, CIDR: cidr, Type: vpc.ReservationExplicit, Tags: tags,
		}); err != nil {
			return err
		}
	}
	for i := range size {
		w := &worker{name: fmt.Sprintf("w-%d-%d", number, i), look: make(chan struct{}, 1)}
		made, err := cloud.AddInstance(at, vpc.InstanceSetup{Name: w.name, Type: p.instanceType, ENIs: []vpc.ENISetup{
			{SubnetID: hosts.ID, AddressRequest: vpc.AddressRequest{Primary: later(hosts.IPv4.Addr(), 4+i)}},
			{
				SubnetID: pods.ID, AddressRequest: vpc.AddressRequest{Primary: later(base, 4+i)},
				Tags: map[string]string{eni.TagNoManage: "true"},
			},
		}})
		if err != nil {
			return err
		}
		w.instance = eni.Instance{ID: eni.InstanceID(made.ID), Type: made.Type, AZ: made.AZ, Region: region}
		f.workers = append(f.workers, w)
	}
	return nil
}

// later is the address n after a.
func later(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// blocks cuts n addresses from a on, rounded up to whole /28s, into aligned CIDRs, the largest first where it fits.
func blocks(a netip.Addr, n int) (cidrs []netip.Prefix) {
	for left := (n + 15) / 16 * 16; left > 0; {
		bits := 28
		for bits > 17 && 1<<(32-(bits-1)) <= left && netip.PrefixFrom(a, bits-1).Masked().Addr() == a {
			bits--
		}
		cidrs = append(cidrs, netip.PrefixFrom(a, bits))
		a = later(a, 1<<(32-bits))
		left -= 1 << (32 - bits)
	}
	return cidrs
}

// furnish gives the worker a host with a link for each of its ENIs.
func (w *worker) furnish(enis []vpc.ENI) {
	var links []attachment.Link
	for _, e := range enis {
		w.enis = append(w.enis, e.ID)
		index := e.Attachment.DeviceIndex
		links = append(links, attachment.Link{Name: fmt.Sprintf("eth%d", index), Index: 2 + index, MTU: 9001, MAC: eni.ParseMAC(e.MAC), Up: true})
	}
	w.kernel = newKernel(links, w.poke)
}

// start runs the agents of these workers, all at once.
func (f *fleet) start(workers []*worker) {
	ctx, stop := context.WithCancel(context.Background())
	earlier := f.stop
	f.stop = func() {
		if earlier != nil {
			earlier()
		}
		stop()
	}
	for _, w := range workers {
		cfg := pool.DefaultConfig()
		cfg.Log = slog.New(slog.DiscardHandler)
		cfg.BootID = "boot-1"
		booted := time.Now()
		cfg.Uptime = func() time.Duration { return time.Since(booted) + time.Minute }
		ports := pool.Ports{Host: w.kernel, Namespaces: namespaces{w.kernel}, Ledger: w.kernel, Tombstones: tombstones{}}
		ports.EC2, ports.Metadata = f.account.clients(w)
		w.Node = pool.New(cfg, w.instance, ports, nil, false)
		f.running.Go(func() { w.Run(ctx) })
	}
}

// end stops all agents.
func (f *fleet) end() {
	if f.stop != nil {
		f.stop()
	}
	f.running.Wait()
}

func (w *worker) poke() {
	select {
	case w.look <- struct{}{}:
	default:
	}
}

// stock counts the addresses that pods have or can have at once.
func (w *worker) stock() (held, free int) {
	for _, e := range w.Status().ENIs {
		for _, a := range e.Addresses {
			switch a.State {
			case ownership.Held:
				held++
			case ownership.Free:
				free++
			}
		}
	}
	return held, free
}

// audit compares what the workers believe with what the account has.
func (f *fleet) audit(workers []*worker) error {
	now := f.account.cloud.View(time.Now())
	for _, w := range workers {
		for _, e := range w.Status().ENIs {
			has, _ := now.ENI(string(e.ENI.ID))
			if len(has.Secondary) != len(e.Addresses) {
				return fmt.Errorf("%s has %d addresses on %s and believes in %d", w.name, len(has.Secondary), e.ENI.ID, len(e.Addresses))
			}
			for _, a := range e.Addresses {
				if !slices.Contains(has.Secondary, a.Addr) {
					return fmt.Errorf("%s believes that %s has %s", w.name, e.ENI.ID, a.Addr)
				}
			}
		}
	}
	return nil
}

// filled waits until the worker has at least n addresses in all, and says when. It gives up with ctx.
func (w *worker) filled(ctx context.Context, n int) (time.Time, error) {
	for {
		held, free := w.stock()
		if held+free >= n {
			return time.Now(), nil
		}
		select {
		case <-w.look:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s has %d of %d addresses: %w", w.name, held+free, n, context.Cause(ctx))
		}
	}
}

// pod is a runtime's ADD of a pod, again with a new sandbox when it fails as the kubelet does, until it runs. It returns
// how long that took and how many ADDs failed.
func (w *worker) pod(ctx context.Context, name string) (took time.Duration, failures int, err error) {
	const pause = 10 * time.Second // between a failed sandbox and the next one
	began := time.Now()
	for ; ; failures++ {
		id := fmt.Sprintf("%s-%d", name, failures)
		ns := w.kernel.sandbox(id)
		got, err := w.Add(ctx, attachment.Attachment{
			Key: attachment.Key{ContainerID: id, IfName: "net1"}, Network: "n6",
			Pod: attachment.Pod{Namespace: "default", Name: name, UID: name}, Netns: ns,
		}, attachment.Query{NeedLink: true})
		if err == nil {
			w.poke()
			return time.Since(began), failures, w.kernel.carry(ns.Path, got.Addresses[0].Addr())
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			return 0, failures, fmt.Errorf("pod %s on %s: %w; last refusal: %w", name, w.name, context.Cause(ctx), err)
		}
	}
}
