// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package errors

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/multus-vpc/multus-vpc/internal/agentapi"
	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
	"github.com/multus-vpc/multus-vpc/internal/lab/pod"
	"github.com/multus-vpc/multus-vpc/test/worker"
)

func plugin(name string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		w := of(ts)
		usage(ts, len(args) == 4 && w.pods[args[2]] != nil, false, name+" COMMAND FILE POD IF, and the pod must be there")
		p := w.pods[args[2]]
		var err error
		w.answer, err = w.worker.CNI(w.ctx, worker.Call{
			Plugin: name, Command: args[0], Config: []byte(ts.ReadFile(args[1])),
			ContainerID: p.Name, Netns: p.Netns, IfName: args[3], Pod: args[2],
		})
		ts.Check(err)
		_, err = fmt.Fprintf(ts.Stdout(), "%s", w.answer.Stdout)
		ts.Check(err)
		_, err = fmt.Fprintf(ts.Stderr(), "%s", w.answer.Stderr)
		ts.Check(err)
		if failed := w.answer.Code != 0; failed != neg {
			ts.Fatalf("exit status %d", w.answer.Code)
		}
	}
}

func refused(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) >= 2, neg, "refused CODE PATTERN…")
	r, err := of(ts).answer.Refusal()
	ts.Check(err)
	want, err := strconv.ParseUint(args[0], 10, 0)
	ts.Check(err)
	if r.Code != uint(want) {
		ts.Fatalf("code %d, want %d: %s", r.Code, want, r.Msg)
	}
	for _, pattern := range args[1:] {
		re, err := regexp.Compile(pattern)
		ts.Check(err)
		// The message alone must do: runtimes do not show details everywhere.
		if !re.MatchString(r.Msg) {
			ts.Fatalf("message %q does not match %q", r.Msg, pattern)
		}
	}
}

// settled waits until no address is between two states and the stock is what it will be.
func settled(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 0, neg, "settled")
	w := of(ts)
	ts.Check(w.worker.Await(w.ctx, func(s *agentapi.Status) string {
		for _, e := range s.ENIs {
			have := 0
			for _, a := range e.Addresses {
				if a.State != "held" && a.State != "free" && a.State != "foreign" {
					return fmt.Sprintf("%s, which is %s", a.Addr, a.State)
				}
				have++
			}
			if e.Active && have < e.Slots {
				return fmt.Sprintf("%s to have %d addresses; it has %d", e.ID, e.Slots, have)
			}
		}
		return ""
	}))
}

// snapshot is everything that a call could leave behind.
type snapshot struct {
	Namespaces  map[string]pod.Look // by path: the worker and the pods
	Attachments []string            // of the agent
	EC2         map[string][]string // addresses by ENI
	Files       []string            // names below the worker's folder, the script's namespaces, the runtimes' folders
}

func remember(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 0, neg, "snapshot")
	w := of(ts)
	var err error
	w.before, err = w.look()
	ts.Check(err)
	w.hasSnap = true
}

func unchanged(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts)
	usage(ts, len(args) == 0 && w.hasSnap, neg, "unchanged, after snapshot")
	now, err := w.look()
	ts.Check(err)
	if diff := cmp.Diff(w.before, now); diff != "" {
		ts.Fatalf("left behind (-before +now):\n%s", diff)
	}
}

func (w *world) look() (s snapshot, err error) {
	s = snapshot{Namespaces: map[string]pod.Look{}, EC2: map[string][]string{}}
	paths := []string{w.worker.Netns}
	for _, p := range w.pods {
		paths = append(paths, p.Netns)
	}
	for _, path := range paths {
		if s.Namespaces[path], err = pod.LookAt(path); err != nil {
			return s, err
		}
	}
	for _, e := range w.lab.Cloud.View(time.Now()).AllENIs() {
		for _, a := range e.Addresses() {
			s.EC2[e.ID] = append(s.EC2[e.ID], a.String())
		}
		slices.Sort(s.EC2[e.ID])
	}
	if s.Attachments, err = w.attachments(); err != nil {
		return s, err
	}
	s.Files, err = w.files()
	return s, err
}

func (w *world) attachments() ([]string, error) {
	if !w.asked {
		return nil, nil
	}
	status, err := w.worker.Status(w.ctx)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, h := range status.Attachments {
		list = append(list, fmt.Sprintf("%s %s %v on %s", h.Key, h.State, h.Addresses, h.ENI))
	}
	return list, nil
}

// systemDirs are where CNI plugins and runtimes keep files by custom. Other tests may write there meanwhile, so that only
// what mentions this script counts.
var systemDirs = []string{"/etc/cni", "/var/lib/cni", "/run/cni", "/var/run/cni", "/run/multus-vpc", "/var/lib/multus-vpc"}

func (w *world) files() ([]string, error) {
	list, err := netns.List(w.prefix)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(w.worker.Dir, func(path string, _ fs.DirEntry, err error) error {
		list = append(list, path)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, dir := range systemDirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // not there, or gone meanwhile: another test's
			}
			text, err := os.ReadFile(path)
			if err == nil && strings.Contains(path+string(text), w.prefix) {
				list = append(list, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}
