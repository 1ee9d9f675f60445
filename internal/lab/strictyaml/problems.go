// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package strictyaml

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong, and where.
type Problem struct {
	Path string `json:"path,omitempty"` // of the field; empty when it is the document
	Text string `json:"text"`
}

func (p Problem) String() string {
	if p.Path == "" {
		return p.Text
	}
	return p.Path + ": " + p.Text
}

// Problems collects what is wrong with a document while it is decoded and validated. The zero value is ready.
type Problems struct{ list []Problem }

// Addf adds a problem. One that lies at or below a path that already has a problem is dropped: a field that could not
// be read would only be reported a second time as missing.
func (p *Problems) Addf(path, format string, args ...any) {
	for _, earlier := range p.list {
		if rest, ok := strings.CutPrefix(path, earlier.Path); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return
		}
	}
	p.list = append(p.list, Problem{Path: path, Text: fmt.Sprintf(format, args...)})
}

// Err is nil without problems, and otherwise an [*Error] with all of them.
func (p *Problems) Err() error {
	if len(p.list) == 0 {
		return nil
	}
	return &Error{Problems: p.list}
}

// Error is a document with problems; there is at least one.
type Error struct{ Problems []Problem }

// Error has one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}
