// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

// The state directory is a file system of four pages: it is full after a few pods.
func TestFullDiskGivesNothingTwice(t *testing.T) {
	const full, room = 16 << 10, 1 << 20
	n := up(t, twoWorkers("c5.18xlarge", "early"), vpcipam)
	n.must(n.Overmount(n.StateDir(), full))
	n.start(brief(longCooldown))

	given := map[netip.Addr]*sandbox{}
	take := func(s *sandbox) uint {
		t.Helper()
		a := n.call(n.Worker, "ADD", s, "")
		if a.Code != 0 {
			r, err := a.Refusal()
			n.must(err)
			if !strings.Contains(r.Msg, "no space left on device") || !strings.Contains(r.Msg, "free space in the agent's state directory") {
				t.Fatalf("ADD failed with %+v", r)
			}
			return r.Code
		}
		p, err := a.Address()
		n.must(err)
		if other := given[p.Addr()]; other != nil {
			t.Fatalf("%s was given to %s and to %s", p.Addr(), other.name, s.name)
		}
		given[p.Addr()] = s
		return 0
	}
	var refused *sandbox
	for range 40 {
		s := n.sandbox("web")
		if code := take(s); code != 0 {
			if code != agentapi.CodeTryAgainLater {
				t.Fatalf("refused with code %d, want %d", code, agentapi.CodeTryAgainLater)
			}
			refused = s
			break
		}
	}
	if refused == nil || len(given) == 0 {
		t.Fatalf("%d pods in %d bytes, and none was refused", len(given), full)
	}
	var gone netip.Addr
	for addr, s := range given { // a pod ends meanwhile: its DEL succeeds
		gone = addr
		n.del(s)
		break
	}
	delete(given, gone)

	n.Kill()
	n.start(brief(longCooldown)) // on the full disk
	for addr, s := range given {
		n.is(addr, held(s))
	}
	if code := take(refused); code != 0 && code != agentapi.CodeTryAgainLater {
		t.Fatalf("after a restart: code %d", code)
	}

	n.must(n.Resize(n.StateDir(), room))
	n.until("the DEL is done", func() bool { return len(n.tombstones()) == 0 })
	if got := given[gone]; got != nil {
		t.Errorf("%s went to %s in its cooldown", gone, got.name)
	}
	for range 5 {
		if code := take(n.sandbox("web")); code != 0 {
			t.Fatalf("with room again: code %d", code)
		}
	}
	n.Kill()
	n.start(brief(longCooldown))
	for addr, s := range given {
		n.is(addr, held(s))
	}
}
