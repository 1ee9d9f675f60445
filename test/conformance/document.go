// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// preface is the document's text before the outcomes.
//
//go:embed preface.md
var preface string

// document is docs/conformance.md.
func document(all []judged) string {
	var b strings.Builder
	b.WriteString(preface)
	b.WriteString("\n## Outcomes\n\n")
	b.WriteString("✓ passes, ✗ fails (why is below), – does not apply. A row counts as failed when it fails in one version.\n")
	for _, kind := range []struct{ title, skip string }{
		{"IPAM plugins alone", anIPAM(&subject{Interface: true})}, {"Interface plugins", anInterface(&subject{})},
	} {
		columns := slices.DeleteFunc(slices.Clone(all), func(j judged) bool {
			return slices.ContainsFunc(rows(), func(r row) bool {
				return j.Rows[r.id].Note == kind.skip
			})
		})
		if len(columns) > 0 {
			fmt.Fprintf(&b, "\n### %s\n\n%s", kind.title, table(columns))
		}
	}
	b.WriteString("\n## What fails, and why\n")
	for _, j := range all {
		b.WriteString(failures(j))
	}
	b.WriteString("\n## The rows\n\n")
	for _, r := range rows() {
		fmt.Fprintf(&b, "- `%s` (%s; %s): %s\n", r.id, r.level, r.where, r.says)
	}
	return b.String()
}

// table has a line for each row that applies to one of the columns at least, and a last one with counts.
func table(columns []judged) string {
	var b strings.Builder
	b.WriteString("| Row | Asked for by |")
	for _, j := range columns {
		fmt.Fprintf(&b, " %s |", j.Subject)
	}
	b.WriteString("\n|---|---|" + strings.Repeat(":-:|", len(columns)) + "\n")
	for _, r := range rows() {
		line, applies := fmt.Sprintf("| `%s` | %s |", r.id, r.level), false
		for _, j := range columns {
			o := j.Rows[r.id].Outcome
			applies = applies || o == pass || o == fail
			line += " " + signs[o] + " |"
		}
		if applies {
			b.WriteString(line + "\n")
		}
	}
	for _, l := range levels {
		fmt.Fprintf(&b, "| **passed** | **%s** |", l)
		for _, j := range columns {
			passed, of := j.count(l)
			fmt.Fprintf(&b, " %d/%d |", passed, of)
		}
		b.WriteString("\n")
	}
	return b.String()
}

var signs = map[outcome]string{pass: "✓", fail: "✗", notOf: "–", "": "–"}

// failures is the part about one subject, nothing when there is nothing to say.
func failures(j judged) string {
	var b strings.Builder
	for _, r := range rows() {
		m := j.Rows[r.id]
		if m.Outcome != fail {
			continue
		}
		if b.Len() == 0 {
			fmt.Fprintf(&b, "\n### %s\n\n", j.Subject)
		}
		fmt.Fprintf(&b, "- `%s` (%s; %s): %s", r.id, r.level, m.In, m.Note)
		if text := known(j.Subject, r.id); text != "" {
			fmt.Fprintf(&b, ". %s", text)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// known is what is public about a failure, or why it is as it is.
func known(subject, id string) string {
	const plugins = "https://github.com/containernetworking/plugins"
	const skel = "The specification's own frame (`skel`), which the plugin is built with, does so: <https://github.com/containernetworking/cni/"
	hostLocal := "<" + plugins + "/issues/1047>"
	switch id {
	case "error-version":
		return skel + "pull/408>"
	case "version-echo", "env-invalid-named":
		return skel + "blob/v1.3.0/pkg/skel/skel.go>"
	}
	switch subject {
	case "ipvlan + vpcipam", "ipvlan + host-local":
		switch id {
		case "version-unknown":
			return "\x60ipvlan\x60 lists 0.1.0 and 0.2.0, vpcipam begins with 0.3.0"
		case "add-mode":
			return "The mode belongs to the master: <https://docs.kernel.org/networking/ipvlan.html>"
		case "add-mtu", "add-prevresult", "delegate-add-fails", "delegate-add-empty", "delegate-undo", "delegate-del-fails", "delegate-gc":
			return "<" + plugins + "/blob/v1.9.1/plugins/main/ipvlan/ipvlan.go>"
		}
	case "host-local":
		switch id {
		case "gc-stale", "gc-empty", "status-exhausted":
			return hostLocal
		case "check-address":
			return "CHECK looks for any address of the container: <" + plugins + "/blob/v1.9.1/plugins/ipam/host-local/main.go>"
		}
	case "static":
		if id == "check-address" {
			return "An address of the configuration that prevResult lacks goes unnoticed: <" + plugins + "/blob/v1.9.1/plugins/ipam/static/main.go>"
		}
	case "whereabouts":
		switch id {
		case "check", "check-address", "check-gone", "check-daemon-down":
			return "CHECK is not implemented: <https://github.com/k8snetworkplumbingwg/whereabouts/blob/v0.8.0/cmd/whereabouts.go>"
		case "del-daemon-back":
			return "<https://github.com/k8snetworkplumbingwg/whereabouts/issues/546>"
		case "del-other":
			return "DEL goes by the container ID alone: <https://github.com/k8snetworkplumbingwg/whereabouts/blob/v0.8.0/pkg/allocate/allocate.go>"
		}
	}
	return ""
}
