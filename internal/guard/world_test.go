// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package guard_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/guard"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(texts ...string) (as []netip.Addr) {
	for _, s := range texts {
		as = append(as, addr(s))
	}
	return as
}

func ranges(t *testing.T, texts ...string) (rs []attachment.Range) {
	t.Helper()
	for _, s := range texts {
		r, err := attachment.ParseRange(s)
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

// The worker has two ENIs in 10.10.1.0/24 and 2001:db8::/64, with links 3 and 4. 10.10.1.64/28 is a pool's.
const (
	ours      eni.ID = "eni-1"
	second    eni.ID = "eni-2"
	elsewhere eni.ID = "eni-of-another-worker"
)

// world is a node, its pods' namespaces, EC2 and the Kubernetes API in one.
type world struct {
	t  *testing.T
	mu sync.Mutex
	// owners is EC2.
	owners map[netip.Addr]eni.ID
	writes int
	kept   bool // another pod of this worker has what it carries
	pods   map[uint64]*pod
	api    []guard.PodNetworks
	noAPI  error
	asked  int // questions to the API
	given  map[uint64][]netip.Addr
	claims map[uint64]map[netip.Addr]bool
}

// pod is a network namespace, and the caller from there.
type pod struct {
	w      *world
	cookie uint64
	ifs    map[string]guard.Seen
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, owners: map[netip.Addr]eni.ID{}, pods: map[uint64]*pod{}, given: map[uint64][]netip.Addr{}, claims: map[uint64]map[netip.Addr]bool{},
	}
}

// pod makes a namespace with net1, a child of link 3, and eth0.
func (w *world) pod(cookie uint64, eth0 string, net1 ...string) *pod {
	p := &pod{w: w, cookie: cookie, ifs: map[string]guard.Seen{
		"net1": {Link: 3, Kind: "ipvlan", Mode: "l2", Addrs: addrs(net1...)},
		"eth0": {Kind: "veth", Addrs: addrs(eth0)},
	}}
	w.pods[cookie] = p
	w.claims[cookie] = map[netip.Addr]bool{}
	return p
}

func (p *pod) Netns() attachment.Netns { return attachment.Netns{Cookie: p.cookie} }

func (p *pod) all() (as []netip.Addr) {
	for _, i := range p.ifs {
		as = append(as, i.Addrs...)
	}
	return as
}

func (p *pod) Look(ifName string) (guard.Seen, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	i, ok := p.ifs[ifName]
	if !ok {
		return guard.Seen{}, errors.New("no such link")
	}
	i.All = p.all()
	return i, nil
}

func (w *world) Carriers(as []netip.Addr) (map[netip.Addr][]attachment.Netns, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[netip.Addr][]attachment.Netns{}
	for cookie, p := range w.pods {
		for _, a := range as {
			if slices.Contains(p.all(), a) {
				found[a] = append(found[a], attachment.Netns{Path: fmt.Sprint("/run/netns/", cookie), Cookie: cookie})
			}
		}
	}
	return found, nil
}

func (w *world) ENIs(context.Context) ([]guard.ENI, error) {
	subnet := eni.Subnet{ID: "subnet-1", IPv4: netip.MustParsePrefix("10.10.1.0/24"), IPv6: []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}}
	stock := netip.MustParsePrefix("10.10.1.64/28")
	return []guard.ENI{
		{Interface: eni.Interface{ID: ours, Primary: addr("10.10.1.20")}, Subnet: subnet, Link: 3, Stock: stock.Contains},
		{Interface: eni.Interface{ID: second, Primary: addr("10.10.1.21")}, Subnet: subnet, Link: 4, Stock: stock.Contains},
	}, nil
}

func (w *world) Has(n attachment.Netns) (given, claimed []netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.given[n.Cookie], slices.Collect(maps.Keys(w.claims[n.Cookie]))
}

// Claim is strict: what the guard lets pass is for the pod to have.
func (w *world) Claim(_ context.Context, c attachment.Claimant, as []netip.Addr, conflict attachment.OnConflict) map[netip.Addr]guard.Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(as) == 0 || c.Link == 0 || c.IfName == "" || c.Netns.Cookie == 0 {
		w.t.Errorf("claim of %v by %+v", as, c)
	}
	id := map[int]eni.ID{3: ours, 4: second}[c.Link]
	results := map[netip.Addr]guard.Result{}
	for _, a := range as {
		owner := w.owners[a]
		switch {
		case owner == id:
			results[a] = guard.Result{}
		case w.kept:
			results[a] = guard.Result{Err: fmt.Errorf("%w: a pod of this worker", guard.ErrContested)}
		case owner == "" || conflict == attachment.Reassign || conflict == attachment.WaitThenReassign:
			w.owners[a] = id
			w.writes++
			results[a] = guard.Result{New: true}
		default:
			results[a] = guard.Result{Err: fmt.Errorf("%w: %s", guard.ErrContested, owner)}
		}
		if results[a].Err == nil {
			w.claims[c.Netns.Cookie][a] = true
		}
	}
	return results
}

func (w *world) Yield(_ context.Context, c attachment.Claimant, as []netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range as {
		if w.claims[c.Netns.Cookie][a] {
			delete(w.claims[c.Netns.Cookie], a)
			delete(w.owners, a)
			w.writes++
		}
	}
	return nil
}

func (w *world) Standing(_ context.Context, c attachment.Claimant, as []netip.Addr) (map[netip.Addr]attachment.Standing, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	standings := map[netip.Addr]attachment.Standing{}
	for _, a := range as {
		switch w.owners[a] {
		case "":
			standings[a] = attachment.Nobody
		case map[int]eni.ID{3: ours, 4: second}[c.Link]:
			standings[a] = attachment.Here
		default:
			standings[a] = attachment.Elsewhere
		}
	}
	return standings, nil
}

func (w *world) Networks(context.Context) ([]guard.PodNetworks, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.api, w.noAPI
}

// multus writes what a pod has on net1 into the API.
func (w *world) multus(name, eth0 string, net1 ...string) {
	w.api = append(w.api, guard.PodNetworks{
		Pod: attachment.Pod{Namespace: "core", Name: name}, Default: addrs(eth0),
		Addrs: map[string][]netip.Addr{"eth0": addrs(eth0), "net1": addrs(net1...)},
	})
}

// guard is what the operator configured, in front of this world.
func (w *world) guard(change func(*guard.Config)) *guard.Guard {
	cfg := guard.DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	return guard.New(cfg, guard.Ports{Node: w, Namespaces: w, Pods: w})
}
