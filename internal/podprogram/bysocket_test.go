// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package podprogram

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/podsync"
)

var (
	net1   = attachment.Interface{Name: "net1", Index: 2, Kind: attachment.KindIPVlan}
	first  = netip.MustParseAddr("10.10.1.80")
	second = netip.MustParseAddr("2001:db8::80")
)

// agent has addresses, and answers as a node agent does. Some it refuses, one another ENI has.
type agent struct {
	t *testing.T

	mu       sync.Mutex
	claimed  map[netip.Addr]bool
	conflict attachment.OnConflict // of the last claim
	calls    int
	silent   bool // it answers for none of the addresses
}

func (a *agent) HandlePod(_ context.Context, _ agentapi.Caller, req agentapi.Request) (resp agentapi.Response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if req.Interface != "net1" || len(req.Addresses) == 0 || len(req.Addresses) > 16 {
		a.t.Errorf("request %+v", req)
	}
	if a.silent {
		return resp
	}
	for _, p := range req.Addresses {
		r := agentapi.Result{Addr: p.Addr()}
		switch req.Method {
		case agentapi.MethodClaim:
			a.conflict = req.OnConflict
			r.New, r.Error = true, answerTo[p.Addr().String()]
			a.claimed[p.Addr()] = r.Error == nil
		case agentapi.MethodStanding:
			r.Standing = agentapi.StandingNobody
			if a.claimed[p.Addr()] {
				r.Standing = agentapi.StandingHere
			}
			if e := answerTo[p.Addr().String()]; e != nil && e.Code == agentapi.CodeContested {
				r.Standing = agentapi.StandingElsewhere
			}
		default: // yield has no results
			delete(a.claimed, p.Addr())
			continue
		}
		resp.Results = append(resp.Results, r)
	}
	return resp
}

// looked is what the agent has seen so far.
func (a *agent) looked() (calls int, conflict attachment.OnConflict, claimed map[netip.Addr]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls, a.conflict, maps.Clone(a.claimed)
}

func (a *agent) hush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silent = true
}

var answerTo = map[string]*agentapi.Error{
	"10.10.1.1":  {Code: agentapi.CodeInvalidConfig, Message: "the gateway"},
	"10.10.1.2":  {Code: agentapi.CodeContested, Message: "eni-2 has it"},
	"10.10.1.11": {Code: agentapi.CodeTryAgainLater, Message: "EC2 throttles"},
}

// serve starts an agent on the socket, and returns what ends it.
func (a *agent) serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done, up := make(chan struct{}), make(chan struct{}, 8)
	go func() {
		defer close(done)
		(&agentapi.PodServer{Path: socket, Up: func() { up <- struct{}{} }}).Serve(ctx, a)
	}()
	<-up
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func newAgent(t *testing.T) (a *agent, socket string) {
	return &agent{t: t, claimed: map[netip.Addr]bool{}}, filepath.Join(t.TempDir(), "sync", "sync.sock")
}

func TestSocketMeansWhatTheAgentSays(t *testing.T) {
	a, socket := newAgent(t)
	a.serve(t, socket)
	s := newBySocket(agentapi.Client{Socket: socket, Timeout: time.Minute})
	gateway, contested, throttled := netip.MustParseAddr("10.10.1.1"), netip.MustParseAddr("10.10.1.2"), netip.MustParseAddr("10.10.1.11")
	got := s.Register(t.Context(), net1, []netip.Addr{first, second, gateway, contested, throttled}, attachment.Never)
	for addr, want := range map[netip.Addr]struct {
		refused, contested bool
		says               string
	}{first: {}, second: {}, gateway: {true, false, "the gateway"}, contested: {false, true, "eni-2 has it"}, throttled: {false, false, "EC2 throttles"}} {
		r := got[addr]
		if (r.Err == nil) != (want.says == "") || r.Err != nil && r.Err.Error() != want.says ||
			errors.Is(r.Err, podsync.ErrRefused) != want.refused || errors.Is(r.Err, podsync.ErrContested) != want.contested || r.Err == nil && !r.New {
			t.Errorf("%s: %+v, want %+v", addr, r, want)
		}
	}
	if calls, conflict, _ := a.looked(); conflict != attachment.Never || calls != 1 {
		t.Errorf("asked %d times, on conflict %q", calls, conflict)
	}
	standings, err := s.Standing(t.Context(), net1, []netip.Addr{first, contested, throttled})
	if err != nil || standings[first] != attachment.Here || standings[contested] != attachment.Elsewhere || standings[throttled] != attachment.Nobody {
		t.Errorf("standings %v, %v", standings, err)
	}
	err = s.Release(t.Context(), net1, []netip.Addr{first})
	if _, _, claimed := a.looked(); err != nil || claimed[first] || !claimed[second] {
		t.Errorf("%v; claimed %v", err, claimed)
	}
	a.hush()
	if r := s.Register(t.Context(), net1, []netip.Addr{first}, attachment.Never)[first]; !errors.Is(r.Err, errNoAnswer) {
		t.Errorf("an agent that does not answer: %+v", r)
	}
	if standings, err := s.Standing(t.Context(), net1, []netip.Addr{first}); !errors.Is(err, errNoAnswer) {
		t.Errorf("an agent that does not answer: %v, %v", standings, err)
	}
}

func TestManyAddressesAreAskedForInParts(t *testing.T) {
	a, socket := newAgent(t)
	a.serve(t, socket)
	s := newBySocket(agentapi.Client{Socket: socket, Timeout: time.Minute})
	var addrs []netip.Addr
	for addr := netip.MustParseAddr("10.10.1.100"); len(addrs) < 20; addr = addr.Next() {
		addrs = append(addrs, addr)
	}
	for addr, r := range s.Register(t.Context(), net1, addrs, attachment.Never) {
		if r.Err != nil {
			t.Errorf("%s: %v", addr, r.Err)
		}
	}
	if calls, _, claimed := a.looked(); calls != 2 || len(claimed) != 20 {
		t.Errorf("%d calls for %d addresses", calls, len(claimed))
	}
}

// thePod is a pod whose addresses a test sets.
type thePod struct {
	mu   sync.Mutex
	has  []netip.Prefix
	tell func(attachment.Change)
	up   chan struct{}
}

func (p *thePod) Interfaces() ([]attachment.Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := net1
	i.Addresses = slices.Clone(p.has)
	return []attachment.Interface{i}, nil
}

func (p *thePod) Watch(ctx context.Context, tell func(attachment.Change)) error {
	p.mu.Lock()
	p.tell = tell
	p.mu.Unlock()
	tell(attachment.Change{})
	close(p.up)
	<-ctx.Done()
	return nil
}

func (p *thePod) set(addrs ...netip.Addr) {
	p.mu.Lock()
	p.has = nil
	for _, a := range addrs {
		p.has = append(p.has, netip.PrefixFrom(a, a.BitLen()))
	}
	tell := p.tell
	p.mu.Unlock()
	tell(attachment.Change{})
}

// TestAgentRestartLosesNothing: what appears while no agent listens is registered when the next one does, what is registered stays, and
// at the end all of it is given back.
func TestAgentRestartLosesNothing(t *testing.T) {
	a, socket := newAgent(t)
	stop := a.serve(t, socket)
	reports := make(chan podsync.Report, 64)
	cfg := podsync.DefaultConfig()
	cfg.Grace, cfg.Changed = 0, func(r podsync.Report) { reports <- r }
	pod := &thePod{up: make(chan struct{})}
	s := podsync.New(cfg, pod, newBySocket(agentapi.Client{Socket: socket, Timeout: time.Minute}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	<-pod.up
	registered := func(want int) {
		t.Helper()
		for r := range reports {
			if n := len(r.Addresses); n == want && r.Ready() {
				return
			}
		}
	}
	pod.set(first)
	registered(1)
	stop()
	pod.set(first, second)
	a.serve(t, socket)
	registered(2)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	err := s.Leave(t.Context())
	if _, _, claimed := a.looked(); err != nil || claimed[first] || claimed[second] {
		t.Errorf("%v; claimed %v", err, claimed)
	}
}

// TestViaSaysWhoIsAsked: by default the agent, when its folder is mounted, though it is away at the moment.
func TestViaSaysWhoIsAsked(t *testing.T) {
	mountedDir := t.TempDir()
	absent := filepath.Join(mountedDir, "no", "sync.sock")
	t.Setenv("AWS_REGION", "us-west-2")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	tests := map[string]struct {
		via, socket string
		agent       bool
	}{
		"mounted":                 {"auto", filepath.Join(mountedDir, "sync.sock"), true},
		"not mounted":             {"auto", absent, false},
		"the agent, not mounted":  {"agent", absent, true},
		"EC2, though mounted":     {"ec2", filepath.Join(mountedDir, "sync.sock"), false},
		"nothing said, no folder": {"", absent, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := parsed(t, map[string]string{"MULTUS_VPC_VIA": tt.via, "MULTUS_VPC_SYNC_SOCKET": tt.socket})
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			vpc, err := Program{}.registrar(t.Context(), &o, newMetrics(), slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			if _, agent := vpc.(bySocket); agent != tt.agent || o.sync.KeepFloating == tt.agent || strings.Contains(log.String(), "the node agent registers") != tt.agent {
				t.Errorf("%T, keeps floating addresses: %t; log %s", vpc, o.sync.KeepFloating, &log)
			}
		})
	}
	if _, err := parsed(t, nil, "--via=magic"); err == nil || !strings.Contains(err.Error(), `--via "magic": want auto, agent or ec2`) {
		t.Errorf("another way: %v", err)
	}
	if err := os.WriteFile(filepath.Join(mountedDir, "file"), nil, 0o600); err != nil || mounted(filepath.Join(mountedDir, "file", "sync.sock")) {
		t.Errorf("a file is taken for a folder (%v)", err)
	}
}

// TestManyInterfacesAtOnceAreAskedForInTurn: the agent serves four connections of a pod, and refuses more.
func TestManyInterfacesAtOnceAreAskedForInTurn(t *testing.T) {
	a, socket := newAgent(t)
	a.serve(t, socket)
	s := newBySocket(agentapi.Client{Socket: socket, Timeout: time.Minute})
	var calls sync.WaitGroup
	next := netip.MustParseAddr("10.10.1.100")
	for range 40 {
		addr := next
		next = next.Next()
		calls.Go(func() {
			for _, r := range s.Register(t.Context(), net1, []netip.Addr{addr}, attachment.Never) {
				if r.Err != nil {
					t.Error(r.Err)
				}
			}
		})
	}
	calls.Wait()
	full := newBySocket(agentapi.Client{Socket: socket})
	for range agentapi.DefaultPerNamespace {
		full.lines <- struct{}{}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the pod ends")
	cancel(gone)
	if err := full.Release(ctx, net1, []netip.Addr{first}); !errors.Is(err, gone) {
		t.Errorf("a call that waits for its turn: %v", err)
	}
}
