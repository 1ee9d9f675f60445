// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	docs := documents(t)
	for _, d := range docs {
		for _, m := range link.FindAllStringSubmatch(d.prose(), -1) {
			if problem := follow(docs, d, m[1]); problem != "" {
				t.Errorf("%s: link to %s: %s", d.path, m[1], problem)
			}
		}
	}
}

// follow says what is wrong with a link. Addresses of the web are only checked for their form.
func follow(docs []document, from document, target string) string {
	if rest, ok := strings.CutPrefix(target, "https://"); ok {
		if host, _, _ := strings.Cut(rest, "/"); !strings.Contains(host, ".") {
			return "no host"
		}
		return ""
	}
	if strings.Contains(target, ":") {
		return "neither https nor relative"
	}
	file, anchor, hasAnchor := strings.Cut(target, "#")
	to := from.path
	if file != "" {
		to = path.Join(path.Dir(from.path), file)
	}
	if _, err := os.Stat(filepath.Join(root, to)); err != nil {
		return "no such file"
	}
	if !hasAnchor {
		return ""
	}
	i := slices.IndexFunc(docs, func(d document) bool { return d.path == to })
	if i < 0 || !slices.Contains(docs[i].anchors(), anchor) {
		return "no such heading"
	}
	return ""
}

var (
	heading  = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	unanchor = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`)
)

// anchors are the names that GitHub gives to the headings.
func (d document) anchors() []string {
	var names []string
	for _, m := range heading.FindAllStringSubmatch(d.prose(), -1) {
		names = append(names, strings.ReplaceAll(unanchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

// alien are words of somebody's notes that say nothing to a reader of the project: unfinished work, and paths of a home.
var alien = regexp.MustCompile(`\bTODO\b|\bFIXME\b|\bXXX\b|/(home|root)/\w`)

func TestDocumentsSpeakOfTheProject(t *testing.T) {
	t.Parallel()
	for _, d := range documents(t) {
		for n, line := range strings.Split(d.text, "\n") {
			if word := alien.FindString(line); word != "" {
				t.Errorf("%s:%d: %q", d.path, n+1, word)
			}
		}
	}
}
