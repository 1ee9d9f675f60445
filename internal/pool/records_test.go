// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// roomy is dual with an ENI that has slots for all.
var roomy = strings.Replace(dual, "name: worker-1", "name: worker-1\n  type: c5.18xlarge", 1)

// everySort is pods of every sort on one worker: it returns those that live on.
func everySort(t *testing.T, n *node) []attachment.Attachment {
	t.Helper()
	both := []string{attachment.IPv4, attachment.IPv6}
	var alive []attachment.Attachment
	for id, q := range map[string]attachment.Query{
		"v4": {}, "dual": {Families: both}, "prefix": {Source: attachment.SourcePrefix, Families: both}, "subnet": {Source: attachment.SourceSubnet},
		"named": {Requested: []netip.Addr{netip.MustParseAddr("10.10.1.195")}}, "gold": {ReservationTags: map[string]string{"tier": "gold"}},
	} {
		a := n.pod(id)
		if _, err := n.addAll(a, q); err != nil {
			t.Fatalf("ADD %s: %v", id, err)
		}
		alive = append(alive, a)
	}
	guest := n.pod("guest")
	addr := netip.MustParseAddr("10.10.1.197")
	if _, err := n.Register(context.Background(), guest, attachment.Query{}, []netip.Addr{addr}, attachment.Never); err != nil {
		t.Fatal(err)
	}
	n.netns.carry(guest.Netns.Path, addr)
	released := n.pod("released")
	if _, err := n.addAll(released, attachment.Query{Families: both}); err != nil {
		t.Fatal(err)
	}
	n.del(released)
	return append(alive, guest)
}

// damage drops records between two lives of an agent, and looks that nothing is given twice and nothing stays.
func damage(t *testing.T, drop func(n *node, key string) bool) {
	t.Helper()
	inLab(t, roomy, func(t *testing.T, w *world, n *node) {
		alive := everySort(t, n)
		n.stop()
		carried := n.netns.carried()
		for _, r := range n.book.records() {
			if drop(n, r.Key) {
				if err := n.book.Put(pool.Record{Key: r.Key}); err != nil {
					t.Fatal(err)
				}
			}
		}
		n.start(false)
		<-n.Ready()
		for _, id := range []string{"x", "y"} { // carrying what another namespace carries is a panic
			for sort, q := range map[string]attachment.Query{
				"v4": {}, "prefix": {Source: attachment.SourcePrefix}, "gold": {ReservationTags: map[string]string{"tier": "gold"}},
			} {
				a := n.pod(id + sort)
				if _, err := n.addAll(a, q); err != nil {
					t.Fatalf("ADD %s: %v", a.Key, err)
				}
				alive = append(alive, a)
			}
			time.Sleep(70 * time.Second) // what nobody accounts for is adopted
		}
		for id, state := range n.holds() {
			if state == "lost" {
				t.Errorf("%s is lost, and nobody took anything from it", id)
			}
		}
		for a, id := range carried {
			if w.owner(a) == "" && !w.routed("worker-1", a) {
				t.Errorf("%s, which %s carries, is no longer on the ENI", a, id)
			}
		}
		for _, a := range alive {
			n.netns.remove(a.Netns.Path)
			if err := n.Del(a.Key); err != nil {
				t.Error(err)
			}
		}
		eventually(t, 10*time.Minute, "nothing is held, cooling or in doubt", func() bool {
			for _, state := range n.states() {
				if state != "free" && state != "foreign" {
					return false
				}
			}
			return true
		})
		w.agreeAll(n)
		if got := len(n.Status().Holds); got > 0 {
			t.Errorf("%d holds are left", got)
		}
	})
}

// TestAnyRecordLost: a damaged record costs that record alone, whichever it is. Of free addresses of one source and family
// one stands for all.
func TestAnyRecordLost(t *testing.T) {
	sorts := map[string]bool{}
	of := func(n *node, key string) string {
		if !strings.HasPrefix(key, "address/") {
			return key
		}
		_, unit, _ := strings.Cut(strings.TrimPrefix(key, "address/"), "/")
		a, err := netip.ParseAddr(unit)
		if err != nil {
			return fmt.Sprint("prefix ", strings.Contains(unit, ":"))
		}
		return fmt.Sprint(n.states()[a], n.book.value(key), a.Is4())
	}
	inLab(t, roomy, func(t *testing.T, _ *world, n *node) {
		everySort(t, n)
		for _, r := range n.book.records() {
			sorts[of(n, r.Key)] = true
		}
	})
	for sort := range sorts {
		done := false
		damage(t, func(n *node, key string) bool {
			hit := !done && of(n, key) == sort
			done = done || hit
			return hit
		})
	}
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 0))
		damage(t, func(*node, string) bool { return rng.IntN(2) == 0 })
	}
	for _, sort := range []string{"hold/", "address/", "active/"} {
		damage(t, func(_ *node, key string) bool { return strings.HasPrefix(key, sort) })
	}
}

// carried maps what namespaces carry to their paths.
func (n *namespaces) carried() map[netip.Addr]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := map[netip.Addr]string{}
	for path, ns := range n.at {
		for _, a := range ns.addrs {
			all[a] = path
		}
	}
	return all
}

// TestReservationsComeAndGo: a second reservation is drawn from as soon as the first is exhausted, or after the cache's
// hour; one that is removed feeds no new pod, and takes nothing from those that have its addresses.
func TestReservationsComeAndGo(t *testing.T) {
	first, second := netip.MustParsePrefix("10.10.1.64/29"), netip.MustParsePrefix("10.10.1.128/28")
	small := strings.Replace(twoWorkers, "10.10.1.64/26", first.String(), 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, small)
		n := w.worker("worker-1", noStock)
		defer n.stop()
		for i := range 8 {
			if a := n.mustAdd(n.pod(string(rune('a'+i))), any1()); !first.Contains(a) {
				t.Fatalf("%s is not of %s", a, first)
			}
		}
		_, err := n.add(n.pod("too-many"), any1())
		if r := refusal(t, err); !strings.Contains(r.Text, "reservation full") {
			t.Fatalf("refused with %q", r.Text)
		}
		more := w.reserve(second)
		time.Sleep(11 * time.Second) // for so long the word of the exhausted one is good
		addr, err := n.add(n.pod("fits"), any1())
		if err != nil || !second.Contains(addr) {
			t.Fatalf("after another reservation was added: %s, %v", addr, err)
		}
		if _, err = w.lab.Cloud.DeleteSubnetCIDRReservation(time.Now(), more); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if got := n.states()[addr]; got != "held" {
			t.Errorf("the pod's address is %s since its reservation went", got)
		}
		_, err = n.add(n.pod("late"), any1())
		if r := refusal(t, err); !strings.Contains(r.Text, "reservation full") || strings.Contains(r.Text, second.String()) {
			t.Errorf("refused with %q", r.Text)
		}
		n.netns.remove("/run/netns/fits")
		eventually(t, 5*time.Minute, "it went back", func() bool { return w.owner(addr) == "" })
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.Replace(small, "{cidr: 10.10.1.64/29}", "{cidr: 10.10.1.64/29, tags: {multus-vpc.io/role: static}}", 1))
		n := w.worker("worker-1")
		defer n.stop()
		time.Sleep(10 * time.Minute)
		if got := w.writes(); got != 0 {
			t.Fatalf("%d calls changed EC2", got)
		}
		w.reserve(second, "multus-vpc.io/role", "pool")
		eventually(t, 2*time.Hour, "stock of the reservation that invites", func() bool { return n.count("free") == n.cfg.MinimumIPTarget })
		for a := range n.states() {
			if !second.Contains(a) {
				t.Errorf("%s is not of %s", a, second)
			}
		}
	})
}

// TestManyReservations: EC2 answers in pages of 100.
func TestManyReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, strings.NewReplacer("10.10.1.0/24", "10.10.64.0/18", "[{cidr: 10.10.1.64/26}]", "[]").Replace(twoWorkers))
		var last netip.Prefix
		for i := range 300 {
			last = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10, byte(64 + i/16), byte(i % 16 * 16)}), 31)
			w.reserve(last, "number", string(rune('a'+i%26))+string(rune('a'+i/26)))
		}
		time.Sleep(5 * time.Second) // until EC2 shows them everywhere
		n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 1, 2 })
		defer n.stop()
		<-n.Ready()
		addr := n.mustAdd(n.pod("a"), attachment.Query{ReservationTags: map[string]string{"number": "nl"}})
		if !last.Contains(addr) {
			t.Errorf("%s is not of the last reservation, %s", addr, last)
		}
		seen := map[netip.Prefix]bool{}
		for i := range 10 {
			a := n.mustAdd(n.pod(string(rune('b'+i))), any1())
			seen[netip.PrefixFrom(a, 31).Masked()] = true
		}
		if len(seen) < 5 {
			t.Errorf("ten pods out of %d reservations of two", len(seen))
		}
	})
}

// reserve adds an explicit reservation to the subnet of the pools and returns its ID.
func (w *world) reserve(p netip.Prefix, tags ...string) string {
	w.t.Helper()
	in := vpc.CreateSubnetCIDRReservationInput{SubnetID: w.lab.Subnets["multus-1"], CIDR: p, Type: "explicit", Tags: map[string]string{}}
	for kv := range slices.Chunk(tags, 2) {
		in.Tags[kv[0]] = kv[1]
	}
	r, err := w.lab.Cloud.CreateSubnetCIDRReservation(time.Now(), in)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.ID
}

// TestNoRecordTellsTheTimeOfDay: what a restart reads must mean the same after the clock was set, so all times are of
// CLOCK_BOOTTIME. In a bubble it is the morning of 2000-01-01.
func TestNoRecordTellsTheTimeOfDay(t *testing.T) {
	inLab(t, roomy, func(t *testing.T, _ *world, n *node) {
		everySort(t, n)
		for _, r := range n.book.records() {
			for _, clock := range []string{"2000-01-01", "9466848", "9466849"} {
				if strings.Contains(string(r.Value), clock) {
					t.Errorf("%s: %s", r.Key, r.Value)
				}
			}
		}
	})
}
