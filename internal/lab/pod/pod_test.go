// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pod_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

func newPod(t *testing.T) *pod.Pod {
	t.Helper()
	p, err := pod.New(fmt.Sprintf("podtest%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Delete(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPingIsAnsweredOrSaysWhyNot(t *testing.T) {
	p := newPod(t)
	for _, tt := range []struct {
		to   string
		want error
	}{
		{"127.0.0.1", nil},
		{"::1", nil},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := pod.Ping(ctx, p.Netns, netip.MustParseAddr(tt.to)); !errors.Is(err, tt.want) {
			t.Errorf("ping %s: %v, want %v", tt.to, err, tt.want)
		}
		cancel()
	}
	// Without a route it is refused at once, with a reason.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	if _, err := pod.Ping(ctx, p.Netns, netip.MustParseAddr("10.10.1.1")); err == nil || time.Since(start) > 30*time.Second {
		t.Errorf("ping without a route: %v after %v", err, time.Since(start))
	}
}

func TestPingEndsWithItsContext(t *testing.T) {
	p := newPod(t)
	if err := p.AddAddress("lo", netip.MustParsePrefix("10.10.1.1/24"), netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pod.Ping(ctx, p.Netns, netip.MustParseAddr("10.10.1.9")); !errors.Is(err, pod.ErrNoReply) {
		t.Errorf("ping with a cancelled context: %v, want ErrNoReply", err)
	}
}

func TestEchoInsideANamespace(t *testing.T) {
	p := newPod(t)
	at := netip.MustParseAddrPort("127.0.0.1:7")
	e, err := pod.ServeEcho(t.Context(), p.Netns, at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := pod.Exchange(ctx, p.Netns, at); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := pod.Exchange(ctx, p.Netns, at); err == nil {
		t.Error("the closed server answers")
	}
}

func TestPacketsComeBackInsideANamespace(t *testing.T) {
	p := newPod(t)
	for _, at := range []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:7"), netip.MustParseAddrPort("[::1]:7")} {
		s, err := pod.ServePackets(t.Context(), p.Netns, at)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := pod.ExchangePackets(ctx, p.Netns, at); err != nil {
			t.Error(err)
		}
		cancel()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := pod.ExchangePackets(ctx, p.Netns, at); !errors.Is(err, pod.ErrNoReply) {
			t.Errorf("the closed server at %s: %v, want ErrNoReply", at, err)
		}
		cancel()
	}
}

func TestLookShowsWhatSomebodyConfigured(t *testing.T) {
	p := newPod(t)
	if err := p.AddAddress("lo", netip.MustParsePrefix("10.10.1.9/24"), netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	got, err := pod.LookAt(p.Netns)
	if err != nil {
		t.Fatal(err)
	}
	want := pod.Look{
		Links:     []string{"lo device up mtu 65536"},
		Addresses: []string{"lo 10.10.1.9/24"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestANamespaceThatIsGoneIsAnError(t *testing.T) {
	if _, err := pod.LookAt("/run/netns/podtest-absent"); err == nil {
		t.Error("LookAt of an absent namespace succeeded")
	}
	if _, err := pod.Ping(t.Context(), "/run/netns/podtest-absent", netip.MustParseAddr("10.0.0.1")); err == nil {
		t.Error("Ping from an absent namespace succeeded")
	}
}
