// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package floors

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/multus-vpc/multus-vpc"

// root is the top of the tree, seen from this package's folder.
const root = "../.."

// maxLines is the longest that a file may be: beyond it, it holds two things.
const maxLines = 500

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath, Name, Dir              string
	Standard                           bool
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports                            []string
}

func (p *pkg) short() string { return strings.TrimPrefix(p.ImportPath, modulePath+"/") }

// load lists all packages of the module with all that they depend on.
func load(t *testing.T) map[string]*pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-tags=ipvlan",
		"-json=ImportPath,Name,Dir,Standard,GoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	packages := map[string]*pkg{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = &p
	}
}

// ours returns the module's own packages in order.
func ours(packages map[string]*pkg) []*pkg {
	var list []*pkg
	for path, p := range packages {
		if within(path, modulePath) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *pkg) int { return strings.Compare(a.ImportPath, b.ImportPath) })
	return list
}

// within reports whether path is the package base or below it.
func within(path, base string) bool {
	return path == base || strings.HasPrefix(path, base+"/")
}

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	t.Parallel()
	for _, p := range ours(load(t)) {
		files := p.GoFiles
		if len(files) == 0 {
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var found []string
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc == nil {
				continue
			}
			found = append(found, name)
			first, _, _ := strings.Cut(file.Doc.Text(), "\n")
			want := "Package " + p.Name + " "
			if p.Name == "main" {
				want = "Command " + filepath.Base(p.Dir) + " "
			}
			if !strings.HasPrefix(first, want) {
				t.Errorf("%s/%s: the package comment starts %q, want %q", p.short(), name, first, want)
			}
		}
		if len(found) != 1 {
			t.Errorf("%s: want exactly one package comment, found it in %q", p.short(), found)
		}
	}
}

// sources are the files of the tree that people wrote: tracked, or not ignored.
func sources(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var files []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil { // not deleted just now
			files = append(files, name)
		}
	}
	if len(files) < 10 {
		t.Fatalf("found only %d files", len(files))
	}
	return files
}

func TestSourcesCarryTheLicenceAndFitInMind(t *testing.T) {
	t.Parallel()
	for _, name := range sources(t) {
		isGo := strings.HasSuffix(name, ".go")
		if !isGo && !strings.HasSuffix(name, ".sh") && name != "Makefile" && name != ".ci/run" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		head := data[:min(len(data), 200)]
		if !bytes.Contains(head, []byte("SPDX-License-Identifier: Apache-2.0\n")) || !bytes.Contains(head, []byte("SPDX-FileCopyrightText: The multus-vpc authors\n")) {
			t.Errorf("%s: does not start with the two SPDX lines", name)
		}
		if lines := bytes.Count(data, []byte("\n")); isGo && lines > maxLines {
			t.Errorf("%s: %d lines, at most %d", name, lines, maxLines)
		}
	}
}

// TestNobodySleeps: a sleep cannot be cancelled and is either too short or too long. Tests may, inside synctest's
// bubbles, where it takes no time.
func TestNobodySleeps(t *testing.T) {
	t.Parallel()
	for _, name := range sources(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		bubbles := slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
		if bubbles && strings.HasSuffix(name, "_test.go") {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: time.Sleep: wait for the condition, and for the context", set.Position(n.Pos()))
				}
			}
			return true
		})
	}
}
