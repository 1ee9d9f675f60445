// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var decisionHeadings = []string{
	"Context", "Choice", "What we gave up", "How we would notice that it was wrong", "Sources",
}

// onePage is how many lines a decision may take.
const onePage = 70

func TestDecisionsHaveTheirForm(t *testing.T) {
	t.Parallel()
	index := read(t, "docs/adr/README.md")
	number := 0
	for _, path := range files(t, "docs/adr/0*.md") {
		number++
		name := strings.TrimPrefix(path, "docs/adr/")
		text := read(t, path)
		if !strings.HasPrefix(name, fmt.Sprintf("%04d-", number)) || !strings.HasPrefix(text, fmt.Sprintf("# %d. ", number)) {
			t.Errorf("%s: want number %d in its name and its title", path, number)
		}
		var headings []string
		for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(text, -1) {
			headings = append(headings, m[1])
		}
		if !slices.Equal(headings, decisionHeadings) {
			t.Errorf("%s: headings %q, want %q", path, headings, decisionHeadings)
		}
		if _, sources, _ := strings.Cut(text, "## Sources"); !strings.Contains(sources, "](https://") {
			t.Errorf("%s: names no public source", path)
		}
		if lines := strings.Count(text, "\n"); lines > onePage {
			t.Errorf("%s: %d lines are more than a page", path, lines)
		}
		if !strings.Contains(index, "("+name+")") {
			t.Errorf("%s: not listed in docs/adr/README.md", path)
		}
	}
	if number == 0 {
		t.Error("found no decisions")
	}
}
