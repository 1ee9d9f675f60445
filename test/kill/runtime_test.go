// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package kill

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/test/stage"
)

// sandbox is one life of a pod: a container ID and a network namespace.
type sandbox struct {
	pod  string // the pod's name, which outlives the sandbox
	id   string
	file string     // of the namespace, in its worker's folder
	path string     // the same, as the tests see it
	addr netip.Addr // what ADD returned; invalid before
	gone bool       // the namespace is no more
}

// newSandbox makes a namespace for a pod, in the file of that name, or of the container ID.
func (n *node) newSandbox(podName, file string) (*sandbox, error) {
	s := &sandbox{pod: podName, id: fmt.Sprintf("%s-%d", podName, n.serial.Add(1)), file: file}
	if file == "" {
		s.file = s.id
	}
	var err error
	if s.path, err = n.place.Create(s.file); err != nil {
		return nil, err
	}
	return s, nil
}

// cniNetns is what the runtime says in CNI_NETNS: nothing when it knows that the namespace is gone.
func (n *node) cniNetns(s *sandbox) string {
	if s.gone {
		return ""
	}
	return n.place.Inside(s.file)
}

// create brings a pod up as a kubelet does: a failed ADD is followed by DEL and a new sandbox. It gives up when the
// agent refuses, and says so in the number of refusals.
func (n *node) create(ctx context.Context, podName string) {
	const attempts = 3
	for range attempts {
		s, err := n.newSandbox(podName, "")
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
		if !errors.Is(err, errShot) {
			n.refused(err)
		}
		n.delete(ctx, s)
		n.bareAfterDel(s)
		n.removeNetns(s)
	}
}

// adopt takes in what ADD returned: the address is the pod's from now on.
func (n *node) adopt(s *sandbox, c *call) {
	r, err := stage.ParseResult(c.stdout.Bytes())
	if err != nil {
		n.ground.fail("%v", err)
		return
	}
	s.addr = r.Addr.Addr()
	n.ground.judge.given(n, s, c.ended)
	if n.wiring.Attach != nil {
		if err := n.wiring.Attach(n.netns, s.path, r); err != nil {
			n.ground.fail("attach %s: %v", s.id, err)
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
func (n *node) remove(ctx context.Context, s *sandbox, how ending) {
	if how != delFirst && how < netnsLost || how == restarted {
		n.detach(s)
	}
	n.ground.judge.returned(s)
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
		n.create(ctx, s.pod)
	}
}

// remake puts another pod's namespace where the lost one was.
func (n *node) remake(ctx context.Context, old *sandbox) {
	s, err := n.newSandbox(n.podName(), old.file)
	if err != nil {
		n.ground.fail("make a namespace at the path of another: %v", err)
		return
	}
	c, err := n.exec(ctx, "ADD", s)
	if err == nil {
		n.adopt(s, c)
		return
	}
	if !errors.Is(err, errShot) && ctx.Err() == nil {
		n.refused(err)
	}
	n.delete(ctx, s)
	n.removeNetns(s)
}

// delete runs DEL until it has succeeded. It must at the first time, unless it is killed.
func (n *node) delete(ctx context.Context, s *sandbox) {
	for ctx.Err() == nil {
		_, err := n.exec(ctx, "DEL", s)
		if err == nil {
			return
		}
		if !errors.Is(err, errShot) && ctx.Err() == nil {
			n.ground.fail("a DEL did not succeed: %v", err)
			return
		}
	}
}

func (n *node) detach(s *sandbox) {
	if n.wiring.Detach == nil || s.gone {
		return
	}
	if err := n.wiring.Detach(s.path); err != nil {
		n.ground.fail("detach %s: %v", s.id, err)
	}
}

func (n *node) removeNetns(s *sandbox) {
	s.gone = true
	if err := n.place.Remove(s.file); err != nil {
		n.ground.fail("%v", err)
	}
}

// bareAfterDel demands that DEL left nothing of an interface in the namespace.
func (n *node) bareAfterDel(s *sandbox) {
	if s.gone {
		return
	}
	look, err := pod.LookAt(s.path)
	if err != nil {
		n.ground.fail("%v", err)
		return
	}
	if len(look.Links) != 1 || len(look.Addresses)+len(look.Routes)+len(look.Rules) > 0 {
		n.ground.fail("%s after DEL: %+v, want lo alone", s.path, look)
	}
}

// takeLive picks a pod that runs, and takes it off the list: it is the caller's to end.
func (n *node) takeLive() *sandbox {
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
