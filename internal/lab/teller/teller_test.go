// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package teller

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChecksAreCountedAndMarked(t *testing.T) {
	var out strings.Builder
	tell := New(&out, false)
	tell.Step(1, "A step")
	tell.Check("what holds", func() (string, error) { return "42 ms", nil })
	tell.Check("what does not", func() (string, error) { return "ignored", errors.New("two\nlines") })
	tell.Skip("what cannot be told")
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
	if tell.Passed() != 1 || tell.Failed() != 2 {
		t.Errorf("%d passed and %d failed, want 1 and 2", tell.Passed(), tell.Failed())
	}
}

func TestATerminalSeesProgressAndColour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		New(&out, true).Watch("what holds", func(progress func(string)) (string, error) {
			if !strings.Contains(out.String(), "… ") {
				t.Error("nothing is shown while the check runs")
			}
			progress("1 of 3")
			progress("too soon to be read")
			time.Sleep(progressInterval)
			progress("2 of 3")
			return "3 of 3", nil
		})
		for _, want := range []string{restartLine, green + "✓" + plain, "1 of 3", "2 of 3", "3 of 3"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("output %q lacks %q", out.String(), want)
			}
		}
		if strings.Contains(out.String(), "too soon") {
			t.Errorf("output %q", out.String())
		}
	})
}

func TestProgressFitsIntoANarrowTerminal(t *testing.T) {
	long := strings.Repeat("é", 90)
	for _, tc := range []struct{ what, text, want string }{
		{"what", "1 of 3", "what  1 of 3"},
		{long, "1 of 3", strings.Repeat("é", 63) + "…  1 of 3"},
		{"what", long, "…  " + long},
	} {
		if got := beside(tc.what, tc.text); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestAFileSeesNoProgress(t *testing.T) {
	var out strings.Builder
	New(&out, false).Watch("what holds", func(progress func(string)) (string, error) {
		progress("1 of 3")
		return "", nil
	})
	if got, want := out.String(), "   ✓ what holds\n"; got != want {
		t.Errorf("output %q, want %q", got, want)
	}
}

func TestTablesAreAligned(t *testing.T) {
	var out strings.Builder
	New(&out, false).Table([][]string{{"A", "B", "C"}, {"long", "", "x"}, {"1", "two", ""}})
	want := "\n   A     B    C\n   long       x\n   1     two\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
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
		if got := Round(d); got != want {
			t.Errorf("Round(%v) = %s, want %s", d, got, want)
		}
	}
}
