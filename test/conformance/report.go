// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"fmt"
	"io"
	"strings"
)

// judged is a subject with what came of it, row by row.
type judged struct {
	Subject string          `json:"subject"`
	Rows    map[string]mark `json:"rows"`
}

// mark is a row's outcomes in all versions as one.
type mark struct {
	Outcome outcome `json:"outcome"`
	In      string  `json:"in,omitempty"`   // the versions in which it failed
	Note    string  `json:"note,omitempty"` // why, or why it does not apply
}

func (o outcomes) marks() map[string]mark {
	all := map[string]mark{}
	for id, byVersion := range o {
		all[id] = markOf(byVersion)
	}
	return all
}

func markOf(byVersion map[string]verdict) mark {
	m := mark{Outcome: notOf}
	var failed []string
	applied := 0
	for _, v := range versions {
		got, ran := byVersion[v]
		if !ran || strings.HasPrefix(got.Note, sincePrefix) {
			continue
		}
		applied++
		switch {
		case got.Outcome == fail:
			failed = append(failed, v)
			if m.Outcome != fail {
				m = mark{Outcome: fail, Note: got.Note}
			}
		case got.Outcome == pass && m.Outcome != fail:
			m = mark{Outcome: pass}
		case got.Outcome == notOf && m.Outcome == notOf:
			m.Note = got.Note
		}
	}
	switch {
	case len(failed) > 0 && len(failed) == applied:
		m.In = "wherever it applies"
	case len(failed) > 0:
		m.In = "in " + strings.Join(failed, ", ")
	}
	return m
}

// summary is what a person sees: failures, and counts.
func summary(w io.Writer, list []judged) error {
	for _, j := range list {
		for _, r := range rows() {
			if m := j.Rows[r.id]; m.Outcome == fail {
				if _, err := fmt.Fprintf(w, "%s: ✗ %s (%s; %s): %s\n", j.Subject, r.id, r.level, m.In, m.Note); err != nil {
					return err
				}
			}
		}
		line := j.Subject + ": passed"
		for _, l := range levels {
			passed, of := j.count(l)
			line += fmt.Sprintf(" %d/%d %s,", passed, of, l)
		}
		if _, err := fmt.Fprintln(w, strings.TrimSuffix(line, ",")); err != nil {
			return err
		}
	}
	return nil
}

// count says how many rows of a level a subject passes, of those that apply to it.
func (j judged) count(l level) (passed, of int) {
	for _, r := range rows() {
		o := j.Rows[r.id].Outcome
		if r.level != l || o != pass && o != fail {
			continue
		}
		of++
		if o == pass {
			passed++
		}
	}
	return passed, of
}
