// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The stand-in is this program under the name of an IPAM plugin: it answers as its script says and keeps a record.
const scriptFile, recordFile = "script.json", "record"

// script says what the stand-in does.
type script struct {
	Fail   []string `json:"fail"`   // commands
	Result object   `json:"result"` // of ADD
}

// entry is one call of the stand-in.
type entry struct {
	Command string            `json:"command"`
	Env     map[string]string `json:"env"` // CNI_*
	Stdin   json.RawMessage   `json:"stdin"`
}

// standInCode is the code of its errors, which must reach the runtime.
const standInCode = 123

// isStandIn reports whether this process was started under another name beside a script.
func isStandIn(argv0 string) bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(argv0), scriptFile))
	return err == nil
}

// standIn is the whole life of such a process.
func standIn(argv0 string, stdin io.Reader, stdout, stderr io.Writer) int {
	dir := filepath.Dir(argv0)
	answer, ok, err := play(dir, stdin)
	if err != nil {
		fmt.Fprintln(stderr, "stand-in:", err)
		return 1
	}
	if _, err := stdout.Write(answer); err != nil || !ok {
		return 1
	}
	return 0
}

func play(dir string, stdin io.Reader) (answer []byte, ok bool, err error) {
	text, err := os.ReadFile(filepath.Join(dir, scriptFile))
	if err != nil {
		return nil, false, err
	}
	var s script
	if err = json.Unmarshal(text, &s); err != nil {
		return nil, false, err
	}
	e := entry{Command: os.Getenv("CNI_COMMAND"), Env: map[string]string{}}
	if e.Stdin, err = io.ReadAll(stdin); err != nil {
		return nil, false, err
	}
	for _, pair := range os.Environ() {
		if name, value, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "CNI_") {
			e.Env[name] = value
		}
	}
	if e.Command == "VERSION" {
		answer, err = json.Marshal(object{"cniVersion": "1.1.0", "supportedVersions": versions})
		return answer, true, err
	}
	if err = record(dir, e); err != nil {
		return nil, false, err
	}
	var config struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err = json.Unmarshal(e.Stdin, &config); err != nil {
		return nil, false, err
	}
	if slices.Contains(s.Fail, e.Command) {
		answer, err = json.Marshal(object{"cniVersion": config.CNIVersion, "code": standInCode, "msg": "as the script says"})
		return answer, false, err
	}
	if e.Command == "ADD" {
		answer, err = json.Marshal(merge(s.Result, object{"cniVersion": config.CNIVersion}))
	}
	return answer, true, err
}

func record(dir string, e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, recordFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// cast is a folder with a stand-in, before all others in CNI_PATH.
type cast struct {
	dir  string
	path string // CNI_PATH
}

// cast puts the stand-in in the place of the subject's IPAM plugin. The caller removes its folder.
func (k *kit) cast(s script) (c cast, err error) {
	if c.dir, err = os.MkdirTemp(k.ground.dir, "stand-in-"); err != nil {
		return c, err
	}
	c.path = strings.Join(append([]string{c.dir}, k.subject.Path...), ":")
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return c, err
	}
	return c, errors.Join(
		os.Symlink(self, filepath.Join(c.dir, k.subject.Executes)),
		os.WriteFile(filepath.Join(c.dir, scriptFile), text, 0o600))
}

// calls are those of the stand-in so far.
func (c cast) calls() (list []entry, err error) {
	text, err := os.ReadFile(filepath.Join(c.dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// count is how often the stand-in was called so.
func (c cast) count(command string) (int, error) {
	list, err := c.calls()
	n := 0
	for _, e := range list {
		if e.Command == command {
			n++
		}
	}
	return n, err
}
