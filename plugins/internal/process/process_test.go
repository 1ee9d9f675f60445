// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"
)

// bySkel is the plugin in the specification's own frame, which reads and writes the process's own files and environment.
func bySkel(t *testing.T, stdin string, env map[string]string) outcome {
	t.Helper()
	for _, k := range []string{"CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "CNI_ARGS", "CNI_NETNS_OVERRIDE"} {
		t.Setenv(k, env[k]) // to both frames, empty is absent
	}
	var files [3]*os.File
	for i, standard := range []**os.File{&os.Stdin, &os.Stdout, &os.Stderr} {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		defer func(was *os.File) { *standard = was }(*standard)
		files[i], *standard = f, f
	}
	if _, err := files[0].WriteAt([]byte(stdin), 0); err != nil {
		t.Fatal(err)
	}
	do := func(command string) func(*skel.CmdArgs) error {
		return func(a *skel.CmdArgs) error {
			return report(files[1], command, a.ContainerID, a.IfName, a.Netns, a.Args, string(a.StdinData))
		}
	}
	known := []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}
	if env["CNI_COMMAND"] == "DEL" {
		known = append([]string{"0.1.0", "0.2.0"}, known...)
	}
	funcs := skel.CNIFuncs{Add: do("ADD"), Del: do("DEL"), Check: do("CHECK"), Status: do("STATUS"), GC: do("GC")}
	o := outcome{}
	if e := skel.PluginMainFuncsWithError(funcs, version.PluginSupports(known...), "a plugin"); e != nil {
		o.Status = 1
		if err := e.Print(); err != nil {
			t.Fatal(err)
		}
	}
	for i, text := range []*string{1: &o.Stdout, 2: &o.Stderr} {
		if text == nil {
			continue
		}
		content, err := os.ReadFile(files[i].Name())
		if err != nil {
			t.Fatal(err)
		}
		*text = strings.TrimSpace(string(content))
	}
	return o
}

// byUs is the same plugin in our frame.
func byUs(stdin string, env map[string]string) outcome {
	var stdout, stderr bytes.Buffer
	do := func(c Call) error {
		return report(&stdout, c.Command, c.ContainerID, c.IfName, c.Netns, c.Args, string(c.Stdin))
	}
	p := Plugin{About: "a plugin", Add: do, Del: do, Check: do, Status: do, GC: do}
	status := p.Run(func(k string) string { return env[k] }, strings.NewReader(stdin), &stdout, &stderr)
	return outcome{status, strings.TrimSpace(stdout.String()), strings.TrimSpace(stderr.String())}
}

// report is what both plugins do: they print what they were called with, and fail when the container's name says so.
func report(stdout io.Writer, command, container string, rest ...string) error {
	switch container {
	case "coded":
		return fmt.Errorf("wrapped: %w", types.NewError(111, "a message", "details"))
	case "plain":
		return errors.New("something happened")
	}
	return json.NewEncoder(stdout).Encode(append([]string{command, container}, rest...))
}

// outcome is what a runtime sees.
type outcome struct {
	Status         int
	Stdout, Stderr string
}

// asSkel takes away what we say beyond skel.
func asSkel(o outcome) outcome {
	if o.Status == 0 {
		for _, v := range supported {
			o.Stdout = strings.Replace(o.Stdout, `{"cniVersion":"`+v+`","supportedVersions"`, `{"cniVersion":"1.1.0","supportedVersions"`, 1)
		}
		return o
	}
	lines := strings.SplitAfterN(o.Stdout, "\n", 3) // {, cniVersion, the rest
	if len(lines) == 3 && strings.HasPrefix(lines[1], `    "cniVersion": `) {
		o.Stdout = lines[0] + lines[2]
	}
	for _, variable := range []string{"CNI_CONTAINERID: ", "CNI_IFNAME: "} {
		o.Stdout = strings.Replace(o.Stdout, `"msg": "`+variable, `"msg": "`, 1)
	}
	return o
}

func TestErrorsHaveTheVersionInUse(t *testing.T) {
	env := map[string]string{"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "plain", "CNI_IFNAME": "net1", "CNI_PATH": "/x"}
	for stdin, want := range map[string]string{
		`{"cniVersion": "0.3.1", "name": "n6"}`:  "0.3.1",
		`{"cniVersion": "0.3.1", "name": "a b"}`: "0.3.1",
		`{"name": "n6"}`:                         "0.1.0",
		`{"cniVersion": "9.9.9", "name": "n6"}`:  "1.1.0",
		`{"cniVersion": 1, "name": "n6"}`:        "1.1.0",
		`{`:                                      "1.1.0",
	} {
		var e struct {
			CNIVersion string
			Code       uint
		}
		if o := byUs(stdin, env); json.Unmarshal([]byte(o.Stdout), &e) != nil || e.CNIVersion != want || e.Code == 0 {
			t.Errorf("%s: %+v, want cniVersion %s", stdin, o, want)
		}
	}
}

func TestVersionIsAnsweredInTheVersionOfTheQuestion(t *testing.T) {
	for stdin, want := range map[string]string{
		`{"cniVersion": "0.4.0"}`: "0.4.0",
		`{"cniVersion": "1.1.0"}`: "1.1.0",
		`{"cniVersion": "0.1.0"}`: "1.1.0", // not ours to answer in
		`{"cniVersion": "2.0.0"}`: "1.1.0",
		``:                        "1.1.0",
		`[]`:                      "1.1.0",
	} {
		var answer struct{ CNIVersion string }
		o := byUs(stdin, map[string]string{"CNI_COMMAND": "VERSION"})
		if err := json.Unmarshal([]byte(o.Stdout), &answer); err != nil || o.Status != 0 || answer.CNIVersion != want {
			t.Errorf("%s: %+v, want cniVersion %s", stdin, o, want)
		}
	}
}

// TestCallsAreTakenAndRefusedAsBySkel compares with the specification's own frame, word by word
// but for what the package comment says.
func TestCallsAreTakenAndRefusedAsBySkel(t *testing.T) {
	const conf = `{"cniVersion": "1.1.0", "name": "n6", "type": "x"}`
	base := map[string]string{
		"CNI_CONTAINERID": "c1", "CNI_IFNAME": "net1", "CNI_NETNS": "/run/netns/none", "CNI_PATH": "/opt/cni/bin", "CNI_ARGS": "A=b",
	}
	commands := []string{"ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION", "add", ""}
	compare := func(stdin string, change map[string]string) {
		t.Helper()
		for _, command := range commands {
			env := map[string]string{"CNI_COMMAND": command}
			for _, m := range []map[string]string{base, change} {
				for k, v := range m {
					env[k] = v
				}
			}
			if diff := cmp.Diff(bySkel(t, stdin, env), asSkel(byUs(stdin, env))); diff != "" {
				t.Errorf("%s with %v and %s (-skel +ours):\n%s", command, change, stdin, diff)
			}
		}
	}
	compare(conf, nil)
	for name, values := range map[string][]string{
		"CNI_CONTAINERID": {"", "a_b.c-1", "-a", "a/b", "é", "coded", "plain"},
		"CNI_IFNAME":      {"", ".", "..", "a/b", "a:b", "a b", "a\u00a0b", "fifteen-letters", "sixteen-letters-", "n\tx"},
		"CNI_NETNS":       {"", "/proc/self/comm"},
		"CNI_PATH":        {""},
		"CNI_ARGS":        {""},
	} {
		for _, value := range values {
			compare(conf, map[string]string{name: value})
		}
	}
	compare(conf, map[string]string{"CNI_IFNAME": "", "CNI_NETNS": "", "CNI_CONTAINERID": "", "CNI_PATH": ""})
	for _, v := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", ""} {
		compare(`{"cniVersion": "`+v+`", "name": "n6"}`, nil)
	}
	for _, stdin := range []string{`{"name": "n6"}`, `{"cniVersion": "1.1.0"}`, `{"cniVersion": "1.1.0", "name": "a b"}`, `{"cniVersion": "1.1.0", "name": ""}`} {
		compare(stdin, nil)
	}
}

// TestNamesThatWouldNotLastAreRefused: the kernel makes net0 of net%d, which DEL would not find, and two names that are no UTF-8 would be
// one in the agent's JSON. A DEL goes on: an ADD of before may have made something.
func TestNamesThatWouldNotLastAreRefused(t *testing.T) {
	const conf = `{"cniVersion": "1.1.0", "name": "n6", "type": "x"}`
	env := map[string]string{"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/none", "CNI_PATH": "/x"}
	for _, name := range []string{"net%d", "%", "net\xff"} {
		env["CNI_IFNAME"] = name
		for command, refused := range map[string]bool{"ADD": true, "DEL": false} {
			env["CNI_COMMAND"] = command
			o := byUs(conf, env)
			if got := strings.Contains(o.Stdout, "CNI_IFNAME: interface name contains a percent sign or is no UTF-8"); got != refused {
				t.Errorf("%s of %q: %+v, want refused: %t", command, name, o, refused)
			}
			if refused && !strings.Contains(o.Stdout, `"code": 4`) {
				t.Errorf("%s of %q: %s, want code 4", command, name, o.Stdout)
			}
		}
	}
}

// What skel words by encoding/json is worded for the person who wrote the configuration; the codes are the same.
func TestUnreadableConfigurationHasTheCodeOfSkel(t *testing.T) {
	env := map[string]string{
		"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "net1", "CNI_NETNS": "/run/netns/none", "CNI_PATH": "/x",
	}
	for stdin, says := range map[string]string{
		`{"name"`:                                "the network configuration is not JSON",
		``:                                       "the network configuration is not JSON",
		`[]`:                                     "the network configuration is not a JSON object",
		`{"name": 6}`:                            "name is not a string",
		`{"cniVersion": 1.0, "name": "n6"}`:      "cniVersion is not a string",
		`{"cniVersion": "2.0.0", "name": "n6"}`:  "incompatible CNI versions",
		`{"cniVersion": "latest", "name": "n6"}`: "incompatible CNI versions",
	} {
		code := func(o outcome) (e types.Error) {
			if err := json.Unmarshal([]byte(o.Stdout), &e); err != nil || o.Status != 1 {
				t.Errorf("%s: %+v, %v", stdin, o, err)
			}
			return e
		}
		want, got := code(bySkel(t, stdin, env)), code(byUs(stdin, env))
		if got.Code != want.Code || !strings.Contains(got.Msg, says) {
			t.Errorf("%s: %+v, want code %d and %q", stdin, got, want.Code, says)
		}
	}
}
