// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netconf

import (
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	Path    string // of the field: "ipam.routes[1].dst"; empty for the document itself
	Code    uint   // of the CNI specification: 2, 6 or 7
	Message string // what is wrong and what to write instead
}

func (p Problem) Error() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// Problems are everything that is wrong with a configuration, in the order of the checks. Never empty as an error.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "; ")
}

// Code is the CNI error code for all of them together: 6 when the document could not be decoded at all, else 2 when
// any field is unknown or not supported, else 7.
func (p Problems) Code() uint {
	code := types.ErrInvalidNetworkConfig
	for _, one := range p {
		switch one.Code {
		case types.ErrDecodingFailure:
			return one.Code
		case types.ErrUnsupportedField:
			code = one.Code
		}
	}
	return code
}

func (r *reader) invalid(path, format string, args ...any) {
	r.add(types.ErrInvalidNetworkConfig, path, format, args...)
}

func (r *reader) unsupported(path, format string, args ...any) {
	r.add(types.ErrUnsupportedField, path, format, args...)
}

func (r *reader) add(code uint, path, format string, args ...any) {
	r.problems = append(r.problems, Problem{Path: path, Code: code, Message: fmt.Sprintf(format, args...)})
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return r.problems
}

// nearest is the candidate with the smallest edit distance to key, ignoring case; the first of equals.
func nearest(key string, candidates []string) string {
	best, least := "", -1
	for _, c := range candidates {
		if d := distance(strings.ToLower(key), strings.ToLower(c)); least < 0 || d < least {
			best, least = c, d
		}
	}
	return best
}

// distance is Levenshtein's, over the first 64 bytes of a.
func distance(a, b string) int {
	a = a[:min(len(a), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
