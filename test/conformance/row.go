// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// level is how binding a row is.
type level string

const (
	must       level = "must"       // the specification says must, or leaves no choice
	should     level = "should"     // the specification says should
	convention level = "convention" // CONVENTIONS.md, for plugins that take part
	extra      level = "extra"      // ours: what operators need, and the specification does not ask for
)

// levels in their order.
var levels = []level{must, should, convention, extra}

// row is one thing that a plugin is held to.
type row struct {
	id    string
	level level
	where string // section of the specification
	says  string
	since string // the version that brought it
	once  bool   // versions make no difference: held in the newest alone
	form  bool   // about the form of calls and answers: held in every version also where calls take long
	needs []need
	check func(*kit) error
}

// need is what a subject must have for a row; the answer is why it is not applicable, "" when it is.
type need func(*subject) string

func anInterface(s *subject) string { return unless(s.Interface, "it makes no interface") }
func anIPAM(s *subject) string      { return unless(!s.Interface, "it is no IPAM plugin") }
func choosing(s *subject) string    { return unless(s.Chooses, "it gives the addresses that it is told") }

func counted(s *subject) string {
	return unless(s.Outside.Held != nil, "it keeps no account of addresses")
}
func aDaemon(s *subject) string { return unless(s.Outside.Down != nil, "it has no daemon") }
func aBackend(s *subject) string {
	return unless(s.Outside.Cut != nil, "its daemon depends on nothing")
}

func small(s *subject) string { return unless(s.Capacity > 0, "it cannot run out of addresses") }

func broken(s *subject) string {
	return unless(s.Broken != nil, "no configuration is known that cannot work")
}

func executing(s *subject) string { return unless(s.Executes != "", "it executes no other plugin") }

// accountable is for what an interface plugin forwards: the rows about delegates hold it to that.
func accountable(s *subject) string {
	return unless(s.Executes == "", "addresses are the affair of the plugin that it executes")
}

func requestable(w way) need {
	return func(s *subject) string { return unless(s.Requests[w] != "", "it does not document it") }
}

func unless(ok bool, reason string) string {
	if ok {
		return ""
	}
	return reason
}

// rows are all of them, in the order of the document.
func rows() []row {
	return slices.Concat(callRows(), versionRows(), addRows(), undoRows(), requestRows(), delRows(), lossRows(), checkRows(), statusRows(), gcRows(), delegateRows(), parallelRows())
}

// outcome of a row with a subject in a version.
type outcome string

const (
	pass  outcome = "pass"
	fail  outcome = "fail"
	notOf outcome = "n/a"
)

// verdict is the outcome with a reason unless it is pass.
type verdict struct {
	Outcome outcome `json:"outcome"`
	Note    string  `json:"note,omitempty"`
}

// hold runs one row.
func (k *kit) hold(r row) (v verdict, err error) {
	for _, need := range r.needs {
		if reason := need(k.subject); reason != "" {
			return verdict{notOf, reason}, nil
		}
	}
	if !since(k.version, r.since) {
		return verdict{notOf, sincePrefix + r.since}, nil
	}
	if newest := k.subject.Versions[len(k.subject.Versions)-1]; (r.once || k.subject.Slow && !r.form) && k.version != newest {
		return verdict{notOf, sincePrefix + newest}, nil
	}
	v = verdict{Outcome: pass}
	if failure := r.check(k); failure != nil {
		v = verdict{fail, k.tidy(failure)}
	}
	return v, k.clean()
}

// sincePrefix begins the notes of rows that are held in later versions only.
const sincePrefix = "since "

// outcomes of a subject: row → version → verdict.
type outcomes map[string]map[string]verdict

// judge holds a subject to the rows that the filter lets through, in all its versions. Attachments of one version do
// not meet those of another: each has a network of its own.
func judge(ctx context.Context, s *subject, g *ground, filter func(row) bool, watch io.Writer) (outcomes, error) {
	out := outcomes{}
	serial, smalls := 0, 0
	var errs []error
	for _, v := range s.Versions {
		k := &kit{ctx: ctx, subject: s, ground: g, version: v, network: "conformance-" + v, serial: &serial, smalls: &smalls}
		for _, r := range rows() {
			if !filter(r) {
				continue
			}
			if out[r.id] == nil {
				out[r.id] = map[string]verdict{}
			}
			start := time.Now()
			got, err := k.hold(r)
			fmt.Fprintf(watch, "%s %s %s: %s %s (%v)\n", s.Name, v, r.id, got.Outcome, got.Note, time.Since(start).Round(time.Millisecond))
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, row %s, version %s: %w", s.Name, r.id, v, err))
			}
			out[r.id][v] = got
		}
	}
	return out, errors.Join(errs...)
}
