// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package process is the frame of a CNI plugin: it reads the call out of environment and standard input, refuses what the
// specification refuses, and prints errors. It does what the specification's own frame does
// (github.com/containernetworking/cni/pkg/skel), with the same codes and words, in half of its time: the configuration is
// parsed once, and no expression is compiled. Beyond that frame it does three things that the specification asks for:
// errors have the cniVersion in use and name the variable that is wrong, and VERSION answers in the version of the
// question. And it refuses to ADD interfaces whose names would not stay as they are. Results are printed by the plugins;
// what a call does belongs to them.
package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/multus-vpc/multus-vpc/internal/netconf"
)

// Call is what a runtime asks for.
type Call struct {
	Command string // CNI_COMMAND
	// ContainerID, IfName and Netns are those of ADD, CHECK and DEL; Netns may be empty in a DEL.
	ContainerID, IfName, Netns string
	Args                       string // CNI_ARGS
	// NetnsOverride allows Netns to be the plugin's own (CNI_NETNS_OVERRIDE).
	NetnsOverride bool
	// Stdin is the configuration as it came, for plugins that this one calls; Config is the same, taken apart.
	Stdin  []byte
	Config netconf.Document
	opened bool // Config is one
}

// Plugin is a function for each command. An error that is a [types.Error] is printed as it is, others get code 999.
type Plugin struct {
	// About is said on standard error when the process was started without CNI_COMMAND, by a person.
	About                       string
	Add, Del, Check, Status, GC func(Call) error
}

// OutliveReaders makes a write to standard output or error that nobody reads an error. Without it the write ends the process, and a
// plugin whose runtime was killed neither undoes its ADD nor leaves word of its DEL.
func OutliveReaders() { signal.Ignore(syscall.SIGPIPE) }

// Run serves the one call of this process and returns its exit status. Errors are printed as the specification wants
// them: https://github.com/containernetworking/cni/blob/main/SPEC.md#error
func (p Plugin) Run(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	version, err := p.serve(getenv, stdin, stdout, stderr)
	if err == nil {
		return 0
	}
	e, coded := errors.AsType[*types.Error](err)
	if !coded {
		e = types.NewError(types.ErrInternal, err.Error(), "")
	}
	text, err := json.MarshalIndent(failure{version, e}, "", "    ")
	if err == nil {
		_, err = stdout.Write(append(text, '\n'))
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "write the error:", err) // nobody is left to tell
	}
	return 1
}

// failure is an error object.
type failure struct {
	CNIVersion string `json:"cniVersion"`
	*types.Error
}

// serve returns the version in use beside the error: the configuration's, or our newest as long as that is not known or
// not understood.
func (p Plugin) serve(getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) (version string, err error) {
	version = newest()
	command := getenv("CNI_COMMAND")
	switch {
	case command == "" && p.About != "":
		_, err = fmt.Fprintf(stderr, "%s\nCNI protocol versions supported: %s\n", p.About, strings.Join(supported, ", "))
		return version, err
	case command == "VERSION":
		return version, printVersions(stdin, stdout)
	}
	call, err := read(getenv, stdin)
	if v, ok := call.Config.CNIVersion(); call.opened && ok && slices.Contains(versions, v) {
		version = v
	}
	if err != nil {
		return version, err
	}
	do, since := p.function(command)
	if do == nil {
		return version, types.NewError(types.ErrInvalidEnvironmentVariables, "unknown CNI_COMMAND: "+command, "")
	}
	asked, ok := call.Config.CNIVersion()
	if !ok {
		return version, types.NewError(types.ErrDecodingFailure, "network configuration: cniVersion is not a string", "")
	}
	if err := checkVersion(command, since, asked); err != nil {
		return version, err
	}
	return version, do(call)
}

// printVersions answers VERSION with "the value of cniVersion specified on input". Who specified none, or one that we do
// not have, gets our newest: the answer must not claim more.
// https://github.com/containernetworking/cni/blob/main/SPEC.md#version-probe-plugin-version-support
func printVersions(stdin io.Reader, stdout io.Writer) error {
	answer := struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{newest(), supported}
	var question struct {
		CNIVersion string `json:"cniVersion"`
	}
	text, err := io.ReadAll(stdin)
	if err == nil && json.Unmarshal(text, &question) == nil && slices.Contains(supported, question.CNIVersion) {
		answer.CNIVersion = question.CNIVersion
	}
	return json.NewEncoder(stdout).Encode(answer)
}

// function is what serves a command, and the version of the specification that brought it, "" for those of the first.
func (p Plugin) function(command string) (do func(Call) error, since string) {
	switch command {
	case "ADD":
		return p.Add, ""
	case "DEL":
		return p.Del, ""
	case "CHECK":
		return p.Check, "0.4.0"
	case "STATUS":
		return p.Status, "1.1.0"
	case "GC":
		return p.GC, "1.1.0"
	}
	return nil, ""
}

// supported are the versions of the specification in their order; those before them are understood by DEL alone: what was
// ADDed must go even if the configuration was cut down to name and type since, and one without cniVersion counts as 0.1.0.
var (
	versions  = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	supported = versions[2:]
)

func newest() string { return supported[len(supported)-1] }

func checkVersion(command, since, version string) error {
	known := supported
	if command == "DEL" {
		known = versions
	}
	switch i := slices.Index(versions, version); {
	case i >= 0 && i < slices.Index(versions, since):
		return types.NewError(types.ErrIncompatibleCNIVersion, "config version does not allow "+command, "")
	case !slices.Contains(known, version):
		return types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI versions",
			fmt.Sprintf("config is %q, plugin supports %q", version, known))
	}
	return nil
}
