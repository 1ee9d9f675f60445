// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

func TestLimitsAreNamed(t *testing.T) {
	tests := map[string]struct {
		change func(string) string
		reason pool.Reason
		want   []string
		adds   int
		within time.Duration
	}{
		"slots": {
			change: func(s string) string {
				return strings.Replace(s, "name: worker-1", "name: worker-1\n  type: c5.large", 1)
			},
			reason: pool.Exhausted, adds: 10, want: []string{"ENI slots full", "9", "c5.large", "larger instance type"}, within: time.Second,
		},
		"reservation": {
			change: func(s string) string { return strings.Replace(s, "10.10.1.64/26", "10.10.1.64/30", 1) },
			reason: pool.Exhausted, adds: 5, want: []string{"reservation full", "10.10.1.64/30", "enlarge"}, within: 5 * time.Second,
		},
		"throttled": {
			change: func(s string) string {
				return strings.Replace(s, "ec2: {", "ec2: {throttle: {AssignPrivateIpAddresses: {burst: 0, refill: 0}}, ", 1)
			},
			reason: pool.Exhausted, adds: 1, want: []string{"throttled", "RequestLimitExceeded", "Service Quotas"}, within: 16 * time.Second,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.change(twoWorkers))
				n := w.worker("worker-1")
				defer n.stop()
				<-n.Ready()
				var err error
				var took time.Duration
				for i := range tt.adds {
					began := time.Now()
					_, err = n.add(n.pod(string(rune('a'+i))), any1())
					took = time.Since(began)
				}
				r := refusal(t, err)
				for _, word := range tt.want {
					if !strings.Contains(r.Text, word) {
						t.Errorf("%q lacks %q", r.Text, word)
					}
				}
				if r.Reason != tt.reason || took > tt.within {
					t.Errorf("reason %d after %s", r.Reason, took)
				}
			})
		})
	}
}

func TestSelection(t *testing.T) {
	three := strings.ReplaceAll(twoWorkers, `{subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]`,
		`{subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}, {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]`)
	index := func(i int) attachment.Query { return attachment.Query{Selector: eni.Selector{DeviceIndex: &i}} }
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, three)
		n := w.worker("worker-1")
		defer n.stop()
		_, err := n.add(n.pod("ambiguous"), any1())
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, w.lab.ENIs["worker-1"][1]) || !strings.Contains(r.Text, w.lab.ENIs["worker-1"][2]) {
			t.Errorf("without a selector: %q", r.Text)
		}
		_, err = n.add(n.pod("none"), index(7))
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, "deviceIndex 7") {
			t.Errorf("no match: %q", r.Text)
		}
		_, err = n.add(n.pod("primary"), index(0))
		if r := refusal(t, err); r.Reason != pool.Invalid || !strings.Contains(r.Text, "primary ENI") {
			t.Errorf("the primary: %q", r.Text)
		}
		addr := n.mustAdd(n.pod("second"), index(2))
		if w.owner(addr) != w.lab.ENIs["worker-1"][2] {
			t.Errorf("device index 2 got %s of %s", addr, w.owner(addr))
		}
		// Several match: the pods spread over both.
		tags := attachment.Query{Selector: eni.Selector{SubnetTags: map[string]string{"multus": "1"}}}
		owners := map[string]int{}
		for _, id := range []string{"a", "b", "c", "d"} {
			owners[w.owner(n.mustAdd(n.pod(id), tags))]++
		}
		if len(owners) != 2 {
			t.Errorf("four pods by subnet tag: %v", owners)
		}
	})
}

func TestLateLinkIsBroughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		n.host.mu.Lock()
		n.host.links[1].Up = false
		n.host.mu.Unlock()
		n.LinksChanged()
		if n.host.ups != 0 {
			t.Error("the link of an ENI without pods was brought up")
		}
		n.mustAdd(n.pod("a"), attachment.Query{NeedLink: true})
		if !n.host.links[1].Up || n.host.links[1].MTU != 9001 {
			t.Errorf("the link is %+v", n.host.links[1])
		}
		n.host.mu.Lock()
		n.host.links[1].Up = false
		n.host.mu.Unlock()
		n.LinksChanged()
		eventually(t, time.Second, "a link that went down is up again", func() bool {
			links, _ := n.host.Links()
			return links[1].Up
		})
	})
}

func TestMasterInAnotherModeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, twoWorkers)
		n := w.worker("worker-1")
		defer n.stop()
		<-n.Ready()
		ns := n.netns.add("/run/netns/l3")
		n.netns.mu.Lock()
		n.netns.at[ns.Path].modes = map[int]string{3: "l3"}
		n.netns.mu.Unlock()
		time.Sleep(n.cfg.DriftInterval + time.Second)
		_, err := n.add(n.pod("a"), attachment.Query{NeedLink: true})
		if r := refusal(t, err); r.Reason != pool.MasterMode || !strings.Contains(r.Text, "l3") {
			t.Errorf("refused with %q", r.Text)
		}
	})
}

// TestManyAtOnce: a hundred pods come at once on three ENIs of which two share a subnet, and go, while the reads of all
// ENIs go on. Run it with -race.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, `
vpc: {cidr: 10.10.0.0/16}
subnets:
- {name: primary, cidr: 10.10.12.0/24, az: us-west-2a}
- {name: multus-1, cidr: 10.10.1.0/24, az: us-west-2a, tags: {multus: "1"}, reservations: [{cidr: 10.10.1.128/25}]}
- {name: multus-2, cidr: 10.10.2.0/24, az: us-west-2a, tags: {multus: "1"}, reservations: [{cidr: 10.10.2.128/25}]}
instances:
- name: worker-1
  type: c5.18xlarge
  enis:
  - {subnet: primary}
  - {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-1, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: multus-2, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
ec2: {latency: 80ms, propagation: {route: 1s, imds: 2s, describe: 1s}}
`)
		n := w.worker("worker-1", func(c *pool.Config) { c.DriftInterval = time.Second })
		defer n.stop()
		query := attachment.Query{Selector: eni.Selector{SubnetTags: map[string]string{"multus": "1"}}}
		const pods = 110
		all := make([]attachment.Attachment, pods)
		got := make(chan netip.Addr, pods)
		for i := range all {
			all[i] = n.pod(fmt.Sprintf("p%d", i))
			go func() {
				addr, err := n.add(all[i], query)
				if err != nil {
					t.Errorf("ADD %d: %v", i, err)
				}
				got <- addr
			}()
		}
		seen := map[netip.Addr]bool{}
		for range all {
			addr := <-got
			if seen[addr] {
				t.Errorf("%s was given twice", addr)
			}
			seen[addr] = true
		}
		if calls := w.writes(); calls > pods/10 {
			t.Errorf("%d calls changed EC2 for %d pods, more than one for ten", calls, pods)
		}
		for i := range all {
			go func() { // as del, without ending the test from another goroutine
				n.netns.drop(all[i].Netns.Path)
				if err := n.Del(all[i].Key); err != nil {
					t.Errorf("DEL %s: %v", all[i].Key, err)
				}
			}()
		}
		eventually(t, 10*time.Minute, "back to the targets", func() bool { return n.count("held") == 0 && n.count("free") == 3*n.cfg.MinimumIPTarget })
	})
}
