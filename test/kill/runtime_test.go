// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"errors"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// exec runs the plugin for a sandbox, and tells who waits when an ADD has returned an address.
func (n *node) exec(ctx context.Context, command string, s *stage.Sandbox) (*stage.Call, error) {
	c, err := n.runtime.Exec(ctx, command, s, nil)
	if err == nil && command == "ADD" {
		select {
		case n.answered <- struct{}{}:
		default:
		}
	}
	return c, err
}

// create brings a pod up as a kubelet does: a failed ADD is followed by DEL and a new sandbox. It gives up when the
// agent refuses, and says so in the number of refusals.
func (n *node) create(ctx context.Context, podName string) {
	const attempts = 3
	for range attempts {
		s, err := n.runtime.NewSandbox(podName, "")
		if err != nil {
			n.ground.fail("make a sandbox: %v", err)
			return
		}
		c, err := n.exec(ctx, "ADD", s)
		if err == nil {
			n.adopt(s, c)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, stage.ErrShot) {
			n.refused(err)
		}
		n.delete(ctx, s)
		n.bareAfterDel(s)
		n.removeNetns(s)
	}
}

// adopt takes in what ADD returned: the address is the pod's from now on.
func (n *node) adopt(s *stage.Sandbox, c *stage.Call) {
	r, err := stage.ParseResult(c.Stdout.Bytes())
	if err != nil {
		n.ground.fail("%v", err)
		return
	}
	s.Addr = r.Addr.Addr()
	n.ground.judge.Given(n.ground.ctx, stage.Carrier{Worker: n.name, Pod: s.Pod, ID: s.ID, ENI: n.eni}, n.dev, s.Addr, c.Ended)
	if n.wiring.Attach != nil {
		if err := n.wiring.Attach(n.netns, s.Path, r); err != nil {
			n.ground.fail("attach %s: %v", s.ID, err)
			return
		}
	}
	n.mu.Lock()
	n.live = append(n.live, s)
	n.mu.Unlock()
}

// ending is a way in which a pod ends.
type ending int

const (
	orderly   ending = iota // link removed, DEL, namespace removed
	delFirst                // DEL before the link is removed, as upstream ipvlan orders it
	twice                   // DEL, and DEL again
	netnsLost               // the namespace goes first, then DEL
	delLost                 // the namespace goes, and DEL never comes
	remade                  // the same, and at once another pod at the same path
	restarted               // orderly, and the same pod again
	numEndings
)

// remove ends a pod.
func (n *node) remove(ctx context.Context, s *stage.Sandbox, how ending) {
	if how != delFirst && how < netnsLost || how == restarted {
		n.detach(s)
	}
	n.ground.judge.Returned(s.Addr)
	switch how {
	case netnsLost:
		n.removeNetns(s)
		n.delete(ctx, s)
		return
	case delLost:
		n.removeNetns(s)
		return
	case remade:
		n.removeNetns(s)
		n.remake(ctx, s)
		return
	case twice:
		n.delete(ctx, s)
	}
	n.delete(ctx, s)
	if how == delFirst {
		n.detach(s)
	}
	n.bareAfterDel(s)
	n.removeNetns(s)
	if how == restarted && ctx.Err() == nil {
		n.create(ctx, s.Pod)
	}
}

// remake puts another pod's namespace where the lost one was.
func (n *node) remake(ctx context.Context, old *stage.Sandbox) {
	s, err := n.runtime.NewSandbox(n.runtime.PodName(), old.File)
	if err != nil {
		n.ground.fail("make a namespace at the path of another: %v", err)
		return
	}
	c, err := n.exec(ctx, "ADD", s)
	if err == nil {
		n.adopt(s, c)
		return
	}
	if !errors.Is(err, stage.ErrShot) && ctx.Err() == nil {
		n.refused(err)
	}
	n.delete(ctx, s)
	n.removeNetns(s)
}

// delete runs DEL until it has succeeded. It must at the first time, unless it is killed.
func (n *node) delete(ctx context.Context, s *stage.Sandbox) {
	for ctx.Err() == nil {
		_, err := n.exec(ctx, "DEL", s)
		if err == nil {
			return
		}
		if !errors.Is(err, stage.ErrShot) && ctx.Err() == nil {
			n.ground.fail("a DEL did not succeed: %v", err)
			return
		}
	}
}

func (n *node) detach(s *stage.Sandbox) {
	if n.wiring.Detach == nil || s.Gone {
		return
	}
	if err := n.wiring.Detach(s.Path); err != nil {
		n.ground.fail("detach %s: %v", s.ID, err)
	}
}

func (n *node) removeNetns(s *stage.Sandbox) {
	if err := n.runtime.RemoveNetns(s); err != nil {
		n.ground.fail("%v", err)
	}
}

// bareAfterDel demands that DEL left nothing of an interface in the namespace.
func (n *node) bareAfterDel(s *stage.Sandbox) {
	if s.Gone {
		return
	}
	look, err := pod.LookAt(s.Path)
	if err != nil {
		n.ground.fail("%v", err)
		return
	}
	if len(look.Links) != 1 || len(look.Addresses)+len(look.Routes)+len(look.Rules) > 0 {
		n.ground.fail("%s after DEL: %+v, want lo alone", s.Path, look)
	}
}

// takeLive picks a pod that runs, and takes it off the list: it is the caller's to end.
func (n *node) takeLive() *stage.Sandbox {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.live) == 0 {
		return nil
	}
	i := n.rng.IntN(len(n.live))
	s := n.live[i]
	n.live = append(n.live[:i], n.live[i+1:]...)
	return s
}

func (n *node) liveCount() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.live)
}

func (n *node) refused(err error) {
	n.refusals.Add(1)
	n.ground.note("refused: %v", err)
}
