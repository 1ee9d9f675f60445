// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/test/worker"
)

func TestMain(m *testing.M) {
	if isStandIn(os.Args[0]) {
		os.Exit(standIn(os.Args[0], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// from are the programs, built if need be.
func from(t *testing.T) (p programs) {
	t.Helper()
	var remove func() error
	var err error
	if p.ours, remove, err = worker.Programs(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Error(err)
		}
	})
	if p.peers = os.Getenv("MULTUS_VPC_PEERS"); p.peers == "" {
		build := exec.Command("scripts/tools.sh", "test/peers")
		build.Dir = filepath.Join("..", "..")
		out, err := build.Output()
		if err != nil {
			t.Fatalf("build the reference plugins: %v", err)
		}
		p.peers = strings.TrimSpace(string(out))
	}
	return p
}

const outcomesFile, documentFile = "testdata/outcomes.json", "../../docs/conformance.md"

// judgeAndCompare holds subjects to all rows: ours must pass, and what was written down must be what was seen.
func judgeAndCompare(t *testing.T, wanted func(builtin) bool) {
	list, err := read([]string{outcomesFile})
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]map[string]mark{}
	for _, j := range list {
		written[j.Subject] = j.Rows
	}
	p := from(t)
	for serial, b := range builtins() {
		if !b.settled || !wanted(b) {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			out, err := b.judge(t.Context(), serial, p, func(row) bool { return true }, t.Output())
			if err != nil {
				t.Fatal(err)
			}
			j := judged{Subject: b.name, Rows: out.marks()}
			if said := failures(j); b.ours && said != "" {
				t.Errorf("ours must pass every row:%s", said)
			}
			if diff := cmp.Diff(written[b.name], j.Rows); diff != "" {
				t.Errorf("%s (-written +seen; make conformance writes it):\n%s", outcomesFile, diff)
			}
		})
	}
}

func TestOnThisHost(t *testing.T) {
	judgeAndCompare(t, func(b builtin) bool { return !b.ipvlan })
}

func TestDocumentIsMadeOfTheOutcomes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(documentFile)
	if err != nil {
		t.Fatal(err)
	}
	all, err := read([]string{outcomesFile})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(document(all), string(text)); diff != "" {
		t.Errorf("%s (-made +written; make conformance writes it):\n%s", documentFile, diff)
	}
}

func TestDocumentHasEverySubjectAndRow(t *testing.T) {
	t.Parallel()
	all, err := read([]string{outcomesFile})
	if err != nil {
		t.Fatal(err)
	}
	var names, want []string
	for _, j := range all {
		names = append(names, j.Subject)
		for _, r := range rows() {
			if _, has := j.Rows[r.id]; !has {
				t.Errorf("%s was not held to row %s", j.Subject, r.id)
			}
		}
		if len(j.Rows) != len(rows()) {
			t.Errorf("%s has outcomes of %d rows, want %d", j.Subject, len(j.Rows), len(rows()))
		}
	}
	for _, b := range builtins() {
		want = append(want, b.name)
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
}

func TestOutcomesOfVersionsBecomeOne(t *testing.T) {
	t.Parallel()
	since := verdict{notOf, sincePrefix + "1.1.0"}
	for name, tt := range map[string]struct {
		of   map[string]verdict
		want mark
	}{
		"all pass":     {map[string]verdict{"0.3.0": {Outcome: pass}, "1.1.0": {Outcome: pass}}, mark{Outcome: pass}},
		"one fails":    {map[string]verdict{"0.3.0": {fail, "because"}, "1.1.0": {Outcome: pass}}, mark{fail, "in 0.3.0", "because"}},
		"all fail":     {map[string]verdict{"0.3.0": since, "1.1.0": {fail, "because"}}, mark{fail, "wherever it applies", "because"}},
		"since":        {map[string]verdict{"0.3.0": since, "1.1.0": {Outcome: pass}}, mark{Outcome: pass}},
		"not its kind": {map[string]verdict{"0.3.0": {notOf, "no"}, "1.1.0": {notOf, "no"}}, mark{Outcome: notOf, Note: "no"}},
	} {
		if got := markOf(tt.of); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestSubjectsOfUsers(t *testing.T) {
	t.Parallel()
	_, example, _ := strings.Cut(preface, "```json\n")
	example, _, _ = strings.Cut(example, "```")
	for name, tt := range map[string]struct{ text, says string }{
		"the preface's example": {example, ""},
		"no program":            {`{"name": "x", "path": ["/x"], "config": {"type": "x"}}`, "there is none"},
		"unknown key":           {`{"nmae": "x"}`, "nmae"},
		"unknown command":       {`{"name": "x", "path": ["/x"], "interface": true, "config": {"type": "x"}, "commands": {"kill": "x"}}`, "kill"},
		"half of small":         {`{"name": "x", "path": ["/x"], "interface": true, "config": {"type": "x"}, "small": {}}`, "belong together"},
		"unknown version":       {`{"name": "x", "path": ["/x"], "interface": true, "config": {"type": "x"}, "versions": ["2.0.0"]}`, "2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "subject.json")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := load(file)
			if tt.says == "" && (err != nil || s.Program != "my-ipam" || s.Outside.Held == nil || s.Capacity != 2) {
				t.Errorf("it is read as %+v, %v", s, err)
			}
			if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("the error is %v, want %q", err, tt.says)
			}
		})
	}
}

func TestResultsAreReadStrictly(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ version, text, says string }{
		"1.1.0":                {"1.1.0", `{"cniVersion": "1.1.0", "interfaces": [{"name": "a", "mtu": 1}], "ips": [{"address": "192.0.2.1/24"}], "dns": {}}`, ""},
		"a key of later":       {"1.0.0", `{"cniVersion": "1.0.0", "interfaces": [{"name": "a", "mtu": 1}], "ips": [{"address": "192.0.2.1/24"}]}`, "no key mtu"},
		"0.4.0 needs versions": {"0.4.0", `{"cniVersion": "0.4.0", "ips": [{"address": "192.0.2.1/24"}]}`, "no version"},
		"two documents":        {"1.0.0", `{"ips": []} {}`, "more than one"},
		"none":                 {"1.0.0", ``, "EOF"},
	} {
		err := wellFormed(json.RawMessage(tt.text), tt.version)
		if (tt.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}
