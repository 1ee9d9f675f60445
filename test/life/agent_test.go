// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
)

func TestDelWhileTheAgentIsAwayFreesOnce(t *testing.T) {
	const cooldown = 2 * time.Second
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(cooldown))
	s := n.sandbox("web")
	addr := n.add(s)

	n.must(n.Stop())
	n.del(s)
	n.del(s) // runtimes repeat it
	if notes := n.tombstones(); len(notes) != 1 {
		t.Fatalf("notes for the agent: %q, want one", notes)
	}
	n.start(brief(cooldown))
	n.until("the agent has taken the note", func() bool { return len(n.tombstones()) == 0 })
	n.becomes(addr, "free")

	// The same attachment again. What the note said is over, also for the next agent.
	n.add(s)
	n.must(n.Stop())
	n.start(brief(cooldown))
	status, err := n.Status(n.ctx)
	n.must(err)
	if got := len(status.Attachments); got != 1 || status.Attachments[0].State != "held" {
		t.Errorf("attachments after another restart: %+v, want the one held", status.Attachments)
	}
	if got := strings.Count(n.Log(), "DEL while the agent was away"); got != 1 {
		t.Errorf("the note released %d times, want once", got)
	}
}

func TestAddMeetsTheDelThatNobodyHeard(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	s := n.sandbox("web")
	addr := n.add(s)
	n.must(n.Stop())
	n.del(s)
	n.must(s.Delete())

	// The same container ID in another namespace: without the note that is an attachment which must be DELeted first.
	n.must(n.Start(brief(longCooldown)))
	again := n.sandboxAt(s.Name, s.id, s.name)
	if got := n.add(again); got != addr {
		t.Errorf("the pod got %s, want its own %s back", got, addr)
	}
	if notes := n.tombstones(); len(notes) != 0 {
		t.Errorf("notes that stay: %q", notes)
	}
}

func (n *node) tombstones() []string {
	n.t.Helper()
	notes, err := n.Tombstones()
	n.must(err)
	return notes
}

func TestKilledAgentKeepsWhatIsHeld(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	one, two := n.sandbox("one"), n.sandbox("two")
	result := n.call(n.Worker, "ADD", one, "")
	prefix, err := result.Address()
	n.must(err)
	addr := prefix.Addr()
	released := n.add(two)
	n.del(two)

	n.Kill()
	n.start(brief(longCooldown))
	n.is(addr, held(one))
	n.is(released, cooling(two))
	if err := n.call(n.Worker, "CHECK", one, `, "prevResult": `+string(result.Stdout)).Err(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if got := n.add(one); got != addr {
		t.Errorf("a repeated ADD got %s, want %s as before", got, addr)
	}
	if got := n.add(n.sandbox("three")); got == addr || got == released {
		t.Errorf("another pod got %s, which is not free", got)
	}
}

func TestSecondAgentOnAStateDirectoryIsRefused(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	code, said, err := n.RunAgent(n.ctx, brief(longCooldown))
	n.must(err)
	if want := "another agent works with " + n.StateDir(); code != 1 || !strings.Contains(said, want) {
		t.Errorf("the second agent: exit status %d, %q; want 1 and %q", code, said, want)
	}
	n.add(n.sandbox("web")) // the first one still serves
}

func TestLedgerOfAnotherInstanceIsSetAside(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	addr := n.add(n.sandbox("web"))
	n.must(n.Stop())
	before := n.onENI("worker-1")

	// An image of worker-1's disk starts as worker-2.
	other := n.worker("worker-2")
	n.must(os.CopyFS(other.StateDir(), os.DirFS(n.StateDir())))
	n.must(other.Start(brief(longCooldown)))
	status, err := other.Status(n.ctx)
	n.must(err)
	if len(status.Attachments) > 0 {
		t.Errorf("the other instance's attachments are taken over: %+v", status.Attachments)
	}
	aside := filepath.Join(other.StateDir(), fmt.Sprintf("ledger.%s", n.lab.Instances["worker-1"]))
	if _, err = os.Stat(aside); err != nil {
		t.Errorf("the other instance's ledger: %v", err)
	}
	if !strings.Contains(other.Log(), "another instance's and is set aside") {
		t.Errorf("the agent does not say so:\n%s", other.Log())
	}
	got, err := n.call(other, "ADD", n.sandbox("web"), "").Address()
	n.must(err)
	if got.Addr() == addr || !slices.Contains(n.onENI("worker-2"), got.Addr()) {
		t.Errorf("the pod got %s, want one of worker-2's %v", got.Addr(), n.onENI("worker-2"))
	}
	if after := n.onENI("worker-1"); !slices.Equal(before, after) {
		t.Errorf("worker-1 had %v, and now has %v", before, after)
	}
}

// TestTwoAgentsOnOneSocket: each has a state directory of its own, as after a mistake in a manifest.
func TestTwoAgentsOnOneSocket(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(longCooldown))
	addr := n.add(n.sandbox("web"))
	code, said, err := n.RunAgent(n.ctx, brief(longCooldown), "--state-dir", filepath.Join(n.Dir, "other-state"))
	n.must(err)
	if want := "another agent listens on " + n.Socket(); code != 1 || !strings.Contains(said, want) {
		t.Errorf("the second agent: exit status %d, %q; want 1 and %q", code, said, want)
	}
	if got := n.add(n.sandbox("next")); got == addr {
		t.Errorf("both pods got %s", got)
	}
}

// TestDamagedLedger: what the records said is found again in EC2 and in the namespaces, or is nobody's.
func TestDamagedLedger(t *testing.T) {
	for name, harm := range map[string]func(text []byte) []byte{
		"tail cut off":     func(text []byte) []byte { return text[:len(text)-7] },
		"zeros at the end": func(text []byte) []byte { return append(text, make([]byte, 4096)...) },
		"header damaged":   func(text []byte) []byte { return append([]byte("x"), text[1:]...) },
		"both headers damaged": func(text []byte) []byte {
			lines := bytes.SplitAfter(text, []byte("\n"))
			return append([]byte("what is this\n\n"), bytes.Join(lines[2:], nil)...)
		},
		"another file": func([]byte) []byte { return []byte("\x7fELF\n\x00\n") },
		"empty":        func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
			n.start(brief(time.Second))
			first := n.sandbox("web")
			addr := n.add(first)
			n.carry(first, addr) // what a namespace carries is held whatever the ledger says
			n.Kill()
			file := filepath.Join(n.StateDir(), "ledger")
			text, err := os.ReadFile(file)
			n.must(err)
			n.must(os.WriteFile(file, harm(text), 0o600))
			n.start(brief(time.Second))
			for _, s := range []string{"a", "b", "c"} {
				if got := n.add(n.sandbox(s)); got == addr {
					t.Errorf("another pod got %s, which a namespace carries", got)
				}
			}
			n.del(first)
			n.must(first.Delete())
			n.becomes(addr, "free")
		})
	}
}

// TestAgentWithoutTheFolderOfNamespaces: a manifest lacks the mount, and to the agent the folder is there and empty.
func TestAgentWithoutTheFolderOfNamespaces(t *testing.T) {
	n := up(t, twoWorkers("m5.2xlarge", "early"), vpcipam)
	n.start(brief(time.Second))
	one, two := n.sandbox("one"), n.sandbox("two")
	first, second := n.add(one), n.add(two)
	n.Kill()
	n.must(n.Overmount("/run/netns", 4096))
	n.start(brief(time.Second))
	n.must(n.Await(n.ctx, func(s *agentapi.Status) string {
		if !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "no network namespace in /run/netns") }) {
			return fmt.Sprintf("the problem; there are %q", s.Problems)
		}
		return ""
	}))
	unseen := n.sandbox("three")
	third := n.add(unseen)
	n.is(first, held(one))
	n.is(second, held(two))
	n.del(one)
	n.becomes(first, "free")
	n.del(unseen)
	n.becomes(third, "free")
	n.is(second, held(two))
}
