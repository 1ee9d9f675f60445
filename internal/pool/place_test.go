// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
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
		if n.host.ups != 2 {
			t.Error("a link that went down stays down")
		}
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
