// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"slices"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

const master = "eth1"

// A link that is attached after boot is down on AL2023: https://github.com/awslabs/amazon-eks-ami/issues/2180
func TestLateLinkIsBroughtUp(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "late"), vpcipam)
	n.lower(1500)
	n.start(brief(longCooldown))
	if got := n.link(); !strings.Contains(got, " down mtu 1500 ") {
		t.Fatalf("before the first ADD the agent made the link %q, want it left alone", got)
	}
	n.add(n.sandbox("web"))
	if got := n.link(); !strings.Contains(got, " up mtu 9001 ") {
		t.Errorf("after ADD the link is %q, want up and mtu 9001", got)
	}
	n.lower(1400)
	n.until("the link is up again", func() bool { return strings.Contains(n.link(), " up mtu 9001 ") })

	look, err := pod.LookAt(n.Netns)
	n.must(err)
	if slices.ContainsFunc(look.Addresses, func(a string) bool { return strings.HasPrefix(a, master+" ") }) {
		t.Errorf("addresses of the worker: %q, want none on %s", look.Addresses, master)
	}
}

// lower sets the ENI's link down, with an MTU that is not its own.
func (n *node) lower(mtu int) {
	n.t.Helper()
	h, err := pod.Handle(n.Netns)
	n.must(err)
	defer h.Close()
	l, err := h.LinkByName(master)
	n.must(err)
	n.must(h.LinkSetDown(l))
	n.must(h.LinkSetMTU(l, mtu))
}

// link describes the ENI's link.
func (n *node) link() string {
	n.t.Helper()
	look, err := pod.LookAt(n.Netns)
	n.must(err)
	i := slices.IndexFunc(look.Links, func(l string) bool { return strings.HasPrefix(l, master+" ") })
	if i < 0 {
		n.t.Fatalf("the worker has no %s: %q", master, look.Links)
	}
	return look.Links[i]
}
