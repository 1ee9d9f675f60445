// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// statefulSets is a Kubernetes API in which a pod NAME-3 is the fourth of StatefulSet NAME, unless another pod of that
// name has taken its place.
type statefulSets struct {
	mu   sync.Mutex
	now  map[string]string // pod's name to the UID of the one that lives
	away bool
}

var errAPIAway = errors.New("connection refused")

func (s *statefulSets) Ordinal(_ context.Context, p attachment.Pod) (string, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return "", 0, errAPIAway
	}
	if uid, ok := s.now[p.Name]; ok && uid != p.UID {
		return "", 0, fmt.Errorf("pod %s/%s has UID %s, not %s: it has been replaced", p.Namespace, p.Name, uid, p.UID)
	}
	i := strings.LastIndex(p.Name, "-")
	if i < 0 {
		return "", 0, nil
	}
	ordinal, err := strconv.Atoi(p.Name[i+1:])
	return p.Name[:i], ordinal, err
}

// again is the pod made anew by its StatefulSet, with a UID and a sandbox of its own.
func (n *node) again(name string) attachment.Attachment {
	n.world.api.mu.Lock()
	defer n.world.api.mu.Unlock()
	if n.world.api.now == nil {
		n.world.api.now = map[string]string{}
	}
	life := 1
	if was := n.world.api.now[name]; was != "" {
		life, _ = strconv.Atoi(was[len(name)+1:])
		life++
	}
	uid := fmt.Sprintf("%s/%d", name, life)
	n.world.api.now[name] = uid
	a := n.pod(fmt.Sprintf("%s-life%d", name, life))
	a.Pod.Name, a.Pod.UID = name, uid
	return a
}

func (s *statefulSets) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// upf3 is the address of the pod upf-3, of StatefulSet upf.
var upf3 = netip.MustParseAddr("10.10.1.195")

func upf() attachment.Query {
	return attachment.Query{Sticky: &attachment.Sticky{StatefulSet: "upf"}, Ranges: ranges("10.10.1.192/28")}
}

// twoOf runs a test in a bubble with both workers of a scenario.
func twoOf(t *testing.T, yaml string, test func(t *testing.T, w *world, n1, n2 *node)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, yaml)
		littleStock := func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 2, 4 }
		n1, n2 := w.worker("worker-1", littleStock), w.worker("worker-2", littleStock)
		defer func() { n1.stop() }()
		defer func() { n2.stop() }()
		<-n1.Ready()
		<-n2.Ready()
		test(t, w, n1, n2)
	})
}

// takes is an ADD of upf-3 that succeeds.
func (n *node) takes(a attachment.Attachment) {
	n.world.t.Helper()
	began := time.Now()
	if got := n.mustAdd(a, upf()); got != upf3 || !n.world.routed(n.name, upf3) {
		n.world.t.Fatalf("%s on %s has %s, routed there %t; want %s", a.Pod.Name, n.name, got, n.world.routed(n.name, upf3), upf3)
	}
	n.world.t.Logf("%s is at %s after %s", upf3, n.name, time.Since(began))
}

func (w *world) hasUPF3(t *testing.T, worker string) {
	t.Helper()
	want := ""
	if worker != "" {
		want = w.lab.ENIs[worker][1]
	}
	if got := w.owner(upf3); got != want {
		t.Errorf("EC2 has %s on %q, want %q (%s)", upf3, got, want, worker)
	}
}

func TestStickyAddressMovesInOrder(t *testing.T) {
	twoOf(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
		sibling := n1.pod("sibling")
		n1.mustAdd(sibling, any1())
		for range 3 {
			a := n1.again("upf-3")
			n1.takes(a)
			n1.del(a)
			b := n2.again("upf-3")
			n2.takes(b)
			n2.del(b)
		}
		eventually(t, 10*time.Second, "given back at once", func() bool { return w.owner(upf3) == "" })
		if got := w.calls("UnassignPrivateIpAddresses", "ok"); got != 6 {
			t.Errorf("%d addresses were given back by their own worker, want 6", got)
		}
		if !n1.netns.forgot(sibling, upf3) {
			t.Errorf("the sibling still knows %s as a neighbour", upf3)
		}
	})
}

// A worker that is cut off keeps the pod, and learns of the move when it is back. What it holds then is lost for good: a
// moment in which nobody owns the address is not the old pod's.
func TestStickyAddressIsTakenFromAWorkerThatIsCutOff(t *testing.T) {
	twoOf(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
		sibling := n1.pod("sibling")
		n1.mustAdd(sibling, any1())
		old := n1.again("upf-3")
		n1.takes(old)
		n2.takes(n2.again("upf-3"))
		eventually(t, 2*time.Minute, "the old worker knows", func() bool { return n1.states()[upf3] == "lost" })
		if problems := strings.Join(n1.Status().Problems, "\n"); !strings.Contains(problems, "10.10.1.195 of attachment upf-3") {
			t.Errorf("its status does not say so:\n%s", problems)
		}
		time.Sleep(15 * time.Minute)
		w.hasUPF3(t, "worker-2")

		// The pod ends on its new worker, and for an hour there is none.
		n2.del(attachment.Attachment{Key: attachment.Key{ContainerID: "upf-3-life2", IfName: "net1"}, Netns: attachment.Netns{Path: "/run/netns/upf-3-life2"}})
		eventually(t, 10*time.Second, "given back", func() bool { return w.owner(upf3) == "" })
		time.Sleep(15 * time.Minute)
		w.hasUPF3(t, "")
		n1.crash() // nor after a restart
		time.Sleep(15 * time.Minute)
		w.hasUPF3(t, "")

		n1.netns.remember()
		n1.del(old) // the kubelet ends it at last
		eventually(t, 10*time.Second, "siblings ask anew", func() bool { return n1.netns.forgot(sibling, upf3) })
		n1.takes(n1.again("upf-3"))
	})
}

func TestLostStickyAddressOfAPodThatLivesIsAskedForAgain(t *testing.T) {
	twoOf(t, dual, func(t *testing.T, w *world, n1, _ *node) {
		n1.takes(n1.again("upf-3"))
		w.api.setAway(true)
		in := vpc.UnassignInput{NetworkInterfaceID: w.lab.ENIs["worker-1"][1], Addresses: []netip.Addr{upf3}}
		if err := w.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), in); err != nil { // somebody slips
			t.Fatal(err)
		}
		eventually(t, 2*time.Minute, "it is lost", func() bool { return n1.states()[upf3] == "lost" })
		time.Sleep(10 * time.Minute)
		w.hasUPF3(t, "") // nobody can tell whose it is
		w.api.setAway(false)
		eventually(t, 30*time.Minute, "it is held again", func() bool { return n1.states()[upf3] == "held" })
		w.hasUPF3(t, "worker-1")
	})
}

// An agent that was killed finds out soon, by itself, that an address of its ledger is elsewhere, and gives it to nobody.
func TestOldWorkerComesBack(t *testing.T) {
	for _, how := range []string{"restarted", "rebooted", "restarted, with DEL while it was away"} {
		t.Run(how, func(t *testing.T) {
			twoOf(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
				sibling := n1.pod("sibling")
				n1.mustAdd(sibling, any1())
				old := n1.again("upf-3")
				n1.takes(old)
				n1.stop()
				n2.takes(n2.again("upf-3"))
				switch how {
				case "rebooted":
					n1.netns.remove(old.Netns.Path)
				case "restarted, with DEL while it was away":
					n1.netns.remove(old.Netns.Path)
					n1.stones[old.Key] = pool.Tombstone{Key: old.Key, BootID: n1.cfg.BootID, Uptime: n1.cfg.Uptime() + time.Second}
				}
				n1.start(how == "rebooted")
				<-n1.Ready()
				want := "lost"
				if how != "restarted" {
					want = ""
				}
				eventually(t, 15*time.Second, "it knows that the address is elsewhere", func() bool { return n1.states()[upf3] == want })
				if how != "rebooted" { // which leaves no sibling
					eventually(t, 5*time.Second, "siblings ask anew", func() bool { return n1.netns.forgot(sibling, upf3) })
				}
				time.Sleep(15 * time.Minute)
				w.hasUPF3(t, "worker-2")
			})
		})
	}
}

// Back on a worker whose ledger still has its address from before, the pod waits until EC2 has it there.
func TestStickyPodComesBackToAWorkerThatWasAway(t *testing.T) {
	for _, rebooted := range []bool{false, true} {
		t.Run(fmt.Sprintf("rebooted=%t", rebooted), func(t *testing.T) {
			twoOf(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
				old := n1.again("upf-3")
				n1.takes(old)
				n1.stop()
				second := n2.again("upf-3")
				n2.takes(second)
				n1.netns.remove(old.Netns.Path)
				n1.start(rebooted)
				n2.del(second)
				third := n1.again("upf-3")
				for try := 0; ; try++ { // as the kubelet does
					got, err := n1.add(third, upf())
					if err == nil && got == upf3 {
						break
					}
					if refusal(t, err); try == 10 {
						t.Fatal(err)
					}
					if err := n1.Del(third.Key); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Second)
				}
				if !w.routed("worker-1", upf3) {
					t.Errorf("ADD returned, and %s is not routed to the worker", upf3)
				}
			})
		})
	}
}

// Upstream's ipvlan has its IPAM plugin release before it removes the interface.
func TestStickyAddressIsGivenBackWhenTheInterfaceGoesAfterIt(t *testing.T) {
	twoOf(t, dual, func(t *testing.T, w *world, n1, _ *node) {
		a := n1.again("upf-3")
		n1.takes(a)
		if err := n1.Del(a.Key); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		n1.netns.drop(a.Netns.Path)
		eventually(t, 3*time.Second, "given back", func() bool { return w.owner(upf3) == "" })
	})
}

// The metadata may be far behind. A pod whose address is on a worker that is cut off starts by its first ADD all the same.
func TestStickyAddressIsTakenWithinOneADD(t *testing.T) {
	twoOf(t, strings.Replace(dual, "imds: 2s", "imds: 60s", 1), func(_ *testing.T, _ *world, n1, n2 *node) {
		n1.takes(n1.again("upf-3"))
		time.Sleep(2 * time.Minute)
		n2.takes(n2.again("upf-3"))
	})
}

func TestStickyAddressesOfBothFamilies(t *testing.T) {
	const static = "  - {cidr: 10.10.1.192/28, tags: {multus-vpc.io/role: static}}\n"
	both := strings.Replace(dual, static, static+`  - {cidr: "2001:db8:10:1:2::/80", tags: {multus-vpc.io/role: static}}`+"\n", 1)
	twoOf(t, both, func(t *testing.T, w *world, n1, n2 *node) {
		q := upf()
		q.Families, q.Ranges = []string{"ipv4", "ipv6"}, ranges("10.10.1.192/28", "2001:db8:10:1:2::10-2001:db8:10:1:2::1f")
		want := []netip.Addr{upf3, netip.MustParseAddr("2001:db8:10:1:2::13")}
		for i, n := range []*node{n1, n2} { // the second takes them from a worker that is cut off
			addrs, err := n.addAll(n.again("upf-3"), q)
			if err != nil || !slices.Equal(addrs, want) {
				t.Fatalf("on %s: %v, %v", n.name, addrs, err)
			}
			for _, a := range want {
				if !w.routed(n.name, a) {
					t.Errorf("%s is not routed to %s", a, n.name)
				}
			}
			if i == 1 {
				time.Sleep(15 * time.Minute)
				w.agreeAll(n)
			}
		}
	})
}

func TestStickyIsRefused(t *testing.T) {
	twoOf(t, dual, func(t *testing.T, w *world, n1, n2 *node) {
		tests := []struct {
			name   string
			pod    string
			change func(*attachment.Query)
			reason pool.Reason
			want   []string
		}{
			{"no StatefulSet's pod", "web", nil, pool.Invalid, []string{`pod default/web belongs to no StatefulSet`, `of "upf"`}},
			{"another's pod", "smf-3", nil, pool.Invalid, []string{`belongs to StatefulSet "smf", not "upf"`}},
			{"ordinal beyond the ranges", "upf-16", nil, pool.Invalid, []string{"no address for ordinal 16", "10.10.1.192-10.10.1.207", "enlarge"}},
			{"no range of the family", "upf-3", func(q *attachment.Query) { q.Families = []string{"ipv6"} }, pool.Invalid, []string{"needs ranges with one IPv6 address per ordinal"}},
			{"excluded", "upf-3", func(q *attachment.Query) { q.Exclude = ranges("10.10.1.195") }, pool.Invalid, []string{"10.10.1.195, the address of ordinal 3, is in exclude"}},
			{
				"another zone's subnet", "upf-3", func(q *attachment.Query) { q.Ranges = ranges("10.10.2.192/28") }, pool.Invalid,
				[]string{"us-west-2a, which does not contain 10.10.2.195", "node affinity"},
			},
			{
				"where other pods' addresses come from", "upf-3", func(q *attachment.Query) { q.Ranges = ranges("10.10.1.64/28") }, pool.Invalid,
				[]string{"reservation 10.10.1.64/26 contains 10.10.1.67 and is not multus-vpc.io/role=static"},
			},
			{"the router's address", "upf-1", func(q *attachment.Query) { q.Ranges = ranges("10.10.1.0/28") }, pool.Invalid, []string{"cannot have 10.10.1.1"}},
		}
		for _, tt := range tests {
			q := upf()
			if tt.change != nil {
				tt.change(&q)
			}
			_, err := n1.addAll(n1.pod(tt.pod), q)
			r := refusal(t, err)
			for _, want := range tt.want {
				if r.Reason != tt.reason || !strings.Contains(r.Text, want) {
					t.Errorf("%s: reason %d, %q does not say %q", tt.name, r.Reason, r.Text, want)
				}
			}
		}
		w.api.setAway(true)
		_, err := n1.addAll(n1.pod("upf-3"), upf())
		if r := refusal(t, err); r.Reason != pool.NotReady || !strings.Contains(r.Text, "connection refused") {
			t.Errorf("without the API: %q", r.Text)
		}
		if got := w.writes(); got != 0 {
			t.Errorf("%d calls changed EC2", got)
		}
	})
}

// An address that somebody else in the VPC has is not taken, however long the pod waits.
func TestStickyAddressOfAStrangerIsNeverTaken(t *testing.T) {
	second := vpc.AddressRequest{Primary: netip.MustParseAddr("10.10.1.250"), Secondary: []netip.Addr{upf3}}
	first := vpc.AddressRequest{Primary: upf3}
	of := func(cluster string) map[string]string {
		return map[string]string{"node.k8s.amazonaws.com/no_manage": "true", "kubernetes.io/cluster/" + cluster: "owned"}
	}
	strangers := map[string]vpc.CreateNetworkInterfaceInput{
		"no worker's":       {AddressRequest: second},
		"another cluster's": {AddressRequest: second, Tags: of("edge")},
		"a primary address": {AddressRequest: first, Tags: of("core")},
	}
	tagged := strings.ReplaceAll(dual, `no_manage: "true"`, `no_manage: "true", kubernetes.io/cluster/core: owned`)
	for name, in := range strangers {
		t.Run(name, func(t *testing.T) {
			twoOf(t, tagged, func(t *testing.T, w *world, n1, _ *node) {
				in.SubnetID = w.lab.Subnets["multus-1"]
				e, err := w.lab.Cloud.CreateNetworkInterface(time.Now(), in)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				for range 3 {
					_, err := n1.addAll(n1.again("upf-3"), upf())
					if r := refusal(t, err); r.Reason != pool.Exhausted || !strings.Contains(r.Text, "held by another ENI: "+e.ID+", which is not") {
						t.Errorf("refused with %q", r.Text)
					}
				}
				if got := w.owner(upf3); got != e.ID {
					t.Errorf("EC2 has it on %s now", got)
				}
			})
		})
	}
}

// STATUS of a sticky network, and of one that asks for an address: a subnet without stock for anybody is enough for both.
func TestReadinessForAddressesThatAreNamed(t *testing.T) {
	staticOnly := strings.Replace(twoWorkers, "{cidr: 10.10.1.64/26}", "{cidr: 10.10.1.192/28, tags: {multus-vpc.io/role: static}}", 1)
	twoOf(t, staticOnly, func(t *testing.T, _ *world, n1, _ *node) {
		for name, q := range map[string]attachment.Query{"sticky": upf(), "requested": {Requested: []netip.Addr{upf3}}} {
			if limited, err := n1.Readiness(q); limited || err != nil {
				t.Errorf("%s: %t, %v", name, limited, err)
			}
		}
		if _, err := n1.Readiness(any1()); err == nil {
			t.Error("an address out of no reservation: ready")
		}
		n1.takes(n1.again("upf-3"))
	})
}

// Stock fills every slot of a small ENI. A pod that names its address gets one of them.
func TestStockMakesRoomForAnAddressThatWasNamed(t *testing.T) {
	small := strings.ReplaceAll(dual, "- name: worker-", "- type: t3.small\n  name: worker-")
	twoOf(t, small, func(t *testing.T, w *world, n1, _ *node) {
		n1.mustAdd(n1.pod("a"), any1())
		eventually(t, time.Minute, "the ENI is full", func() bool { return n1.count("held")+n1.count("free") == 3 })
		n1.takes(n1.again("upf-3"))
		n1.mustAdd(n1.pod("b"), any1())
		_, err := n1.addAll(n1.pod("upf-4"), upf())
		if r := refusal(t, err); r.Reason != pool.Exhausted || !strings.Contains(r.Text, "ENI slots full") || !strings.Contains(r.Text, "10.10.1.196") {
			t.Errorf("with pods in every slot: %q", r.Text)
		}
		w.agree(n1)
	})
}
