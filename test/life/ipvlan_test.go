// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

//go:build ipvlan

package life

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

const vpcipvlan = "vpcipvlan"

func TestIPVlanPodOnALateLink(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "late"), vpcipvlan)
	n.lower(1500)
	n.start(brief(longCooldown))
	s := n.sandbox("web")
	addr := n.add(s)
	if got := n.link(); !strings.Contains(got, " up mtu 9001 ") {
		t.Errorf("after ADD the ENI's link is %q, want up and mtu 9001", got)
	}
	look, err := pod.LookAt(s.Netns)
	n.must(err)
	if !slices.ContainsFunc(look.Links, func(l string) bool { return strings.HasPrefix(l, ifName+" ipvlan l2 up mtu 9001 ") }) {
		t.Errorf("the pod's links are %q, want %s up with the ENI's MTU", look.Links, ifName)
	}
	if want := ifName + " " + addr.String() + "/24"; !slices.Contains(look.Addresses, want) {
		t.Errorf("the pod's addresses are %q, want %q", look.Addresses, want)
	}
	n.lower(9001)
	n.until("the ENI's link is up again", func() bool { return strings.Contains(n.link(), " up mtu 9001 ") })
}

func TestIPVlanNetnsRemadeAtTheSamePath(t *testing.T) {
	const cooldown = 2 * time.Second
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipvlan)
	n.start(brief(cooldown))
	old := n.sandbox("old")
	was := n.add(old)

	gone := time.Now()
	n.must(old.Delete()) // and with it the link that carries the address
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
	n.is(is, held(fresh))
	look, err := pod.LookAt(fresh.Netns)
	n.must(err)
	if want := []string{ifName + " " + is.String() + "/24"}; !slices.Equal(look.Addresses, want) {
		t.Errorf("the new pod's addresses are %q, want %q", look.Addresses, want)
	}
}

// A namespace that still carries an address wins: what was released is not given to another pod.
func TestIPVlanAddressThatIsStillCarriedGoesOnCooling(t *testing.T) {
	const cooldown = time.Second
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipvlan)
	n.start(brief(cooldown))
	s := n.sandbox("web")
	addr := n.add(s)

	// Upstream's ipvlan has its IPAM plugin release before it removes the link, and may be killed in between.
	n.plugin = vpcipam
	n.del(s)
	n.until("a cooldown is over", func() bool { return strings.Contains(n.Log(), "it goes on cooling") })
	n.is(addr, cooling(s))

	n.plugin = vpcipvlan
	n.del(s)
	n.becomes(addr, "free")
}

// A link that is unregistered takes its children along.
func TestIPVlanChildrenGoWithTheirLink(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipvlan)
	n.start(brief(time.Second))
	s := n.sandbox("web")
	addr := n.add(s)
	n.withMaster(func(h *netlink.Handle, l netlink.Link) error { return h.LinkDel(l) })
	n.must(n.Await(n.ctx, n.states(map[string]string{s.id: "lost"})))
	look, err := pod.LookAt(s.Netns)
	n.must(err)
	if slices.ContainsFunc(look.Links, func(l string) bool { return strings.HasPrefix(l, ifName+" ") }) {
		t.Errorf("the pod still has %q: nothing was lost", look.Links)
	}
	refused, err := n.call(n.Worker, "ADD", n.sandbox("next"), "").Refusal()
	if n.must(err); refused.Code != agentapi.CodeTryAgainLater || !strings.Contains(refused.Msg, "has no link") {
		t.Errorf("ADD of another pod: %+v", refused)
	}
	n.del(s)
	n.becomes(addr, "free")
}
