// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
)

// registeredAddresses is step 2: the pods of step 1, of which the suite's init container tells EC2.
func (s *story) registeredAddresses(ctx context.Context) {
	t := s.teller
	t.Step(2, "The same pods' addresses are registered")
	told := t.Check("an init container in a and in b: EC2 knows their addresses when it has ended", func() (string, error) {
		return s.register(ctx, "a", "b")
	})
	if !told {
		t.Skip("other worker: a reaches b")
		return
	}
	s.reaches(ctx, "other worker: a reaches b", "a", "b")
	s.silent(ctx, "other worker: a2, which has no init container, still does not reach b", "a2", "b")
}

// register runs the init containers of pods, at the same time.
func (s *story) register(ctx context.Context, names ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	var inits []*container
	err := s.each(names, func(p *demoPod) error {
		c, err := s.startContainer(ctx, p, "initcontainer", "MULTUS_VPC_TIMEOUT=30s")
		inits = append(inits, c)
		return err
	})
	if err != nil {
		return "", err
	}
	for _, c := range inits {
		if err := c.end(ctx); err != nil {
			return "", err
		}
	}
	took := teller.Since(begin)
	return "all after " + took, s.each(names, func(p *demoPod) error { return s.ownedBy(p.nets[0].addr, p.worker) })
}

// ownedBy is nil when EC2 has the address on the ENIs of that worker alone.
func (s *story) ownedBy(a netip.Addr, worker string) error {
	var owners []string
	for name, id := range s.lab.Instances {
		if slices.Contains(s.secondaries(id), a) {
			owners = append(owners, name)
		}
	}
	if !slices.Equal(owners, []string{worker}) {
		return fmt.Errorf("EC2 has %s on %q, want on %s alone", a, owners, worker)
	}
	return nil
}

// floatingAddress is step 4: keepalived or Pacemaker moves an address, and the sidecars tell EC2.
func (s *story) floatingAddress(ctx context.Context) {
	t := s.teller
	t.Step(4, "A floating address moves from an active pod to its standby")
	vip := netip.MustParsePrefix("10.10.1.210/32")
	const watcher = "f" // on another subnet, so that every packet passes the VPC
	ready := t.Check("a takes "+vip.Addr().String()+", sidecars in a and b tell EC2: "+watcher+" reaches it at a", func() (string, error) {
		err := s.each([]string{"a", "b"}, func(p *demoPod) (err error) {
			p.sidecar, err = s.startContainer(ctx, p, "sidecar", "MULTUS_VPC_FLOATING="+vip.Addr().String())
			return err
		})
		if err != nil {
			return "", err
		}
		return s.takes(ctx, "a", vip, watcher)
	})
	if !ready {
		t.Skip("a gives it up and b takes it")
		return
	}
	t.Check("a gives it up and b takes it: "+watcher+" reaches it at b", func() (string, error) {
		begin := time.Now()
		if err := s.pods["a"].RemoveAddress("net1", vip); err != nil {
			return "", err
		}
		if _, err := s.takes(ctx, "b", vip, watcher); err != nil {
			return "", err
		}
		return fmt.Sprintf("out of reach for %d ms, of which EC2 takes %d", time.Since(begin).Milliseconds(), routeLag.Milliseconds()), nil
	})
	t.Check("the sidecars end: EC2 forgets the pods' own addresses", func() (string, error) { return s.giveBack(ctx, "a", "b") })
}

// takes configures a floating address in a pod and waits until another one reaches it.
func (s *story) takes(ctx context.Context, name string, vip netip.Prefix, watcher string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	p, from := s.pods[name], s.pods[watcher]
	if p == nil || from == nil {
		return "", fmt.Errorf("there is no pod %s or %s", name, watcher)
	}
	begin := time.Now()
	if err := p.AddAddress("net1", vip, netip.Addr{}); err != nil {
		return "", err
	}
	if _, err := pod.Ping(ctx, from.Netns, vip.Addr()); err != nil {
		return "", err
	}
	return "first reply after " + teller.Since(begin), s.ownedBy(vip.Addr(), p.worker)
}

// giveBack ends the sidecars of pods.
func (s *story) giveBack(ctx context.Context, names ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	err := s.each(names, func(p *demoPod) error {
		if err := p.sidecar.stop(ctx); err != nil {
			return err
		}
		if s.ownedBy(p.nets[0].addr, p.worker) == nil {
			return errors.New("EC2 still has " + p.nets[0].addr.String())
		}
		return nil
	})
	return "both after " + teller.Since(begin), err
}
