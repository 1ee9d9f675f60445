// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceSwapsAPluginWhole(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "vpcipam"), filepath.Join(t.TempDir(), "vpcipam")
	write(t, from, "new", 0o600)
	write(t, to, "old", 0o700)
	running, err := os.Open(to) // as a process that executes it
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()

	if err = replace(from, to); err != nil {
		t.Fatal(err)
	}
	installed, err := os.ReadFile(to)
	if err != nil || string(installed) != "new" {
		t.Errorf("installed %q, %v; want the new one", installed, err)
	}
	open, err := io.ReadAll(running)
	if err != nil || string(open) != "old" {
		t.Errorf("who had it open reads %q, %v; want the old one", open, err)
	}
	info, err := os.Stat(to)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v; want 0755", info.Mode(), err)
	}
	onlyFile(t, filepath.Dir(to), "vpcipam")
}

func TestReplaceThatFailsLeavesTheOldOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	to := filepath.Join(dir, "vpcipam")
	write(t, to, "old", 0o755)
	for name, from := range map[string]string{
		"no source":              filepath.Join(dir, "absent"),
		"source that breaks off": dir, // read(2) of a folder fails, after the new file was made
	} {
		if err := replace(from, to); err == nil {
			t.Errorf("%s: no error", name)
		}
		if text, err := os.ReadFile(to); err != nil || string(text) != "old" {
			t.Errorf("%s: installed is %q, %v; want the old one", name, text, err)
		}
		onlyFile(t, dir, "vpcipam")
	}
}

func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the folder has %v, %v; want %s alone", entries, err, name)
	}
}

func TestInstallNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if err := install(""); err != nil {
		t.Errorf("an empty --cni-bin-dir: %v, want nothing to happen", err)
	}
	dir := t.TempDir()
	err := install(dir) // no plugins are beside the test's executable
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("error %v, want that a file does not exist", err)
	}
	self, exeErr := os.Executable()
	if exeErr != nil {
		t.Fatal(exeErr)
	}
	for _, words := range []string{"install vpcipam in --cni-bin-dir " + dir, filepath.Join(filepath.Dir(self), "vpcipam")} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("error %q lacks %q", err, words)
		}
	}
}
