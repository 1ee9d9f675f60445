// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/drain"
	"github.com/multus-vpc/multus-vpc/internal/workereni"
)

func TestSettingsSayWhoseTheHooksAre(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change  map[string]string
		answers bool
		errs    []string // all of them
	}{
		"by default":           {answers: true},
		"ours":                 {change: map[string]string{"AnswerHooks": " True "}, answers: true},
		"of others":            {change: map[string]string{"AnswerHooks": "false"}},
		"neither":              {change: map[string]string{"AnswerHooks": "maybe"}, errs: []string{`AnswerHooks: "maybe" is neither true nor false`}},
		"wrong, with our hook": {change: map[string]string{"Owner": "", "DrainNodes": "x"}, answers: true, errs: []string{"owner: is missing", `DrainNodes: "x"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"Owner": "o", "SubnetIds": "subnet-0123456789abcdef0"}
			maps.Copy(env, tc.change)
			s := parse(func(name string) string { return env[name] })
			if s.answerHooks != tc.answers {
				t.Errorf("answers hooks: %t", s.answerHooks)
			}
			text := ""
			if s.err != nil {
				text = s.err.Error()
			}
			if (text == "") != (len(tc.errs) == 0) {
				t.Errorf("error %q", text)
			}
			for _, want := range tc.errs {
				if !strings.Contains(text, want) {
					t.Errorf("error %q lacks %q", text, want)
				}
			}
		})
	}
}

// TestTheREADMEHasEveryVariable, and no other.
func TestTheREADMEHasEveryVariable(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## Variables\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !found {
		t.Fatal("README.md has no section about variables")
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z0-9]+)` \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(documented)
	real := slices.Concat(workereni.Vars(), drain.Vars(), []string{varAnswerHooks})
	slices.Sort(real)
	if diff := cmp.Diff(slices.Compact(real), documented); diff != "" {
		t.Errorf("(-variables +README):\n%s", diff)
	}
}
