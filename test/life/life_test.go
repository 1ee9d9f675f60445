// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

const vpcipam = "vpcipam"

func TestNetnsRemadeAtTheSamePath(t *testing.T) {
	const cooldown = 2 * time.Second
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(cooldown))
	old := n.sandbox("old")
	was := n.add(old)

	// The DEL is lost, and a new pod's namespace is at the old one's path before the agent looks.
	gone := time.Now()
	n.must(old.Delete())
	fresh := n.sandboxAt(old.Name, n.prefix+"-fresh", "fresh")
	if took := time.Since(gone); took >= time.Second {
		t.Fatalf("making the namespace again took %v: too slow to show anything", took)
	}
	is := n.add(fresh)
	if is == was {
		t.Fatalf("the new pod got %s, which the agent gave to the old one", is)
	}

	n.becomes(was, cooling(old))
	n.becomes(was, "free")
	if after := time.Since(gone); after < cooldown {
		t.Errorf("%s was free %v after its namespace went, want the cooldown of %v", was, after, cooldown)
	}
	n.is(is, held(fresh))
}

func TestNoAddressGoesToAnotherPodInItsCooldown(t *testing.T) {
	const cooldown = 3 * time.Second
	n := up(t, twoWorkers("t3.small", "early"), vpcipam) // three addresses on an ENI besides its own
	n.start(brief(cooldown))
	first := n.sandbox("first")
	addr := n.add(first)
	n.add(n.sandbox("second"))
	n.add(n.sandbox("third"))

	released := time.Now()
	n.del(first)
	n.is(addr, cooling(first))
	fourth := n.sandbox("fourth")
	if got := n.add(fourth); got != addr { // waits: the ENI has no other
		t.Errorf("the fourth pod got %s, want %s", got, addr)
	}
	if after := time.Since(released); after < cooldown {
		t.Errorf("another pod got the address %v after it was given back, want the cooldown of %v", after, cooldown)
	}
}

func TestSamePodGetsItsAddressBackAtOnce(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	first := n.sandbox("web-0")
	addr := n.add(first)
	n.del(first)
	n.must(first.Delete())
	if other := n.add(n.sandbox("web-1")); other == addr {
		t.Errorf("another pod got %s in its cooldown", addr)
	}
	second := n.sandbox("web-0")
	if got := n.add(second); got != addr {
		t.Errorf("the pod's next sandbox got %s, want its own %s", got, addr)
	}
	n.is(addr, held(second))
}

func TestSurplusGoesBackToEC2(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(time.Second))
	var all []*sandbox
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		s := n.sandbox(name)
		n.add(s)
		all = append(all, s)
	}
	if got := len(n.onENI("worker-1")); got < len(all) {
		t.Fatalf("EC2 has %d secondary addresses on the ENI, want at least the %d pods'", got, len(all))
	}
	for _, s := range all[1:] {
		n.del(s)
	}
	// One pod's, and one in stock (warmIPTarget); minimumIPTarget wants no more.
	n.until("EC2 has two addresses on the ENI", func() bool { return len(n.onENI("worker-1")) == 2 })
	s, err := n.Status(n.ctx)
	n.must(err)
	var held []netip.Addr
	for _, h := range s.Attachments {
		held = append(held, h.Addresses...)
	}
	if len(held) != 1 || !slices.Contains(n.onENI("worker-1"), held[0]) {
		t.Errorf("the agent holds %v, and EC2 has %v", held, n.onENI("worker-1"))
	}
}
