// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
)

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
	if slices.ContainsFunc(look.Addresses, func(a string) bool { return strings.HasPrefix(a, n.master+" ") }) {
		t.Errorf("addresses of the worker: %q, want none on %s", look.Addresses, n.master)
	}
}

// withMaster does something to the ENI's link.
func (n *node) withMaster(do func(h *netlink.Handle, l netlink.Link) error) {
	n.t.Helper()
	h, err := pod.Handle(n.Netns)
	n.must(err)
	defer h.Close()
	l, err := h.LinkByName(n.master)
	n.must(err)
	n.must(do(h.Handle, l))
}

// lower sets the ENI's link down, with an MTU that is not its own.
func (n *node) lower(mtu int) {
	n.t.Helper()
	n.withMaster(func(h *netlink.Handle, l netlink.Link) error {
		return errors.Join(h.LinkSetDown(l), h.LinkSetMTU(l, mtu))
	})
}

// link describes the ENI's link.
func (n *node) link() string {
	n.t.Helper()
	look, err := pod.LookAt(n.Netns)
	n.must(err)
	i := slices.IndexFunc(look.Links, func(l string) bool { return strings.HasPrefix(l, n.master+" ") })
	if i < 0 {
		n.t.Fatalf("the worker has no %s: %q", n.master, look.Links)
	}
	return look.Links[i]
}

func TestRenamedLinkIsTheSameENI(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	s := n.sandbox("web")
	n.must(n.upstream("ADD", s).Err())
	n.withMaster(func(h *netlink.Handle, l netlink.Link) error {
		return errors.Join(h.LinkSetDown(l), h.LinkSetName(l, "ens6"))
	})
	n.master = "ens6"
	n.until("the link is up again", func() bool { return strings.Contains(n.link(), " up ") })
	n.must(n.upstream("ADD", n.sandbox("next")).Err())
	status, err := n.Status(n.ctx)
	n.must(err)
	for _, a := range status.Attachments {
		if a.State != "held" {
			t.Errorf("%s is %s", a.Key, a.State)
		}
	}
	if len(status.Problems) > 0 {
		t.Errorf("problems: %q", status.Problems)
	}
}

// The agent hears of it from the kernel: its next look at the metadata is a minute away.
func TestLinkThatVanishesIsToldAtOnce(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	s := n.sandbox("web")
	n.must(n.upstream("ADD", s).Err())
	n.add(n.sandbox("without-a-link"))

	// Into another network namespace: for this one it is gone.
	away := n.sandbox("driver")
	began := time.Now()
	n.withMaster(func(h *netlink.Handle, l netlink.Link) error {
		f, err := os.Open(away.Netns)
		if err != nil {
			return err
		}
		return errors.Join(h.LinkSetNsFd(l, int(f.Fd())), f.Close())
	})
	n.must(n.Await(n.ctx, n.states(map[string]string{s.id: "lost"})))
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("told after %v", took)
	}
	if status, err := n.Status(n.ctx); err != nil || len(status.Attachments) != 2 ||
		!slices.ContainsFunc(status.Problems, func(p string) bool { return strings.Contains(p, "the interfaces of 1 attachments") }) {
		t.Errorf("attachments %+v, problems %q, %v", status.Attachments, status.Problems, err)
	}
	refused, err := n.call(n.Worker, "STATUS", s, "").Refusal()
	if n.must(err); refused.Code != agentapi.CodeLimited {
		t.Errorf("STATUS: %+v, want code %d", refused, agentapi.CodeLimited)
	}
	if !strings.Contains(n.Log(), "the link that its pod's interface was made on is gone") {
		t.Error("the agent does not log it")
	}

	n.must(inNetns(away.Netns, func(h *netlink.Handle) error { return back(h, n.Netns, n.master) }))
	n.must(n.Await(n.ctx, n.states(map[string]string{s.id: "held"}))) // moved, not made anew: its children are still its own
	n.until("the link is up again", func() bool { return strings.Contains(n.link(), " up ") })
	n.must(n.upstream("ADD", n.sandbox("next")).Err())
	if status, err := n.Status(n.ctx); err != nil || len(status.Problems) > 0 {
		t.Errorf("problems: %q, %v", status.Problems, err)
	}
}

// back moves the only other link of a namespace back to the worker's.
func back(h *netlink.Handle, workers, name string) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	f, err := os.Open(workers)
	if err != nil {
		return err
	}
	defer f.Close()
	return h.LinkSetNsFd(l, int(f.Fd()))
}

func inNetns(path string, do func(h *netlink.Handle) error) error {
	h, err := pod.Handle(path)
	if err != nil {
		return err
	}
	defer h.Close()
	return do(h.Handle)
}

// states demands states of attachments, by container ID.
func (n *node) states(want map[string]string) func(*agentapi.Status) string {
	return func(s *agentapi.Status) string {
		for _, a := range s.Attachments {
			if w, ok := want[a.ContainerID]; ok && a.State != w {
				return fmt.Sprintf("%s to be %s; it is %s", a.ContainerID, w, a.State)
			}
		}
		return ""
	}
}
