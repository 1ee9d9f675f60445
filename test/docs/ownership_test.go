// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/ownership"
)

var update = flag.Bool("update", false, "print the tables of docs/ownership.md anew")

const ownershipDoc = "docs/ownership.md"

// printed is a part of the document that is printed from the table: "<!-- free -->", what is printed, "<!-- /free -->".
var printed = regexp.MustCompile(`(?s)<!-- ([a-z]+) -->\n.*?<!-- /[a-z]+ -->`)

func TestOwnershipTableIsTheCodes(t *testing.T) {
	t.Parallel()
	have := read(t, ownershipDoc)
	var states []string
	want := printed.ReplaceAllStringFunc(have, func(part string) string {
		name := printed.FindStringSubmatch(part)[1]
		states = append(states, name)
		s, ok := ownership.ParseState(name)
		if !ok {
			t.Errorf("%s: there is no state %q", ownershipDoc, name)
		}
		return fmt.Sprintf("<!-- %s -->\n%s<!-- /%s -->", name, transitions(s), name)
	})
	var real []string
	for _, s := range ownership.States() {
		real = append(real, s.String())
	}
	if !slices.Equal(states, real) {
		t.Errorf("%s prints the states %q, want %q", ownershipDoc, states, real)
	}
	if *update && want != have {
		if err := os.WriteFile(filepath.Join(root, ownershipDoc), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(have, want); diff != "" {
		t.Errorf("%s is not the table's; go test ./test/docs -update prints it anew (-document +table):\n%s", ownershipDoc, diff)
	}
}

// transitions prints what can happen in a state.
func transitions(s ownership.State) string {
	var b strings.Builder
	b.WriteString("\n| Event | Becomes | Effect |\n|---|---|---|\n")
	for _, e := range ownership.Events() {
		next, effect, ok := ownership.Next(s, e)
		if !ok {
			continue
		}
		becomes := "**" + next.String() + "**"
		if next == s {
			becomes = "stays"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", e, becomes, effect)
	}
	b.WriteString("\n")
	return b.String()
}

func TestEventsAreExplained(t *testing.T) {
	t.Parallel()
	doc := document{ownershipDoc, read(t, ownershipDoc)}
	var real []string
	for _, e := range ownership.Events() {
		real = append(real, e.String())
	}
	same(t, "events", firstColumn(doc.section(t, "## Events")), real)
}
