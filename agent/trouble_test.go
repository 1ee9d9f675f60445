// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/lab/front"
)

var update = flag.Bool("update", false, "print the samples of docs/troubleshooting.md anew")

const troubleshooting = "../docs/troubleshooting.md"

// situations are what docs/troubleshooting.md shows the status of, made on the lab.
func situations() map[string]func(c *counted) {
	return map[string]func(c *counted){
		"stuck": func(c *counted) {
			c.ask("upf-0", "")
			r, err := attachment.ParseRange("10.72.1.200-10.72.1.203") // no reservation contains it
			if err != nil {
				c.t.Fatal(err)
			}
			c.ask("upf-1", "lie in no explicit subnet CIDR reservation", r)
		},
		"gone": func(c *counted) {
			c.ask("upf-0", "")
			c.ask("upf-1", "")
			c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodDel, Attachment: c.of("upf-1")})
		},
		"link": func(c *counted) {
			c.ask("upf-0", "")
			c.host.mu.Lock()
			c.host.links = c.host.links[:1]
			c.host.mu.Unlock()
			c.node.LinksChanged()
		},
		"contested": func(c *counted) {
			c.ask("upf-0", "")
			c.pass(time.Minute)
			c.take(c.node.Status().Holds[0].Addresses[0], "worker-2")
			c.pass(3 * time.Minute)
		},
	}
}

// of is an attachment of a pod of namespace core.
func (c *counted) of(name string) *attachment.Attachment {
	a := c.pod("c0ffee-" + name)
	a.Network, a.Pod = "n6", attachment.Pod{Namespace: "core", Name: name, UID: "uid-" + name}
	return a
}

// ask is an ADD of vpcipvlan, which must be refused with what says; an empty one means that it must succeed.
func (c *counted) ask(name, says string, ranges ...attachment.Range) {
	c.t.Helper()
	q := onIndex(1)
	q.NeedLink, q.Ranges = true, ranges
	resp := c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodAdd, Attachment: c.of(name), Query: q})
	if refused := resp.Error != nil; refused != (says != "") || refused && !strings.Contains(resp.Error.Message, says) {
		c.t.Fatalf("ADD of %s: %v, want %q", name, resp.Error, says)
	}
}

// unready is the status of an agent that EC2 does not let in.
func unready(t *testing.T) *agentapi.Status {
	t.Helper()
	running := served(t)
	if err := running.Front.SetFaults([]front.Fault{{Action: "DescribeNetworkInterfaces", Probability: 1, Kind: front.ErrorBefore, Code: "UnauthorizedOperation"}}); err != nil {
		t.Fatal(err)
	}
	d := started(t, running, running.IMDSURL["worker-1"])
	var got *agentapi.Status
	d.await("EC2 has refused it", func() bool {
		resp, err := agentapi.Client{Socket: d.socket, Timeout: time.Second}.Call(t.Context(), agentapi.Request{Method: agentapi.MethodStatus})
		got = resp.Status
		return err == nil && len(got.Problems) > 0 && strings.Contains(got.Problems[0], "UnauthorizedOperation")
	})
	d.stop()
	return got
}

// toldStatus answers status requests with one status.
type toldStatus struct{ status *agentapi.Status }

func (s toldStatus) Handle(context.Context, agentapi.Request) agentapi.Response {
	return agentapi.Response{Status: s.status}
}

func (toldStatus) Undelivered(agentapi.Request, agentapi.Response) {}

var (
	sample    = regexp.MustCompile("(?s)<!-- status: ([a-z]+) -->\n```\n(.*?)```\n")
	requestID = regexp.MustCompile(`RequestID: [0-9a-f-]+`)
)

// TestSamplesAreReal: what the page shows of `vpcctl status` is what the programs print in that situation on the lab.
func TestSamplesAreReal(t *testing.T) {
	vpcctl := filepath.Join(t.TempDir(), "vpcctl")
	if out, err := exec.Command("go", "build", "-o", vpcctl, "../vpcctl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	want := sample.ReplaceAllFunc(text, func(part []byte) []byte {
		name := string(sample.FindSubmatch(part)[1])
		shown[name] = true
		var status *agentapi.Status
		if name == "unready" {
			status = unready(t)
		} else if make, ok := situations()[name]; ok {
			counting(t, func(c *counted) {
				make(c)
				c.pass(time.Second)
				status = c.Handle(c.t.Context(), agentapi.Request{Method: agentapi.MethodStatus}).Status
			})
		} else {
			t.Fatalf("the page shows the status of %q, which no test makes", name)
		}
		status.AgentVersion = "v0.1.0"
		printed := requestID.ReplaceAll(print(t, vpcctl, status), []byte("RequestID: …"))
		return fmt.Appendf(nil, "<!-- status: %s -->\n```\n%s```\n", name, printed)
	})
	if len(shown) != len(situations())+1 {
		t.Errorf("the page shows %v", shown)
	}
	if *update {
		if err := os.WriteFile(troubleshooting, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), string(want)); diff != "" {
		t.Errorf("samples; go test ./agent -run Samples -update prints them anew (-page +programs):\n%s", diff)
	}
}

// print is what vpcctl prints of a status that an agent's socket tells it.
func print(t *testing.T, vpcctl string, status *agentapi.Status) []byte {
	t.Helper()
	dir, err := os.MkdirTemp("", "multus-vpc-") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "agent", "agent.sock")
	ln, err := agentapi.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- (&agentapi.Server{}).Serve(ctx, ln, toldStatus{status}) }()
	out, err := exec.Command(vpcctl, "status", "--socket", socket).Output()
	cancel()
	if served := <-done; err != nil || served != nil {
		t.Fatal(err, served)
	}
	return out
}
