// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/pool"
)

// attempt is one sandbox of a pod whose last attachment fails: what became of it, and how long the kubelet waits.
type attempt struct {
	added   int           // attachments that were added before one failed
	lost    int           // DELs that were lost, from the first on
	twice   bool          // the others came twice
	restart bool          // the agent is killed before the DELs
	pause   time.Duration // until the next attempt
}

// A pod that is made over and over, with a sandbox of its own each time, never has more addresses than attachments.
func TestFailingSandboxesConsumeNoMoreThanOne(t *testing.T) {
	const attachments, attempts = 8, 8
	draw := func(t *rapid.T) []attempt {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) attempt {
			added := rapid.IntRange(0, attachments-1).Draw(t, "added")
			return attempt{
				added: added, lost: rapid.IntRange(0, added).Draw(t, "lost"), twice: rapid.Bool().Draw(t, "twice"),
				restart: rapid.IntRange(0, 9).Draw(t, "restart") == 0,
				pause:   time.Duration(rapid.IntRange(0, 45_000).Draw(t, "pause")) * time.Millisecond,
			}
		}), attempts, attempts).Draw(t, "attempts")
	}
	rapid.Check(t, func(rt *rapid.T) {
		plan := draw(rt)
		var problem string
		synctest.Test(t, func(t *testing.T) {
			problem = failOver(t, plan, attachments)
		})
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// inUse is how many addresses of the worker somebody has or had a moment ago.
func (n *node) inUse() int {
	used := 0
	for _, state := range n.states() {
		if state == "held" || state == "cooling" {
			used++
		}
	}
	return used
}

// failOver plays the attempts beside a pod that runs, and says what went wrong.
func failOver(t *testing.T, plan []attempt, attachments int) string {
	w := newWorld(t, twoWorkers)
	w.log = slog.New(slog.DiscardHandler)
	n := w.worker("worker-1", func(c *pool.Config) { c.WarmIPTarget, c.MinimumIPTarget = 1, 10 })
	defer func() { n.stop() }()
	bystander := n.pod("bystander")
	n.mustAdd(bystander, any1())
	for try, step := range plan {
		sandbox := n.netns.add(fmt.Sprintf("/run/netns/try-%d", try))
		var added []attachment.Attachment
		for i := range step.added {
			a := attachment.Attachment{
				Key: attachment.Key{ContainerID: fmt.Sprintf("try-%d", try), IfName: fmt.Sprintf("net%d", i+1)}, Network: fmt.Sprintf("n%d", i+1),
				Pod: attachment.Pod{Namespace: "default", Name: "web-0", UID: "u1"}, Netns: sandbox,
			}
			if _, err := n.add(a, any1()); err != nil {
				return fmt.Sprintf("attempt %d: ADD of %s: %v", try, a.IfName, err)
			}
			added = append(added, a)
			if got := n.inUse() - 1; got >= attachments {
				return fmt.Sprintf("attempt %d, %s added: the pod has %d addresses", try, a.IfName, got)
			}
		}
		if step.restart {
			n.crash()
		}
		n.netns.remove(sandbox.Path)
		for i, a := range slices.Backward(added) {
			for range 1 + map[bool]int{true: 1}[step.twice] {
				if i >= step.lost {
					if err := n.Del(a.Key); err != nil {
						return fmt.Sprintf("attempt %d: DEL of %s: %v", try, a.IfName, err)
					}
				}
			}
		}
		time.Sleep(step.pause)
	}
	eventually(t, 5*time.Minute, "what is left is free", func() bool { return n.inUse() == 1 })
	time.Sleep(5 * time.Minute) // surplus goes back
	w.agree(n)
	return ""
}
