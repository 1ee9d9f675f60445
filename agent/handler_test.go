// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/ec2eni"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/imds"
	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// The worker's ENIs: 1 has all it needs, 2 has a reservation whose only free address is soon taken, 3 has a link in mode
// l3, and 4 has none.
const fiveENIs = `
vpc: {cidr: 10.71.0.0/16}
subnets:
- {name: primary, cidr: 10.71.12.0/24, az: us-west-2a}
- {name: pods, cidr: 10.71.1.0/24, az: us-west-2a, reservations: [{cidr: 10.71.1.64/26}]}
- {name: full, cidr: 10.71.2.0/24, az: us-west-2a, reservations: [{cidr: 10.71.2.64/32}]}
instances:
- name: worker-1
  type: c5.18xlarge
  enis:
  - {subnet: primary}
  - {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: full, addresses: [10.71.2.20, 10.71.2.64], tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
  - {subnet: pods, tags: {node.k8s.amazonaws.com/no_manage: "true"}}
`

// memory is a ledger that can be full.
type memory struct {
	mu   sync.Mutex
	full bool
}

var errDiskFull = errors.New("no space left on device")

func (m *memory) Put(...pool.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errDiskFull
	}
	return nil
}

func (m *memory) fill(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

// kernel is a host without pods but one, whose interface is in mode l3 on link 5.
type kernel struct{ links []attachment.Link }

func (k kernel) Links() ([]attachment.Link, error)       { return k.links, nil }
func (kernel) Up(int, int) error                         { return nil }
func (kernel) Addresses() (map[netip.Addr]string, error) { return nil, nil }
func (kernel) Look(attachment.Netns) pool.Sight          { return pool.Alive }
func (kernel) Scan() ([]pool.Found, error) {
	return []pool.Found{{Modes: map[int]string{5: "l3"}}}, nil
}

func (kernel) Elsewhere([]attachment.Netns) ([]attachment.Netns, error) {
	return nil, nil
}

// carried is apart from kernel, whose Addresses are the host's.
type carried struct{ kernel }

func (carried) Addresses(string) ([]netip.Addr, error) { return nil, nil }

type noTombstones struct{}

func (noTombstones) List() ([]pool.Tombstone, error) { return nil, nil }
func (noTombstones) Find(attachment.Key) (pool.Tombstone, bool, error) {
	return pool.Tombstone{}, false, nil
}
func (carried) Forget(string, []netip.Addr) error { return nil }

func (noTombstones) Remove(attachment.Key) error { return nil }

// serving is a handler over a worker of the lab. Unless run is true its node never boots.
func serving(t testing.TB, run bool) (handler, *memory) {
	t.Helper()
	s, err := scenario.Parse([]byte(fiveENIs))
	if err != nil {
		t.Fatal(err)
	}
	lab, err := scenario.Build(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	var k kernel
	for i, e := range lab.Cloud.View(time.Now()).ENIs(lab.Instances["worker-1"]) {
		if i < 4 {
			k.links = append(k.links, attachment.Link{Name: "eth", Index: 2 + i, MTU: 9001, MAC: eni.ParseMAC(e.MAC), Up: true})
		}
	}
	sdk := func(transport http.RoundTripper) aws.Config {
		return aws.Config{
			Region: lab.Cloud.Region(), HTTPClient: &http.Client{Transport: transport},
			Credentials: credentials.NewStaticCredentialsProvider("AKAGENT", "secret", ""),
		}
	}
	cfg := pool.DefaultConfig()
	cfg.MaxWait, cfg.Uptime = 5*time.Second, func() time.Duration { return time.Hour }
	book := &memory{}
	node := pool.New(cfg, eni.Instance{ID: eni.InstanceID(lab.Instances["worker-1"]), Type: "c5.18xlarge", AZ: "us-west-2a"}, pool.Ports{
		EC2:      ec2eni.New(ec2eni.Config{SDK: sdk(lab.EC2())}),
		Metadata: imds.New(imds.Config{SDK: sdk(lab.IMDS("worker-1"))}),
		Host:     k, Namespaces: carried{k}, Ledger: book, Tombstones: noTombstones{},
	}, nil, false)
	if run {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); node.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		<-node.Ready()
	}
	return handler{node: &worker{Node: node}, metrics: newMetrics(), version: "v0.0.0-test"}, book
}

func attached(id string) *attachment.Attachment {
	return &attachment.Attachment{Key: attachment.Key{ContainerID: id, IfName: "net1"}, Network: "n6"}
}

func onIndex(i int) *attachment.Query {
	return &attachment.Query{Selector: eni.Selector{DeviceIndex: &i}}
}

func TestHandlerAnswersWithTheCodeOfTheReason(t *testing.T) {
	t.Parallel()
	h, _ := serving(t, true)
	needLink := func(q *attachment.Query) *attachment.Query { q.NeedLink = true; return q }
	tests := map[string]struct {
		req  agentapi.Request
		code uint
		want []string
	}{
		"add without attachment": {
			agentapi.Request{Method: agentapi.MethodAdd, Query: onIndex(1)}, 6, []string{`"add" needs an attachment`},
		},
		"add without container": {
			agentapi.Request{Method: agentapi.MethodAdd, Query: onIndex(1), Attachment: &attachment.Attachment{Key: attachment.Key{IfName: "net1"}}},
			6,
			[]string{"containerID and ifName"},
		},
		"add without query":        {agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a")}, 6, []string{`"add" needs a query`}},
		"eni without query":        {agentapi.Request{Method: agentapi.MethodENI}, 6, []string{`"eni" needs a query`}},
		"del without attachment":   {agentapi.Request{Method: agentapi.MethodDel}, 6, []string{`"del" needs an attachment`}},
		"check without attachment": {agentapi.Request{Method: agentapi.MethodCheck}, 6, []string{`"check" needs an attachment`}},
		"family of a newer plugin": {
			agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: &attachment.Query{Families: []string{"ipv4", "ipv8"}}},
			2,
			[]string{`families[1] "ipv8"`, `use "ipv4", "ipv6" or both`},
		},
		"family twice": {
			agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: &attachment.Query{Families: []string{"ipv4", "ipv4"}}},
			2,
			[]string{`families[1] "ipv4"`},
		},
		"source of a newer plugin": {
			agentapi.Request{Method: agentapi.MethodENI, Query: &attachment.Query{Source: "byoip"}}, 2, []string{`source "byoip"`, `"reservation" "prefix" "subnet"`},
		},
		"register without addresses": {
			agentapi.Request{Method: agentapi.MethodRegister, Attachment: attached("a"), Query: onIndex(1)}, 6, []string{`"register" needs addresses`},
		},
		"gc without network": {agentapi.Request{Method: agentapi.MethodGC}, 6, []string{`"gc" needs a network`}},
		"status of a selector that matches none": {
			agentapi.Request{Method: agentapi.MethodReady, Query: onIndex(9)}, 50, []string{"deviceIndex 9"},
		},
		"no access to the Kubernetes API": {
			agentapi.Request{
				Method: agentapi.MethodAdd, Attachment: attached("a"),
				Query: &attachment.Query{Sticky: &attachment.Sticky{StatefulSet: "upf"}},
			}, 7, []string{"sticky", "Kubernetes API"},
		},
		"selector that matches none": {
			agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: onIndex(9)}, 7, []string{"deviceIndex 9"},
		},
		"full reservation": {
			agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: onIndex(2)}, 11, []string{"reservation full", "10.71.2.64/32"},
		},
		"link that is absent": {
			agentapi.Request{Method: agentapi.MethodENI, Query: needLink(onIndex(4))}, 11, []string{"has no link with MAC"},
		},
		"link in another mode": {
			agentapi.Request{Method: agentapi.MethodENI, Query: needLink(onIndex(3))}, 102, []string{"mode l3"},
		},
		"check of what is not held": {
			agentapi.Request{Method: agentapi.MethodCheck, Attachment: attached("a")}, 101, []string{"holds no address for attachment a/net1"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp := h.Handle(t.Context(), tt.req)
			if resp.Error == nil || resp.Add != nil || resp.Status != nil {
				t.Fatalf("response %+v, want an error alone", resp)
			}
			if resp.Error.Code != tt.code {
				t.Errorf("code %d, want %d: %s", resp.Error.Code, tt.code, resp.Error)
			}
			for _, words := range tt.want {
				if !strings.Contains(resp.Error.Message, words) {
					t.Errorf("message %q lacks %q", resp.Error.Message, words)
				}
			}
		})
	}
}

func TestHandlerRefusesAMethodOfANewerPlugin(t *testing.T) {
	t.Parallel()
	h, _ := serving(t, false)
	resp := h.Handle(t.Context(), agentapi.Request{Method: "newer"})
	if resp.Error == nil || !strings.Contains(resp.Error.Message, `method "newer" is unknown to this agent; upgrade the agent`) {
		t.Errorf("response %+v, want an error that names method and remedy", resp)
	}
}

func TestHandlerBeforeTheNodeIsReady(t *testing.T) {
	t.Parallel()
	h, _ := serving(t, false)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	resp := h.Handle(over, agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: onIndex(1)})
	if resp.Error == nil || resp.Error.Code != 11 || !strings.Contains(resp.Error.Message, "not ready") {
		t.Errorf("add: %+v, want code 11 and not ready", resp)
	}
	if resp = h.Handle(over, agentapi.Request{Method: agentapi.MethodDel, Attachment: attached("a")}); resp.Error != nil {
		t.Errorf("del: %v, want success", resp.Error)
	}
	resp = h.Handle(over, agentapi.Request{Method: agentapi.MethodStatus})
	if resp.Status == nil || len(resp.Status.Problems) == 0 || resp.Status.ENIs == nil || resp.Status.Attachments == nil {
		t.Errorf("status: %+v, want empty lists and the problem", resp.Status)
	}
}

func TestHandlerServesAnAttachment(t *testing.T) {
	t.Parallel()
	h, book := serving(t, true)
	ctx := t.Context()
	add := agentapi.Request{Method: agentapi.MethodAdd, Attachment: attached("a"), Query: onIndex(1)}
	got := h.Handle(ctx, add)
	if got.Error != nil {
		t.Fatal(got.Error)
	}
	if !netip.MustParsePrefix("10.71.1.64/26").Contains(got.Add.Addresses[0].Addr()) || got.Add.Addresses[0].Bits() != 24 {
		t.Errorf("addresses %v, want one of the reservation with the subnet's prefix length", got.Add.Addresses)
	}
	if got.Add.ENI.DeviceIndex != 1 || got.Add.ENI.Link.Index != 3 || got.Add.ENI.SubnetIPv4 != netip.MustParsePrefix("10.71.1.0/24") {
		t.Errorf("ENI %+v", got.Add.ENI)
	}
	status := h.Handle(ctx, agentapi.Request{Method: agentapi.MethodStatus}).Status
	if status.AgentVersion != "v0.0.0-test" || len(status.Attachments) != 1 || status.Attachments[0].State != "held" {
		t.Errorf("status: %+v", status)
	}
	checked := h.Handle(ctx, agentapi.Request{Method: agentapi.MethodCheck, Attachment: attached("a"), Addresses: got.Add.Addresses})
	if checked.Error != nil {
		t.Errorf("check: %v", checked.Error)
	}
	if diff := cmp.Diff(got.Add, checked.Add, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("what the interface is compared with (-add +check):\n%s", diff)
	}

	// What the client did not read is nobody's, and a repeated answer that it did not read is still somebody's.
	repeated := h.Handle(ctx, add)
	h.Undelivered(add, repeated)
	if n := len(h.node.Status().Holds); n != 1 {
		t.Errorf("%d attachments after the second answer was lost, want the first one's", n)
	}
	h.Undelivered(add, got)
	if n := len(h.node.Status().Holds); n != 0 {
		t.Errorf("%d attachments after the first answer was lost, want none", n)
	}

	// An error that is no refusal has the code of input and output.
	if resp := h.Handle(ctx, add); resp.Error != nil {
		t.Fatal(resp.Error)
	}
	del := agentapi.Request{Method: agentapi.MethodDel, Attachment: attached("a")}
	book.fill(true)
	if resp := h.Handle(ctx, del); resp.Error == nil || resp.Error.Code != 5 || !strings.Contains(resp.Error.Message, errDiskFull.Error()) {
		t.Errorf("del with a full disk: %+v, want code 5", resp.Error)
	}
	book.fill(false)
	for range 2 {
		if resp := h.Handle(ctx, del); resp.Error != nil {
			t.Errorf("del: %v", resp.Error)
		}
	}
}
