// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/imds"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/vpc"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

const twoWorkers = `
vpc: {cidr: 10.72.0.0/16}
subnets:
- {name: primary, cidr: 10.72.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.72.1.0/24, az: us-west-2a, reservations: [{cidr: 10.72.1.64/26}]}
instances:
- {name: worker-1, type: m5.2xlarge, enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
- {name: worker-2, type: m5.2xlarge, enis: [{subnet: primary}, {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}]}
ec2: {latency: 10ms, propagation: {route: 100ms, imds: 200ms, describe: 100ms}}
`

// counted is an agent's handler over worker-1 in a synctest bubble, with everything that a test turns.
type counted struct {
	handler
	t      *testing.T
	lab    *scenario.Lab
	host   *stage
	stones *stones
	m      *metrics
}

// stage is a host whose ENI's link can go down, and whose namespaces can go away.
type stage struct {
	kernel
	mu   sync.Mutex
	gone map[string]bool // by path
}

func (s *stage) Look(n attachment.Netns) pool.Sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone[n.Path] {
		return pool.Gone
	}
	return pool.Alive
}

func (s *stage) Links() ([]attachment.Link, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links, nil
}

func (s *stage) Scan() ([]pool.Found, error) { return nil, nil }

// sights is apart from stage, whose Addresses are the host's.
type sights struct{ *stage }

func (sights) Addresses(string) ([]netip.Addr, error) { return nil, nil }
func (sights) Forget(string, []netip.Addr) error      { return nil }

// stones are tombstones by attachment.
type stones struct {
	mu sync.Mutex
	at map[attachment.Key]pool.Tombstone
}

func (s *stones) List() (all []pool.Tombstone, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.at {
		all = append(all, t)
	}
	return all, nil
}

func (s *stones) Find(k attachment.Key) (pool.Tombstone, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.at[k]
	return t, ok, nil
}

func (s *stones) Remove(k attachment.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, k)
	return nil
}

func (s *stones) put(t pool.Tombstone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[t.Key] = t
}

// counting runs a test on an agent that is ready.
func counting(t *testing.T, test func(c *counted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := scenario.Parse([]byte(twoWorkers))
		if err != nil {
			t.Fatal(err)
		}
		lab, err := scenario.Build(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &counted{t: t, lab: lab, m: newMetrics(), host: &stage{gone: map[string]bool{}}, stones: &stones{at: map[attachment.Key]pool.Tombstone{}}}
		for _, e := range lab.Cloud.View(time.Now()).ENIs(lab.Instances["worker-1"]) {
			c.host.links = append(c.host.links, attachment.Link{
				Name: fmt.Sprint("eth", e.Attachment.DeviceIndex), Index: 2 + e.Attachment.DeviceIndex, MTU: 9001, MAC: eni.ParseMAC(e.MAC), Up: true,
			})
		}
		sdk := func(transport http.RoundTripper) aws.Config {
			return aws.Config{
				Region: lab.Cloud.Region(), HTTPClient: &http.Client{Transport: transport},
				Credentials: credentials.NewStaticCredentialsProvider("AKAGENT", "secret", ""),
			}
		}
		cfg := pool.DefaultConfig()
		began := time.Now()
		cfg.BootID, cfg.Uptime = "boot", func() time.Duration { return time.Hour + time.Since(began) }
		cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
		c.m.wire(&cfg)
		node := pool.New(cfg, eni.Instance{ID: eni.InstanceID(lab.Instances["worker-1"]), Type: "m5.2xlarge", AZ: "us-west-2a"}, pool.Ports{
			EC2:      ec2eni.New(ec2eni.Config{SDK: sdk(lab.EC2()), Log: slog.New(slog.DiscardHandler), Observe: c.m.call}),
			Metadata: imds.New(imds.Config{SDK: sdk(lab.IMDS("worker-1"))}),
			Host:     c.host, Namespaces: sights{c.host}, Ledger: &memory{}, Tombstones: c.stones,
		}, nil, false)
		c.handler = handler{node: &worker{Node: node}, metrics: c.m, version: "v0.0.0-test"}
		c.m.gauges.node.Store(&worker{Node: node})
		if v := value(t, c.m, "multusvpc_ready"); v != 0 {
			t.Errorf("multusvpc_ready is %v before the ENIs are known", v)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); node.Run(ctx) }()
		defer func() { cancel(); <-done }()
		<-node.Ready()
		test(c)
	})
}

// pass lets time pass in the bubble.
func (c *counted) pass(d time.Duration) { time.Sleep(d) }

// pod is an attachment with a namespace.
func (c *counted) pod(id string) *attachment.Attachment {
	a := attached(id)
	a.Netns = attachment.Netns{Path: "/run/netns/" + id, Cookie: 4096 + uint64(len(id))}
	return a
}

func (c *counted) add(a *attachment.Attachment) agentapi.Response {
	c.t.Helper()
	resp := c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodAdd, Attachment: a, Query: onIndex(1)})
	if resp.Error != nil {
		c.t.Fatal(resp.Error)
	}
	return resp
}

func (c *counted) faults(f ...front.Fault) {
	c.t.Helper()
	if err := c.lab.Front.SetFaults(f); err != nil {
		c.t.Fatal(err)
	}
}

// take moves an address of worker-1 to worker-2, or to nobody.
func (c *counted) take(addr netip.Addr, by string) {
	c.t.Helper()
	var err error
	if by == "" {
		err = c.lab.Cloud.UnassignPrivateIPAddresses(time.Now(), vpc.UnassignInput{NetworkInterfaceID: c.lab.ENIs["worker-1"][1], Addresses: []netip.Addr{addr}})
	} else {
		_, err = c.lab.Cloud.AssignPrivateIPAddresses(time.Now(), vpc.AssignPrivateIPAddressesInput{
			NetworkInterfaceID: c.lab.ENIs[by][1], Addresses: []netip.Addr{addr}, AllowReassignment: true,
		})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// sums adds up all series of a metric whose labels contain all of parts.
func sums(t testing.TB, m *metrics, name string, parts ...string) (sum float64) {
	f := scrape(t, m)[name]
	if f == nil {
		return 0
	}
next:
	for series, v := range f.values {
		for _, part := range parts {
			if !strings.Contains(series, part) {
				continue next
			}
		}
		sum += v
	}
	return sum
}

// TestEachMetricMovesForItsReason: what is done, and what has to move by how much because of it, within the time given.
func TestEachMetricMovesForItsReason(t *testing.T) {
	type move struct {
		name  string
		parts []string // of the series' labels
		least float64  // how much more at least
	}
	one := func(name string, parts ...string) move { return move{name, parts, 1} }
	tests := map[string]struct {
		before func(c *counted) // not measured
		do     func(c *counted)
		within time.Duration
		moves  []move
		still  []string // metrics that must not move
	}{
		"ADD": {
			do: func(c *counted) { c.add(c.pod("a")) },
			moves: []move{
				one("multusvpc_request_duration_seconds", `method="add"`, `code="0"`), one("multusvpc_attachments", `state="held"`),
				one("multusvpc_addresses", `state="held"`), one("multusvpc_eni_active"), one("multusvpc_refill_duration_seconds"),
				one("multusvpc_ec2_calls_total", `action="AssignPrivateIpAddresses"`), one("multusvpc_ec2_call_duration_seconds", `action="AssignPrivateIpAddresses"`),
			},
			still: []string{"multusvpc_ec2_errors_total", "multusvpc_ec2_throttles_total", "multusvpc_assign_conflicts_total", "multusvpc_problems"},
		},
		"ADD that is refused": {
			do: func(c *counted) {
				c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: onIndex(9)})
			},
			moves: []move{one("multusvpc_request_duration_seconds", `method="add"`, `code="7"`)},
			still: []string{"multusvpc_attachments", "multusvpc_addresses", "multusvpc_ec2_calls_total"},
		},
		"method that nobody knows": {
			do:    func(c *counted) { c.Handle(c.t.Context(), agentapi.Request{Method: "drop table"}) },
			moves: []move{one("multusvpc_request_duration_seconds", `method="unknown"`, `code="100"`)},
		},
		"DEL, CHECK and the cooldown": {
			before: func(c *counted) { c.add(c.pod("a")) },
			do: func(c *counted) {
				c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodCheck, Attachment: c.pod("a")})
				c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodDel, Attachment: c.pod("a")})
			},
			moves: []move{
				one("multusvpc_request_duration_seconds", `method="del"`, `code="0"`), one("multusvpc_request_duration_seconds", `method="check"`, `code="0"`),
				one("multusvpc_attachments", `state="cooling"`), one("multusvpc_addresses", `state="cooling"`),
				{"multusvpc_attachments", []string{`state="held"`}, -1},
			},
			still: []string{"multusvpc_attachments_reaped_total"},
		},
		"EC2 answers with an error": {
			do: func(c *counted) {
				c.faults(front.Fault{Action: "AssignPrivateIpAddresses", Kind: front.ErrorBefore, Code: "InternalError"})
				c.add(c.pod("a"))
			},
			moves: []move{one("multusvpc_ec2_errors_total", `action="AssignPrivateIpAddresses"`, `error="InternalError"`)},
			still: []string{"multusvpc_ec2_throttles_total", "multusvpc_assign_conflicts_total"},
		},
		"EC2 answers with a code of its future": {
			do: func(c *counted) {
				c.faults(front.Fault{Action: "AssignPrivateIpAddresses", Kind: front.ErrorBefore, Code: "BrandNewCode"})
				c.add(c.pod("a"))
			},
			moves: []move{one("multusvpc_ec2_errors_total", `error="other"`)},
		},
		"EC2 does not answer": {
			do: func(c *counted) {
				c.faults(front.Fault{Action: "AssignPrivateIpAddresses", Kind: front.LostReply})
				c.add(c.pod("a"))
			},
			moves: []move{one("multusvpc_ec2_errors_total", `action="AssignPrivateIpAddresses"`, `error="no-reply"`)},
		},
		"EC2 throttles": {
			do: func(c *counted) {
				c.faults(front.Fault{Action: "AssignPrivateIpAddresses", Kind: front.ErrorBefore, Code: "RequestLimitExceeded"})
				c.add(c.pod("a"))
			},
			moves: []move{one("multusvpc_ec2_throttles_total", `action="AssignPrivateIpAddresses"`), one("multusvpc_ec2_errors_total", `error="RequestLimitExceeded"`)},
			still: []string{"multusvpc_assign_conflicts_total"},
		},
		"another ENI was faster": {
			do: func(c *counted) {
				c.faults(front.Fault{Action: "AssignPrivateIpAddresses", Kind: front.ErrorBefore, Code: "Resource.AlreadyAssigned"})
				c.add(c.pod("a"))
			},
			moves: []move{one("multusvpc_assign_conflicts_total"), one("multusvpc_ec2_errors_total", `error="Resource.AlreadyAssigned"`)},
			still: []string{"multusvpc_ec2_throttles_total"},
		},
		"somebody unassigns a pod's address": {
			before: func(c *counted) { c.add(c.pod("a")) },
			do: func(c *counted) {
				c.faults(front.Fault{Action: "AssignPrivateIpAddresses", Kind: front.ErrorBefore, Code: "InternalError", Probability: 1})
				c.take(c.node.Status().Holds[0].Addresses[0], "")
			},
			within: 3 * time.Minute,
			moves: []move{
				one("multusvpc_addresses_lost_total"), one("multusvpc_attachments", `state="lost"`), one("multusvpc_addresses", `state="lost"`), one("multusvpc_problems"),
			},
			still: []string{"multusvpc_addresses_contested_total"},
		},
		"another ENI takes a pod's address": {
			before: func(c *counted) { c.add(c.pod("a")) },
			do:     func(c *counted) { c.take(c.node.Status().Holds[0].Addresses[0], "worker-2") },
			within: 3 * time.Minute,
			moves:  []move{one("multusvpc_addresses_lost_total"), one("multusvpc_addresses_contested_total"), one("multusvpc_problems")},
		},
		"a namespace is gone without DEL": {
			before: func(c *counted) { c.add(c.pod("a")) },
			do: func(c *counted) {
				c.host.mu.Lock()
				defer c.host.mu.Unlock()
				c.host.gone["/run/netns/a"] = true
			},
			within: time.Minute,
			moves:  []move{one("multusvpc_attachments_reaped_total")},
			still:  []string{"multusvpc_tombstones_total"},
		},
		"a DEL that was left behind": {
			before: func(c *counted) { c.add(c.pod("a")) },
			do: func(c *counted) {
				c.stones.put(pool.Tombstone{Key: attached("a").Key, BootID: "boot", Uptime: 9 * time.Hour})
			},
			within: time.Minute,
			moves:  []move{one("multusvpc_tombstones_total", `result="released"`)},
			still:  []string{"multusvpc_attachments_reaped_total"},
		},
		"a DEL of an earlier boot": {
			before: func(c *counted) { c.add(c.pod("a")) },
			do: func(c *counted) {
				c.stones.put(pool.Tombstone{Key: attached("a").Key, BootID: "before", Uptime: 9 * time.Hour})
			},
			within: time.Minute,
			moves:  []move{one("multusvpc_tombstones_total", `result="outdated"`)},
			still:  []string{"multusvpc_attachments"},
		},
		"a link goes": {
			do: func(c *counted) {
				c.host.mu.Lock()
				c.host.links = c.host.links[:1]
				c.host.mu.Unlock()
				c.node.LinksChanged()
			},
			moves: []move{{"multusvpc_eni_link_up", nil, -1}},
		},
		"prefixes": {
			do: func(c *counted) {
				q := onIndex(1)
				q.Source = attachment.SourcePrefix
				c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodAdd, Attachment: c.pod("a"), Query: q})
			},
			moves: []move{one("multusvpc_prefixes", `state="free"`)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			counting(t, func(c *counted) {
				if tt.before != nil {
					tt.before(c)
					time.Sleep(time.Second)
				}
				was := map[string]float64{}
				key := func(m move) string { return m.name + strings.Join(m.parts, "") }
				for _, m := range tt.moves {
					was[key(m)] = sums(c.t, c.m, m.name, m.parts...)
				}
				for _, name := range tt.still {
					was[name] = sums(c.t, c.m, name)
				}
				tt.do(c)
				time.Sleep(max(tt.within, time.Second))
				for _, m := range tt.moves {
					got := sums(c.t, c.m, m.name, m.parts...) - was[key(m)]
					if m.least > 0 && got < m.least || m.least < 0 && got > m.least {
						c.t.Errorf("%s%v moved by %v, want %v", m.name, m.parts, got, m.least)
					}
				}
				for _, name := range tt.still {
					if got := sums(c.t, c.m, name); got != was[name] {
						c.t.Errorf("%s went from %v to %v", name, was[name], got)
					}
				}
				if v := value(c.t, c.m, "multusvpc_ready"); v != 1 {
					c.t.Errorf("multusvpc_ready is %v", v)
				}
				c.faults()
			})
		})
	}
}
