// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDependenciesAreAccountedFor: every module that our code imports itself has its line, and nothing else has.
func TestDependenciesAreAccountedFor(t *testing.T) {
	t.Parallel()
	doc := document{"docs/dependencies.md", read(t, "docs/dependencies.md")}
	for _, mod := range files(t, "*go.mod") {
		packages := imports
		if mod != "go.mod" {
			packages = func(t *testing.T) []string { return tools(t, mod) }
		}
		required := requirements(t, mod)
		direct := map[string]bool{}
		for _, p := range packages(t) {
			module := provider(required, p)
			if module == "" {
				t.Errorf("%s: no module of it provides %s", mod, p)
				continue
			}
			direct[module] = true
		}
		same(t, mod, firstColumn(doc.section(t, "## `"+mod+"`")), slices.Sorted(maps.Keys(direct)))
		for _, m := range indirect.FindAllStringSubmatch(read(t, mod), -1) {
			if mod == "go.mod" && direct[m[1]] {
				t.Errorf("%s says that %s is not imported: go mod tidy", mod, m[1])
			}
		}
	}
}

// imports are the packages outside of this module that its own code imports, tests included.
func imports(t *testing.T) []string {
	t.Helper()
	out := run(t, "go", "list", "-e", "-tags=ipvlan", "-json=Imports,TestImports,XTestImports", "./...")
	all := map[string]bool{}
	for decoder := json.NewDecoder(strings.NewReader(out)); ; {
		var p struct{ Imports, TestImports, XTestImports []string }
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if first, _, _ := strings.Cut(i, "/"); strings.Contains(first, ".") && !within(i, modulePath) {
				all[i] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

var (
	toolBlock   = regexp.MustCompile(`(?ms)^tool (?:\((.*?)^\)|(\S+))`)
	toolName    = regexp.MustCompile(`(?m)//.*$`) // scripts/tools.sh
	indirect    = regexp.MustCompile(`(?m)^\s*(\S+) v\S+ // indirect$`)
	requirement = regexp.MustCompile(`(?m)^(?:require )?\s*(\S+\.\S+) v\S+`)
)

// tools are the programs that a go.mod pins.
func tools(t *testing.T, mod string) []string {
	t.Helper()
	var pinned []string
	for _, m := range toolBlock.FindAllStringSubmatch(read(t, mod), -1) {
		pinned = append(pinned, strings.Fields(toolName.ReplaceAllString(m[1], "")+m[2])...)
	}
	if len(pinned) == 0 {
		t.Fatalf("%s pins no tools", mod)
	}
	return pinned
}

func requirements(t *testing.T, mod string) []string {
	t.Helper()
	var modules []string
	for _, m := range requirement.FindAllStringSubmatch(read(t, mod), -1) {
		modules = append(modules, m[1])
	}
	return modules
}

// provider is the module with the longest path that a package can be in.
func provider(modules []string, importPath string) (best string) {
	for _, m := range modules {
		if within(importPath, m) && len(m) > len(best) {
			best = m
		}
	}
	return best
}

// within reports whether path is base or below it.
func within(path, base string) bool { return path == base || strings.HasPrefix(path, base+"/") }
