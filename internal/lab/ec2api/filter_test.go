// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ec2api

import (
	"regexp"
	"strings"
	"testing"
)

func TestWildcardsOfFilterValues(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"worker-*", "worker-1", true},
		{"worker-*", "worker", false},
		{"*", "", true},
		{"?", "", false},
		{"w?rker", "worker", true},
		{"*-1", "worker-1", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{`\*`, "*", true},
		{`\*`, "x", false},
		{`a\?`, "a?", true},
		{`a\?`, "ab", false},
		{`\\`, `\`, true},
		{"Worker", "worker", false},
	} {
		if got := matcher([]string{"other", c.pattern})(c.s); got != c.want {
			t.Errorf("%q matches %q: %v, want %v", c.pattern, c.s, got, c.want)
		}
	}
}

// FuzzWildcard compares with the regular expression that a pattern stands for.
func FuzzWildcard(f *testing.F) {
	f.Add("a*b?c", "aXXbYc")
	f.Add(`\**`, "*anything")
	f.Add("**a", "aaa")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if strings.ContainsAny(pattern+s, "\n") || strings.HasSuffix(strings.ReplaceAll(pattern, `\\`, ""), `\`) || !ascii(pattern+s) {
			return // outside what the expression can say
		}
		var e strings.Builder
		for i := 0; i < len(pattern); i++ {
			switch c := pattern[i]; c {
			case '*':
				e.WriteString(".*")
			case '?':
				e.WriteString(".")
			case '\\':
				i++
				e.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
			default:
				e.WriteString(regexp.QuoteMeta(string(c)))
			}
		}
		want := regexp.MustCompile("^" + e.String() + "$").MatchString(s)
		if got := wildcard(pattern, s); got != want {
			t.Errorf("wildcard(%q, %q) = %v, want %v", pattern, s, got, want)
		}
	})
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
