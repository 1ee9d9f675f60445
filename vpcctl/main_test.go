// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/eni"
	"github.com/multus-vpc/multus-vpc/internal/sweep"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"vpcctl": main}) }

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireUniqueNames: true, RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			dir, err := os.MkdirTemp("", "vpcctl-") // a socket's path has 107 bytes at most
			if err != nil {
				return err
			}
			e.Defer(func() { _ = os.RemoveAll(dir) })
			e.Setenv("SOCKET", filepath.Join(dir, "agent", "agent.sock"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"agent": agent, "exits": exits},
	})
}

// answer is an agent that answers status requests with one response.
type answer struct{ resp agentapi.Response }

func (a answer) Handle(_ context.Context, req agentapi.Request) agentapi.Response {
	if req.Method != agentapi.MethodStatus {
		return agentapi.Response{Error: &agentapi.Error{Code: agentapi.CodeInternal, Message: "vpcctl asks for " + string(req.Method)}}
	}
	return a.resp
}

func (answer) Undelivered(agentapi.Request, agentapi.Response) {}

// agent serves $SOCKET until the script ends.
//
//	agent status FILE   answers the status in FILE
//	agent error TEXT    answers an error
//	agent hang          listens and never answers
//	agent newer         speaks a version that vpcctl does not know
func agent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: agent status FILE | error TEXT | hang | newer")
	}
	var a answer
	server := &agentapi.Server{}
	switch args[0] {
	case "status":
		a.resp.Status = &agentapi.Status{}
		d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[1])))
		d.DisallowUnknownFields()
		ts.Check(d.Decode(a.resp.Status))
	case "error":
		a.resp.Error = &agentapi.Error{Code: agentapi.CodeInternal, Message: args[1]}
	case "newer":
		server.Version = agentapi.Version + 2
	}
	ln, err := agentapi.Listen(ts.Getenv("SOCKET"))
	ts.Check(err)
	if args[0] == "hang" {
		ts.Defer(func() { ts.Check(ln.Close()) })
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, ln, a) }()
	ts.Defer(func() {
		cancel()
		ts.Check(<-done)
	})
}

// exits STATUS COMMAND [ARGUMENT…] runs a command that must exit with the status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND [ARGUMENT...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exits with %d, want %d", args[1], got, want)
	}
}

// TestEveryNetworkOfAFileIsReplaced: however its documents are parted, none is left out without a word.
func TestEveryNetworkOfAFileIsReplaced(t *testing.T) {
	t.Parallel()
	const (
		flow   = `{"kind": "NetworkAttachmentDefinition", "metadata": {"name": "one"}, "spec": {"config": "{\"type\": \"ipvlan\", \"ipam\": {\"type\": \"static\"}}"}}`
		block  = "kind: NetworkAttachmentDefinition\nmetadata: {name: one}\nspec:\n  config: '{\"type\": \"ipvlan\", \"ipam\": {\"type\": \"static\"}}'\n"
		quoted = `"kind": NetworkAttachmentDefinition` + "\n" + `"metadata": {"name": "one"}` + "\n" + `"spec": {"config": '{"type": "ipvlan", "ipam": {"type": "static"}}'}` + "\n"
	)
	for name, file := range map[string]struct {
		text string
		want int
	}{
		"YAML":                                     {block + "---\n" + block + "--- # the last\n" + quoted, 3},
		"YAML with the line ends of Windows":       {strings.ReplaceAll(block+"---\n"+block, "\n", "\r\n"), 2},
		"YAML that begins beside the mark":         {"--- " + flow + "\n--- " + flow, 2},
		"JSON and a comment":                       {flow + " # mine\n", 1},
		"JSON, one after the other":                {flow + "\n" + flow + flow + "\n", 3},
		"JSON, of which the second is cut":         {flow + "\n" + flow[:len(flow)-9], -1},
		"JSON, of which the third is of no object": {flow + flow + "x", -1},
	} {
		var out, errs strings.Builder
		code := run(t.Context(), []string{"migrate-nad", "-"}, func(string) string { return "" }, strings.NewReader(file.text), &out, &errs, false)
		if file.want < 0 {
			if code != exitFailure || !strings.Contains(errs.String(), "read document 1 of -: ") {
				t.Errorf("%s: status %d: %s", name, code, &errs)
			}
			continue
		}
		if got := strings.Count(out.String(), "kind: "); code != exitOK || got != file.want {
			t.Errorf("%s: status %d and %d networks, want %d: %s", name, code, got, file.want, &errs)
		}
	}
}

// TestAdjoiningAddressesShareALine: of one ENI, one verdict and one reason.
func TestAdjoiningAddressesShareALine(t *testing.T) {
	t.Parallel()
	var r sweep.Report
	for _, f := range []struct{ address, eni, reason string }{
		{"10.0.0.254", "eni-1", "stock"},
		{"10.0.0.255", "eni-1", "stock"},
		{"10.0.1.0", "eni-1", "stock"},
		{"10.0.1.2", "eni-1", "stock"},
		{"10.0.1.3", "eni-1", "pod a/b has it"},
		{"10.0.1.4", "eni-2", "pod a/b has it"},
	} {
		r.Findings = append(r.Findings, sweep.Finding{Address: netip.MustParseAddr(f.address), ENI: eni.ID(f.eni), Instance: "i-1", Verdict: sweep.Kept, Reason: f.reason})
	}
	const want = `Addresses: 6 on 0 ENIs, against 0 pods
  ADDRESS              ENI    WORKER  IS    WHY
  10.0.0.254-10.0.1.0  eni-1  i-1     kept  stock
  10.0.1.2             eni-1  i-1     kept  stock
  10.0.1.3             eni-1  i-1     kept  pod a/b has it
  10.0.1.4             eni-2  i-1     kept  pod a/b has it

In all: kept 6
`
	if got := string(renderSweep(r, true, false)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestColourOnlyAddsColour: what a terminal shows is what a file gets.
func TestColourOnlyAddsColour(t *testing.T) {
	t.Parallel()
	s := &agentapi.Status{
		Problems: []string{"a \x1b[2Jproblem"},
		ENIs:     []agentapi.ENIStatus{{Active: true, Addresses: []agentapi.AddressStatus{{State: "lost"}}}},
		Attachments: []agentapi.HoldStatus{
			{State: "held", NetnsVisible: true}, {State: "held"}, {State: "lost"}, {State: "cooling"}, {State: "guest"},
		},
	}
	coloured, bare := string(render(s, true)), string(render(s, false))
	if strings.Contains(bare, "\x1b") {
		t.Errorf("escape sequences though colour is off:\n%q", bare)
	}
	without := coloured
	for _, c := range []style{heading, faint, good, warn, bad} {
		if !strings.Contains(coloured, "\x1b["+string(c)+"m") {
			t.Errorf("nothing has style %s", c)
		}
		without = strings.ReplaceAll(without, "\x1b["+string(c)+"m", "")
	}
	if without = strings.ReplaceAll(without, "\x1b[0m", ""); without != bare {
		t.Errorf("with colour taken off:\n%q\nwithout colour:\n%q", without, bare)
	}
}
