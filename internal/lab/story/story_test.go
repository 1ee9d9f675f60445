// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/scenario"
	"github.com/multus-vpc/multus-vpc/internal/lab/teller"
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

func TestAVerdictCountsWhatDidNotHold(t *testing.T) {
	s := &story{teller: teller.New(io.Discard, false)}
	if err := s.verdict(); err != nil {
		t.Errorf("verdict %v of a story without a failure", err)
	}
	s.teller.Skip("what cannot be told")
	if err := s.verdict(); !errors.Is(err, ErrFailed) {
		t.Errorf("verdict %v, want ErrFailed", err)
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

func TestAPodThatIsMissingIsAFailureNotAPanic(t *testing.T) {
	var out strings.Builder
	s := &story{teller: teller.New(&out, false), pods: map[string]*demoPod{}, nodes: map[string]*node{}}
	s.reaches(t.Context(), "x reaches y", "x", "y")
	s.silent(t.Context(), "x does not reach y", "x", "y")
	s.answersAtOnce(t.Context(), "x answers", "x", netip.MustParseAddr("10.0.0.1"))
	s.tcp(t.Context(), "x connects to y", "x", "y")
	s.cooldown(t.Context())
	if s.teller.Failed() != 5 || s.teller.Passed() != 0 {
		t.Errorf("%d failed, %d passed, want 5 and 0:\n%s", s.teller.Failed(), s.teller.Passed(), out.String())
	}
}
