// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package sync

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
)

// attachStatic makes a pod with one interface on the ENI for pods, as upstream ipvlan and static do.
func (n *node) attachStatic(t *testing.T, name string, addrs ...netip.Prefix) *aPod {
	t.Helper()
	p := n.newPod(t, name)
	if err := p.AddIPVlan(n.netns, master, "net1", addrs[0], netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs[1:] {
		p.add(t, a)
	}
	return p
}

// attachKnown is [node.attachStatic], and EC2 knows the addresses from the start.
func (n *node) attachKnown(t *testing.T, name string, addrs ...netip.Prefix) *aPod {
	t.Helper()
	p := n.attachStatic(t, name, addrs...)
	for _, a := range addrs {
		n.assign(t, a.Addr())
	}
	return p
}

// assign tells EC2 that the worker's ENI holds an address.
func (n *node) assign(t *testing.T, a netip.Addr) {
	t.Helper()
	id := n.lab.ENIs[n.name][deviceIndex]
	var err error
	if a.Is4() {
		_, err = n.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{NetworkInterfaceID: id, Addresses: []netip.Addr{a}})
	} else {
		_, err = n.lab.Cloud.AssignIPv6Addresses(time.Now(), vpc.AssignIPv6AddressesInput{NetworkInterfaceID: id, Addresses: []netip.Addr{a}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// add and remove are what keepalived or Pacemaker does with a virtual address.
func (p *aPod) add(t *testing.T, a netip.Prefix) {
	t.Helper()
	if err := p.AddAddress("net1", a, netip.Addr{}); err != nil {
		t.Error(err)
	}
}

func (p *aPod) remove(t *testing.T, a netip.Prefix) {
	t.Helper()
	if err := p.RemoveAddress("net1", a); err != nil {
		t.Error(err)
	}
}

// ec2Log is when EC2 was asked to change what about an address, by programs in pods and by agents.
type ec2Log struct {
	ec2 http.Handler

	mu    sync.Mutex
	calls []ec2Call
}

type ec2Call struct {
	at     time.Time
	action string
	values []string
}

// ServeHTTP notes the call and passes it on.
func (l *ec2Log) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(r.Body)
	if err == nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		if form, perr := url.ParseQuery(string(body)); perr == nil {
			c := ec2Call{at: at, action: form.Get("Action")}
			for _, v := range form {
				c.values = append(c.values, v...)
			}
			l.mu.Lock()
			l.calls = append(l.calls, c)
			l.mu.Unlock()
		}
	}
	l.ec2.ServeHTTP(w, r)
}

// claims are the actions by which an ENI gets an address, releases those by which it loses one.
func claims() []string   { return []string{"AssignPrivateIpAddresses", "AssignIpv6Addresses"} }
func releases() []string { return []string{"UnassignPrivateIpAddresses", "UnassignIpv6Addresses"} }

// first is when the first call came, of those from then on, that names the address and is one of the actions.
func (l *ec2Log) first(since time.Time, a netip.Addr, actions []string) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if !c.at.Before(since) && slices.Contains(actions, c.action) && slices.Contains(c.values, a.String()) {
			return c.at, true
		}
	}
	return time.Time{}, false
}

// static starts a program in a pod of [node.attachStatic], which has AWS in its namespace.
func (p *aPod) static(t *testing.T, name string, more ...string) *program {
	t.Helper()
	if !p.served {
		closeAll, err := p.node.lab.ServePod(t.Context(), p.node.name, p.Netns, p.node.log)
		if err != nil {
			t.Fatal(err)
		}
		cleanUp(t, closeAll)
		p.served = true
	}
	return p.start(t, name, "", slices.Concat([]string{
		"MULTUS_VPC_INTERFACES=net1",
		"AWS_ENDPOINT_URL_EC2=http://" + lab.EC2InPod.String(), "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://" + lab.IMDSInPod.String(),
	}, more)...)
}

// history is who had an address, from when it is watched on.
type history struct {
	stop   context.CancelFunc
	ended  chan struct{}
	owners [][]string // each differs from the one before
}

// watch follows the owners of an address at every change of the VPC.
func (g *ground) watch(t *testing.T, a netip.Addr) *history {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	h := &history{stop: stop, ended: make(chan struct{}), owners: [][]string{g.owners(a)}}
	go func() {
		defer close(h.ended)
		for {
			changed := g.lab.Cloud.Changed()
			if now := g.owners(a); !slices.Equal(now, h.owners[len(h.owners)-1]) {
				h.owners = append(h.owners, now)
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return h
}

// end returns what was seen.
func (h *history) end() [][]string {
	h.stop()
	<-h.ended
	return h.owners
}

// samples are durations of which a test tells the middle and the worst.
type samples struct {
	mu  sync.Mutex
	all []time.Duration
}

func (s *samples) add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, d)
}

func (s *samples) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return "none"
	}
	slices.Sort(s.all)
	at := func(q float64) time.Duration {
		return s.all[int(q*float64(len(s.all)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, max %v of %d", at(0.5), at(0.99), at(1), len(s.all))
}

func (s *samples) max() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Max(s.all)
}
