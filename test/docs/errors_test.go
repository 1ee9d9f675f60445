// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const troubleshooting = "docs/troubleshooting.md"

// products are the folders whose errors reach users.
var products = []string{
	"agent", "internal/agentapi", "internal/asghooks", "internal/attachment", "internal/cluster", "internal/drain", "internal/ec2eni", "internal/ekstoken", "internal/eni", "internal/guard", "internal/imds", "internal/kube", "internal/kubedrain", "internal/ledger", "internal/lifecycle",
	"internal/link", "internal/migrate", "internal/neighbour", "internal/netconf", "internal/netns", "internal/podlink", "internal/podprogram", "internal/podsync", "internal/pool", "internal/selection", "internal/sweep", "internal/tombstone", "internal/workereni", "internal/workerhook", "lambda",
	"injector", "internal/certs", "internal/inject", "internal/kubeinject", "internal/webhook",
	"plugins/internal/ipam",
	"plugins/internal/process", "plugins/vpcipam", "plugins/vpcipvlan", "vpcctl",
}

// makers say where an error's words stand: the argument of a call, or anywhere in a literal of a type.
var (
	makers = map[string]int{
		"fmt.Errorf": 0, "errors.New": 0, "types.NewError": 1, "r.invalid": 1, "r.unsupported": 1, "r.add": 2, "o.r.invalid": 1, "o.r.unsupported": 1,
		"invalidEnv": 1, "say": 0, "lacks": 0, "p.add": 2, "add": 1,
	}
	literals = []string{"Refusal", "failure", "Error", "agentapi.Error"}
)

// TestEveryErrorIsExplained: the words of each error that the product can make have a row in the page, and each row is
// about words that there are. A new error without a row fails here.
func TestEveryErrorIsExplained(t *testing.T) {
	t.Parallel()
	real := map[string]string{} // words, where
	for _, dir := range products {
		for _, file := range files(t, dir+"/*.go") {
			if path.Dir(file) != dir || strings.HasSuffix(file, "_test.go") {
				continue
			}
			for words, line := range errorsIn(t, file) {
				real[words] = file + ":" + strconv.Itoa(line)
			}
		}
	}
	if len(real) < 150 {
		t.Errorf("found only %d errors", len(real))
	}
	doc := document{troubleshooting, read(t, troubleshooting)}
	documented := errorRows(t, doc)
	for words, where := range real {
		if !slices.Contains(documented, words) {
			t.Errorf("%s has no row for `%s` (%s)", doc.path, words, where)
		}
	}
	for _, words := range documented {
		if real[words] == "" {
			t.Errorf("%s: nothing says `%s`", doc.path, words)
		}
	}
}

// errorRow is a row of a table of errors: words, what they mean, and what to do.
var (
	errorRow  = regexp.MustCompile("(?m)^\\| (`` .+ ``) \\| (.*) \\| (.*) \\|$")
	errorSpan = regexp.MustCompile("`` (.+?) ``")
)

func errorRows(t *testing.T, doc document) (words []string) {
	for _, m := range errorRow.FindAllStringSubmatch(doc.text, -1) {
		if strings.TrimSpace(m[2]) == "" || strings.TrimSpace(m[3]) == "" {
			t.Errorf("%s: `%s` has no meaning, or nothing to do", doc.path, m[1])
		}
		for _, span := range errorSpan.FindAllStringSubmatch(m[1], -1) {
			if slices.Contains(words, span[1]) {
				t.Errorf("%s: `%s` is there twice", doc.path, span[1])
			}
			words = append(words, span[1])
		}
	}
	return words
}

// errorsIn lists the words of the errors that a file makes, with a line of each.
func errorsIn(t *testing.T, file string) map[string]int {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, filepath.Join(root, file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		var texts []string
		switch n := n.(type) {
		case *ast.CallExpr:
			if arg, ok := makers[nameOf(n.Fun)]; ok && arg < len(n.Args) {
				texts = textsIn(n.Args[arg])
			}
			if nameOf(n.Fun) == "append" && nameOf(n.Args[0]) == "reasons" {
				texts = textsIn(n.Args[1])
			}
		case *ast.FuncDecl: // what words a failure
			if strings.HasPrefix(n.Name.Name, "word") {
				ast.Inspect(n.Body, func(n ast.Node) bool {
					if call, ok := n.(*ast.CallExpr); ok && nameOf(call.Fun) == "fmt.Sprintf" {
						texts = append(texts, textsIn(call)...)
					}
					return true
				})
			}
		case *ast.CompositeLit:
			if slices.Contains(literals, nameOf(n.Type)) {
				for _, e := range n.Elts {
					texts = append(texts, textsIn(e)...)
				}
			}
		}
		for _, text := range texts {
			if words := fixedWords(text); words != "" {
				found[words] = set.Position(n.Pos()).Line
			}
		}
		return true
	})
	return found
}

// nameOf is an expression of names as it is written: r.invalid.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return nameOf(e.X) + "." + e.Sel.Name
	}
	return ""
}

// textsIn is the text of an expression: a literal, a sum of them, or the format of a Sprintf.
func textsIn(e ast.Expr) []string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return []string{s}
		}
	case *ast.BinaryExpr:
		if left, right := textsIn(e.X), textsIn(e.Y); len(left) > 0 || len(right) > 0 {
			return []string{strings.Join(append(left, right...), "")}
		}
	case *ast.KeyValueExpr:
		return textsIn(e.Value)
	case *ast.CallExpr:
		if nameOf(e.Fun) == "fmt.Sprintf" && len(e.Args) > 0 {
			return textsIn(e.Args[0])
		}
	}
	return nil
}

var (
	verb  = regexp.MustCompile(`%(?:\[\d+\])?[-+#0 ]*\d*[a-zA-Z]`)
	words = regexp.MustCompile(`\pL{2,}`)
)

// fixedWords is what stays the same in an error, before what to do about it: "…" stands for what changes. It is empty
// for an error that has no words of its own.
func fixedWords(format string) string {
	text, _, _ := strings.Cut(strings.ReplaceAll(verb.ReplaceAllString(format, "…"), "%%", "%"), ";")
	text = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), ": …"))
	if len(words.FindAllString(text, 2)) < 2 {
		return ""
	}
	return text
}
