// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package life

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/ledger"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

// nextVersion is what the version after this one changes: it speaks the next protocol, writes the next format of the
// ledger, which this one can read, and keeps records of its own there.
var nextVersion = []struct{ file, old, new string }{
	{"internal/agentapi/wire.go", fmt.Sprintf("const Version = %d", agentapi.Version), fmt.Sprintf("const Version = %d", agentapi.Version+1)},
	{"internal/ledger/ledger.go", fmt.Sprintf("const Format = %d", ledger.Format), fmt.Sprintf("const Format = %d", ledger.Format+1)},
	{"agent/main.go", "\tln, err := agentapi.Listen(", "\tif err := book.Put(ledger.Entry{Key: \"lease/next\", Value: []byte(`{}`)}); err != nil {\n\t\treturn err\n\t}\n\tln, err := agentapi.Listen("},
	{"internal/pool/state.go", "`json:\"state\"`", "`json:\"state\"`\n\tLease *int `json:\"lease\"`"},
	{"internal/pool/state.go", "holdRecord{h.Attachment, h.eni, h.addrs, h.state.String(), ", "holdRecord{h.Attachment, h.eni, h.addrs, h.state.String(), new(int), "},
}

// buildNext builds the programs of the next version.
func buildNext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var text, overlay []byte
	changed := map[string]string{}
	for _, c := range nextVersion {
		name := filepath.Join(root, c.file)
		from := name
		if again, ok := changed[name]; ok {
			from = again
		}
		if text, err = os.ReadFile(from); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(text), c.old); got != 1 {
			t.Fatalf("stale: %s has %q %d times, want once", c.file, c.old, got)
		}
		changed[name] = filepath.Join(dir, strings.ReplaceAll(c.file, "/", "_"))
		if err = os.WriteFile(changed[name], []byte(strings.Replace(string(text), c.old, c.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if overlay, err = json.Marshal(map[string]any{"Replace": changed}); err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bin+"/", "./agent", "./plugins/vpcipam")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, failed := build.CombinedOutput(); failed != nil {
		t.Fatalf("build the next version: %v\n%s", failed, out)
	}
	return bin
}

// TestUpgradeAndDowngradeUnderLoad: pods come and go by plugins of both versions while the agent is replaced by the next
// version, the one before, and so on.
func TestUpgradeAndDowngradeUnderLoad(t *testing.T) {
	this, next := os.Getenv("MULTUS_VPC_BIN"), buildNext(t)
	n := up(t, twoWorkers("c5.18xlarge", "early"), vpcipam)
	n.start(brief(time.Second))
	stays := n.sandbox("stays")
	kept := n.add(stays)

	const runtimes, replacements = 3, 6
	load := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	has := map[netip.Addr]string{}
	rounds := 0
	for r := range runtimes {
		rooms := []*sandbox{n.sandbox(fmt.Sprint("a", r)), n.sandbox(fmt.Sprint("b", r))}
		all.Go(func() {
			var before *sandbox
			var had netip.Addr
			for i := 0; ; i++ {
				// A new pod each time, in one of two namespaces; the one before ends when the new one has its address.
				s := &sandbox{Pod: rooms[i%2].Pod, id: fmt.Sprintf("%s-%d", rooms[i%2].id, i), name: fmt.Sprintf("pod-%d-%d", r, i)}
				addr, err := n.by([]string{this, next}[i%2], "ADD", s)
				if err != nil {
					t.Errorf("ADD: %v", err)
					return
				}
				mu.Lock()
				if other := has[addr]; other != "" {
					t.Errorf("%s has %s, and %s got it", other, addr, s.id)
				}
				has[addr] = s.id
				delete(has, had)
				rounds++
				mu.Unlock()
				if before != nil {
					if _, err = n.by([]string{next, this}[i%2], "DEL", before); err != nil {
						t.Errorf("DEL: %v", err)
						return
					}
				}
				select {
				case <-load:
					if _, err = n.by(this, "DEL", s); err != nil {
						t.Errorf("DEL: %v", err)
					}
					return
				default:
				}
				before, had = s, addr
			}
		})
	}
	for i := range replacements {
		mu.Lock()
		before := rounds
		mu.Unlock()
		n.until("pods came and went", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return rounds >= before+3*runtimes || t.Failed()
		})
		if t.Failed() {
			break
		}
		n.must(n.Stop())
		n.Use([]string{next, this}[i%2])
		n.must(n.Start(brief(time.Second)))
	}
	close(load)
	all.Wait()
	n.becomes(kept, held(stays)) // the last agent may not know its ENIs yet
	s, err := n.Status(n.ctx)
	n.must(err)
	for _, h := range s.Attachments {
		if h.State == "held" && h.ContainerID != stays.id {
			t.Errorf("%s is left held", h.Key)
		}
	}
	text, err := os.ReadFile(filepath.Join(n.StateDir(), "ledger"))
	if n.must(err); !strings.Contains(string(text), "lease/next") {
		t.Error("this version dropped a record of the next one")
	}
	t.Logf("%d pods came and went during %d replacements", rounds, replacements)
}

// by calls a version's plugin.
func (n *node) by(bin, command string, s *sandbox) (netip.Addr, error) {
	a, err := n.CNI(n.ctx, worker.Call{
		Plugin: vpcipam, Bin: bin, Command: command, ContainerID: s.id, Netns: s.Netns, IfName: ifName, Pod: s.name, Config: []byte(byIndex),
	})
	if err == nil {
		err = a.Err()
	}
	if err != nil || command != "ADD" {
		return netip.Addr{}, err
	}
	p, err := a.Address()
	return p.Addr(), err
}
