// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is JSON.
type object = map[string]any

// subject is a plugin with its delegates and its configuration.
type subject struct {
	Name string
	// Interface is whether it makes the interface; otherwise it is an IPAM plugin alone.
	Interface bool
	Program   string   // file name
	Path      []string // folders of programs
	Env       []string // NAME=VALUE
	Versions  []string // of cniVersion, that it is to be held to
	// Config is the plugin's configuration for the n-th attachment, without cniVersion and name.
	Config func(n int) object
	// Minimal is what is left for DEL when a runtime kept no more than the types.
	Minimal object
	// Small is merged into Config and leaves room for Capacity attachments, each time (by its number) elsewhere; without
	// one the subject cannot run out.
	Small    func(i int) object
	Capacity int
	// Hasty is merged into Config where an answer must be no: how to give up soon.
	Hasty object
	// Broken is merged into Config, with which no ADD can succeed.
	Broken object
	// Chooses is whether each attachment gets an address of its own without being told.
	Chooses bool
	// Executes names the IPAM program that the plugin starts, "" when it starts none.
	Executes string
	// Spare is an address that nobody else gives, with %d for its last part, for the stand-in of Executes.
	Spare string
	// Requests are addresses that may be asked for, by the way of asking.
	Requests map[way]string
	// Parallel is how many attachments come at once.
	Parallel int
	// Outside is whatever the plugin talks to.
	Outside outside
	// Slow is whether rows that are not about the form of calls are held in the newest version alone.
	Slow bool
}

// way is how a runtime asks for an address.
// https://github.com/containernetworking/cni/blob/main/CONVENTIONS.md
type way string

const (
	byCapability way = "capability" // runtimeConfig.ips
	byArgs       way = "args"       // args.cni.ips
	byCNIArgs    way = "CNI_ARGS"   // IP=
)

// outside is what a plugin talks to. What is nil, it does not have.
type outside struct {
	// Held counts what the attachments hold, whichever network they are of.
	Held func(context.Context) (int, error)
	// Down takes the plugin's daemon away, Up brings it back and waits until it serves.
	Down, Up func(context.Context) error
	// Cut keeps the daemon from whatever allocates for it, Mend ends that.
	Cut, Mend func() error
}

// file is a subject as a user describes it; its configuration may have {N}, the attachment's number from 10 to 99.
type file struct {
	Name      string            `json:"name"`
	Interface bool              `json:"interface"`
	Path      []string          `json:"path"`
	Env       []string          `json:"env"`
	Versions  []string          `json:"versions"`
	Config    json.RawMessage   `json:"config"`
	Minimal   object            `json:"minimal"`
	Small     object            `json:"small"`
	Hasty     object            `json:"hasty"`
	Capacity  int               `json:"capacity"`
	Broken    object            `json:"broken"`
	Static    bool              `json:"static"`
	Spare     string            `json:"spare"`
	Requests  map[way]string    `json:"requests"`
	Parallel  int               `json:"parallel"`
	Commands  map[string]string `json:"commands"`
}

// commands that a file may have, each for a shell.
var commandNames = []string{"held", "down", "up", "cut", "mend"}

// load reads a user's subject.
func load(name string) (*subject, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var f file
	if err = decoder.Decode(&f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s, err := f.subject()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (f file) subject() (*subject, error) {
	config := func(n int) (object, error) {
		var o object
		err := json.Unmarshal(bytes.ReplaceAll(f.Config, []byte("{N}"), []byte(strconv.Itoa(10+n%90))), &o)
		return o, err
	}
	first, err := config(0)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	s := &subject{
		Name: f.Name, Interface: f.Interface, Path: f.Path, Env: f.Env, Versions: f.Versions, Minimal: f.Minimal, Hasty: f.Hasty,
		Capacity: f.Capacity, Broken: f.Broken, Chooses: !f.Static, Requests: f.Requests, Parallel: f.Parallel,
		Config: func(n int) object {
			o, _ := config(n) // as valid as the first
			return o
		},
	}
	if f.Small != nil {
		s.Small = func(int) object { return f.Small }
	}
	ipam, _ := first["ipam"].(object)
	ipamType, _ := ipam["type"].(string)
	s.Program, _ = first["type"].(string)
	switch {
	case !s.Interface:
		s.Program = ipamType
	case f.Spare != "":
		s.Executes, s.Spare = ipamType, f.Spare
	}
	if s.Minimal == nil {
		s.Minimal = object{"type": first["type"], "ipam": object{"type": ipamType}}
	}
	if s.Parallel == 0 {
		s.Parallel = 16
	}
	if s.Versions == nil {
		s.Versions = versions
	}
	return s, errors.Join(s.validate(), s.talkBy(f.Commands))
}

func (s *subject) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(s.Name != "" && !strings.ContainsAny(s.Name, "|\n"), "name: %q is no name for a table's column", s.Name)
	check(s.Program != "", "config: its type, or that of its ipam, says which program to run; there is none")
	check(len(s.Path) > 0, "path: missing; name the folders of the programs")
	check((s.Small == nil) == (s.Capacity == 0), "small and capacity belong together")
	for _, v := range s.Versions {
		check(slices.Contains(versions, v), "versions: %q is none of %q", v, versions)
	}
	for w := range s.Requests {
		check(w == byCapability || w == byArgs || w == byCNIArgs, "requests: %q is none of %q", w, []way{byCapability, byArgs, byCNIArgs})
	}
	return errors.Join(errs...)
}

// commandTimeout of a user's command.
const commandTimeout = time.Minute

func (s *subject) talkBy(commands map[string]string) error {
	for name := range commands {
		if !slices.Contains(commandNames, name) {
			return fmt.Errorf("commands: %q is none of %q", name, commandNames)
		}
	}
	shell := func(ctx context.Context, name string) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, commandTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", commands[name])
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("command %s: %w", name, err)
		}
		return out, nil
	}
	run := func(name string) func(context.Context) error {
		if commands[name] == "" {
			return nil
		}
		return func(ctx context.Context) error {
			_, err := shell(ctx, name)
			return err
		}
	}
	s.Outside = outside{Down: run("down"), Up: run("up")}
	if commands["cut"] != "" {
		s.Outside.Cut = func() error { return run("cut")(context.Background()) }
		s.Outside.Mend = func() error { return run("mend")(context.Background()) }
	}
	if commands["held"] != "" {
		s.Outside.Held = func(ctx context.Context) (int, error) {
			out, err := shell(ctx, "held")
			return len(strings.Fields(string(out))), err
		}
	}
	return nil
}

// program finds an executable as libcni does, in the first folder that has it.
func (s *subject) program(name string) (string, error) {
	for _, dir := range s.Path {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", fmt.Errorf("no program %s in %q", name, s.Path)
}
