// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ownership

import (
	"testing"

	"pgregory.net/rapid"
)

// TestOnlySeenOrUndoneBecomesStock: an address enters Free only by a read that showed it, by a hold that nobody got,
// or by the end of a cooldown: never by EC2's word alone.
func TestOnlySeenOrUndoneBecomesStock(t *testing.T) {
	allowed := map[Event]bool{Seen: true, Undelivered: true, Cooled: true, NotDone: true, Adopt: true}
	for from, to := range table {
		if to.next == Free && from.state != Free && !allowed[from.event] {
			t.Errorf("%s + %s becomes free", from.state, from.event)
		}
		if to.next == Free && from.event == NotDone && from.state != Unassigning {
			t.Errorf("%s + %s becomes free though it never was ours", from.state, from.event)
		}
	}
}

// TestHeldIsLeftOnlyWithCause: what an attachment holds is never given to another except through a release and its
// cooldown, or because the attachment never learnt of it.
func TestHeldIsLeftOnlyWithCause(t *testing.T) {
	want := map[Event]State{
		Seen: Held, Carried: Held, Restarted: Held,
		Release: Cooling, Rebooted: Cooling, Undelivered: Free, Unseen: Lost,
	}
	for _, e := range Events() {
		next, _, ok := Next(Held, e)
		w, allowed := want[e]
		if ok != allowed || (ok && next != w) {
			t.Errorf("held + %s = %s, %t; want %s, %t", e, next, ok, w, allowed)
		}
	}
}

// TestForeignIsNeverUnassigned: no chain of one event leads from somebody else's address to an unassign.
func TestForeignIsNeverUnassigned(t *testing.T) {
	for _, e := range Events() {
		if next, effect, _ := Next(Foreign, e); next == Unassigning || effect == SendUnassign {
			t.Errorf("foreign + %s = %s, %s", e, next, effect)
		}
	}
}

func TestNamesRoundTrip(t *testing.T) {
	for _, s := range States() {
		if got, ok := ParseState(s.String()); !ok || got != s {
			t.Errorf("ParseState(%q) = %s, %t", s, got, ok)
		}
	}
	if _, ok := ParseState("borrowed"); ok {
		t.Error("a state of another version was understood")
	}
}

// TestEveryStateSurvivesARestart: whatever the ledger says, a restarted agent has a rule for it, and none of the rules
// makes stock.
func TestEveryStateSurvivesARestart(t *testing.T) {
	for _, s := range States()[1:] {
		for _, e := range []Event{Restarted, Rebooted} {
			next, _, ok := Next(s, e)
			if !ok || next == Free {
				t.Errorf("%s + %s = %s, %t", s, e, next, ok)
			}
		}
	}
}

// TestReadsConverge: from any state, after the outstanding calls are answered a settled read leaves the belief equal
// to what the read said.
func TestReadsConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := None
		for _, e := range rapid.SliceOfN(rapid.SampledFrom(Events()), 0, 40).Draw(rt, "events") {
			if next, _, ok := Next(s, e); ok {
				s = next
			}
		}
		if next, _, ok := Next(s, Unseen); !ok || (next != None && next != Lost) {
			rt.Fatalf("%s + unseen = %s, %t: still believed to be on the ENI", s, next, ok)
		}
		if next, _, ok := Next(s, Seen); !ok || !next.OnENI() {
			rt.Fatalf("%s + seen = %s, %t: not believed to be on the ENI", s, next, ok)
		}
	})
}
