// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the top of the tree, seen from this package's folder.
const root = "../.."

const modulePath = "github.com/multus-vpc/multus-vpc"

// document is one Markdown file.
type document struct {
	path string // from root
	text string
}

// documents are the Markdown files of the tree that are tracked, or not ignored.
func documents(t *testing.T) []document {
	t.Helper()
	var docs []document
	for _, path := range files(t, "*.md") {
		docs = append(docs, document{path, read(t, path)})
	}
	if len(docs) < 10 {
		t.Fatalf("found only %d documents", len(docs))
	}
	return docs
}

// files lists the files of the tree that match a pattern of git.
func files(t *testing.T, pattern string) []string {
	t.Helper()
	out := run(t, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern)
	var paths []string
	for path := range strings.SplitSeq(strings.TrimRight(out, "\x00"), "\x00") {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil && !slices.Contains(paths, path) { // not deleted just now
			paths = append(paths, path)
		}
	}
	return paths
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// run runs a program at the top of the tree and returns what it prints to standard output.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, &stderr)
	}
	return string(out)
}

// fence is a fenced block of code: its info string and its text.
var fence = regexp.MustCompile("(?ms)^ *```([^\n]*)\n(.*?)^ *```$")

// code returns the blocks of code whose info string is info.
func (d document) code(info string) []string {
	var blocks []string
	for _, m := range fence.FindAllStringSubmatch(d.text, -1) {
		if strings.TrimSpace(m[1]) == info {
			blocks = append(blocks, m[2])
		}
	}
	return blocks
}

// prose is the text without blocks of code.
func (d document) prose() string { return fence.ReplaceAllString(d.text, "") }

// section is what stands under a heading, up to the next heading of the same or a higher level.
func (d document) section(t *testing.T, heading string) string {
	t.Helper()
	_, after, found := strings.Cut("\n"+d.text, "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", d.path, heading)
	}
	level, _, _ := strings.Cut(heading, " ")
	next := regexp.MustCompile("(?m)^#{1," + string(rune('0'+len(level))) + "} ")
	if at := next.FindStringIndex(after); at != nil {
		after = after[:at[0]]
	}
	return after
}

// firstColumn lists the code spans that fill the first cell of the rows of the tables in text.
func firstColumn(text string) []string {
	var cells []string
	for line := range strings.Lines(text) {
		if m := rowStart.FindStringSubmatch(line); m != nil {
			cells = append(cells, m[1])
		}
	}
	return cells
}

var rowStart = regexp.MustCompile("^\\| `([^`]+)` *\\|")

// same compares two sets and names what differs.
func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	for _, d := range documented {
		if !slices.Contains(real, d) {
			t.Errorf("%s: %q is documented and does not exist", what, d)
		}
	}
	for _, r := range real {
		if !slices.Contains(documented, r) {
			t.Errorf("%s: %q exists and is not documented", what, r)
		}
	}
	if len(documented) != len(slices.Compact(slices.Sorted(slices.Values(documented)))) {
		t.Errorf("%s: something is documented twice: %q", what, documented)
	}
}
