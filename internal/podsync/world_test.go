// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podsync_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/imds"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

// twoWorkers is the VPC of these tests: pods' addresses of both families on one subnet, and a stranger.
const twoWorkers = `
vpc: {cidr: 10.10.0.0/16, ipv6: "2001:db8:10::/56"}
subnets:
- {name: primary,  cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, ipv6: "2001:db8:10:1::/64", az: us-west-2a}
instances:
- name: worker-1
  type: m5.2xlarge
  enis: [{subnet: primary}, {subnet: multus-1, addresses: [10.10.1.20], tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: worker-2
  type: m5.2xlarge
  enis: [{subnet: primary}, {subnet: multus-1, addresses: [10.10.1.21], tags: {node.k8s.amazonaws.com/no_manage: "true"}}]
- name: stranger
  type: m5.2xlarge
  enis: [{subnet: multus-1, addresses: [10.10.1.30, 10.10.1.31]}]
`

// world is a lab in a synctest bubble, on its EC2 through the real SDK.
type world struct {
	t   *testing.T
	lab *scenario.Lab
	log *slog.Logger
}

func newWorld(t *testing.T, ec2 string) *world {
	t.Helper()
	s, err := scenario.Parse([]byte(twoWorkers + ec2))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, lab, slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// eni is the worker's ENI for pods.
func (w *world) eni(worker string) (id string, mac eni.MAC) {
	for _, e := range w.lab.Cloud.View(time.Now()).ENIs(w.lab.Instances[worker]) {
		if e.Attachment.DeviceIndex == 1 {
			return e.ID, eni.ParseMAC(e.MAC)
		}
	}
	w.t.Fatalf("%s has no second ENI", worker)
	return "", ""
}

// owner is the ENI that the VPC routes the address to now, "" for none.
func (w *world) owner(a netip.Addr) string { return w.lab.Cloud.View(time.Now()).Routes()[a] }

// calls counts the lab's EC2 calls by action.
func (w *world) calls(action string) int {
	c := 0
	for _, call := range w.lab.Front.Calls() {
		if call.Action == action {
			c += call.Count
		}
	}
	return c
}

func (w *world) client(key string, transport http.RoundTripper) aws.Config {
	return aws.Config{
		Region:      w.lab.Cloud.Region(),
		Credentials: credentials.NewStaticCredentialsProvider(key, "secret", ""),
		HTTPClient:  &http.Client{Transport: transport},
	}
}

// pod is a pod's namespace in memory with the syncer that runs for it.
type pod struct {
	*podsync.Syncer
	stop func() // ends Run

	mu         sync.Mutex
	interfaces []attachment.Interface
	tell       func(attachment.Change)
}

// pod makes a pod on a worker, with one ipvlan interface and a syncer that is not running.
func (w *world) pod(worker string, change ...func(*podsync.Config)) *pod {
	_, mac := w.eni(worker)
	p := &pod{interfaces: []attachment.Interface{
		{Name: "eth0", Index: 2, Kind: "veth", MAC: "0a:00:00:00:00:01", Addresses: prefixes("10.10.12.77/32")},
		{Name: "net1", Index: 3, Kind: attachment.KindIPVlan, MAC: mac},
	}}
	cfg := podsync.DefaultConfig()
	cfg.Log = w.log.With("worker", worker)
	for _, c := range change {
		c(&cfg)
	}
	p.Syncer = podsync.New(cfg, p, w.direct(worker))
	return p
}

// direct is a worker's way to EC2.
func (w *world) direct(worker string) *podsync.Direct {
	return podsync.NewDirect(w.ec2(worker, w.lab.EC2()), w.metadata(worker))
}

// ec2 is the API with a worker's key.
func (w *world) ec2(worker string, transport http.RoundTripper) *ec2eni.Client {
	return ec2eni.New(ec2eni.Config{SDK: w.client("AK"+worker, transport), Log: slog.New(slog.DiscardHandler)})
}

func (w *world) metadata(worker string) metadata {
	return metadata{imds.New(imds.Config{SDK: w.client("AK"+worker, w.lab.IMDS(worker))})}
}

// rivals are running pods on two workers, between which addresses float; like those of programs without the agent they give back
// nothing that floats.
func (w *world) rivals(t *testing.T, vips ...string) (a, b *pod) {
	var ranges []string
	for _, v := range prefixes(vips...) {
		ranges = append(ranges, v.Addr().String())
	}
	keep := func(c *podsync.Config) { c.KeepFloating = true }
	a, b = w.pod("worker-1", floating(ranges...), keep), w.pod("worker-2", floating(ranges...), keep)
	a.run(t)
	b.run(t)
	return a, b
}

// metadata finds ENIs as the doors do where the instance metadata can be reached.
type metadata struct{ *imds.Client }

func (m metadata) Locate(ctx context.Context, mac eni.MAC) (eni.Interface, error) {
	all, err := m.Interfaces(ctx)
	if err != nil {
		return eni.Interface{}, err
	}
	for _, i := range all {
		if i.MAC == mac {
			return i, nil
		}
	}
	return eni.Interface{}, fmt.Errorf("no ENI has MAC %s: %w", mac, eni.ErrNotFound)
}

func (m metadata) Held(ctx context.Context, mac eni.MAC) ([]netip.Addr, error) {
	addrs, _, err := m.Client.Held(ctx, mac)
	return addrs, err
}

// run starts the syncer; defer p.stop().
func (p *pod) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
}

func (p *pod) Interfaces() ([]attachment.Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.interfaces)
	for i := range all {
		all[i].Addresses = slices.Clone(all[i].Addresses)
	}
	return all, nil
}

func (p *pod) Watch(ctx context.Context, tell func(attachment.Change)) error {
	p.mu.Lock()
	p.tell = tell
	p.mu.Unlock()
	tell(attachment.Change{})
	<-ctx.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tell = nil
	return nil
}

// add and remove configure net1, as ip-address(8) does.
func (p *pod) add(addrs ...string)    { p.change(false, prefixes(addrs...)) }
func (p *pod) remove(addrs ...string) { p.change(true, prefixes(addrs...)) }

func (p *pod) change(gone bool, addrs []netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := &p.interfaces[1]
	for _, a := range addrs {
		i.Addresses = slices.DeleteFunc(i.Addresses, func(b netip.Prefix) bool { return a == b })
		if !gone {
			i.Addresses = append(i.Addresses, a)
		}
		if p.tell != nil {
			p.tell(attachment.Change{Index: i.Index, Addr: a, Gone: gone})
		}
	}
}

// state is what the syncer says of an address.
func (p *pod) state(a netip.Addr) string {
	for _, r := range p.Report().Addresses {
		if r.Addr == a {
			return r.State
		}
	}
	return ""
}

func prefixes(all ...string) (ps []netip.Prefix) {
	for _, s := range all {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func floating(ranges ...string) func(*podsync.Config) {
	return func(c *podsync.Config) {
		for _, r := range ranges {
			parsed, err := attachment.ParseRange(r)
			if err != nil {
				panic(err)
			}
			c.Floating = append(c.Floating, parsed)
		}
	}
}

// eventually waits, in the bubble's time, until ok holds.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", within, what)
		}
	}
	synctest.Wait()
}
