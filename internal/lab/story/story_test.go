// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
)

func TestTheScenarioIsValidAndItsLagIsTheStorys(t *testing.T) {
	s, err := scenario.Parse([]byte(theScenario))
	if err != nil {
		t.Fatal(err)
	}
	if s.EC2.Propagation.Route != routeLag {
		t.Errorf("route lag of the scenario %v, of the story %v", s.EC2.Propagation.Route, routeLag)
	}
}

func TestChecksAreCountedAndMarked(t *testing.T) {
	var out strings.Builder
	tell := newTeller(&out, false)
	tell.step(1, "A step")
	tell.check("what holds", func() (string, error) { return "42 ms", nil })
	tell.check("what does not", func() (string, error) { return "ignored", errors.New("two\nlines") })
	tell.skip("what cannot be told")
	column := func(what, measured string) string {
		return what + strings.Repeat(" ", measuredColumn-len(what)) + measured + "\n"
	}
	want := "\n1. A step\n" +
		"   ✓ " + column("what holds", "42 ms") +
		"   ✗ " + column("what does not", "two; lines") +
		"   ✗ " + column("what cannot be told", "not told: see above")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if tell.passed != 1 || tell.failed != 2 {
		t.Errorf("%d passed and %d failed, want 1 and 2", tell.passed, tell.failed)
	}
	s := &story{teller: tell}
	if err := s.verdict(); !errors.Is(err, ErrFailed) {
		t.Errorf("verdict %v, want ErrFailed", err)
	}
}

func TestATerminalSeesProgressAndColour(t *testing.T) {
	var out strings.Builder
	newTeller(&out, true).check("what holds", func() (string, error) {
		if !strings.Contains(out.String(), "… ") {
			t.Error("nothing is shown while the check runs")
		}
		return "", nil
	})
	if !strings.Contains(out.String(), restartLine) || !strings.Contains(out.String(), green+"✓"+plain) {
		t.Errorf("output %q", out.String())
	}
}

func TestRangesDrawRunsTogether(t *testing.T) {
	var addrs []netip.Addr
	for _, a := range []string{"10.0.0.9", "10.0.0.4", "10.0.0.3", "10.0.0.5", "10.0.1.0", "10.0.0.255"} {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if got, want := ranges(addrs), "10.0.0.3–5, 10.0.0.9, 10.0.0.255, 10.0.1.0"; got != want {
		t.Errorf("ranges = %q, want %q", got, want)
	}
}

func TestDurationsAreReadable(t *testing.T) {
	for d, want := range map[time.Duration]string{
		345678 * time.Nanosecond:  "300µs",
		12345 * time.Microsecond:  "12ms",
		2345 * time.Millisecond:   "2.3s",
		12345 * time.Millisecond:  "12s",
		1600 * time.Microsecond:   "1.6ms",
		99999 * time.Microsecond:  "100ms",
		123456 * time.Microsecond: "123ms",
	} {
		if got := round(d); got != want {
			t.Errorf("round(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestAPodThatIsMissingIsAFailureNotAPanic(t *testing.T) {
	var out strings.Builder
	s := &story{teller: newTeller(&out, false), pods: map[string]*demoPod{}, nodes: map[string]*node{}}
	s.reaches(t.Context(), "x reaches y", "x", "y")
	s.silent(t.Context(), "x does not reach y", "x", "y")
	s.answersAtOnce(t.Context(), "x answers", "x", netip.MustParseAddr("10.0.0.1"))
	s.tcp(t.Context(), "x connects to y", "x", "y")
	s.cooldown(t.Context())
	if s.teller.failed != 5 || s.teller.passed != 0 {
		t.Errorf("%d failed, %d passed, want 5 and 0:\n%s", s.teller.failed, s.teller.passed, out.String())
	}
}
