// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"archive/zip"
	"bytes"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// TestTheSameSourcesGiveTheSameBytes: built here and in a copy elsewhere, which is no repository.
func TestTheSameSourcesGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	copied := t.TempDir()
	copySources(t, copied)
	first, second := packIn(t, root), packIn(t, copied)
	for _, arch := range []string{"amd64", "arm64"} {
		name := "lambda-" + arch + ".zip"
		if len(first[name]) == 0 || !bytes.Equal(first[name], second[name]) {
			t.Errorf("%s: %d bytes and %d bytes differ", name, len(first[name]), len(second[name]))
		}
		checkZip(t, first[name], map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch])
	}
}

// packIn runs the program with another working folder and home than the other time.
func packIn(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	dist := t.TempDir()
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", "run", "./lambda/pack", "-o", dist)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if n := strings.Count(out.String(), "sha256 "); n != 2 {
		t.Errorf("printed %q", &out)
	}
	zips := map[string][]byte{}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if zips[e.Name()], err = os.ReadFile(filepath.Join(dist, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return zips
}

// copySources copies what `go build ./lambda` reads, and the program itself.
func copySources(t *testing.T, to string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "go.mod", "go.sum", "lambda", "internal")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted just now
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// checkZip looks for what Lambda wants: an executable bootstrap at the top, for the architecture, that needs no libraries.
func checkZip(t *testing.T, data []byte, machine elf.Machine) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if len(z.File) != 1 || z.File[0].Name != "bootstrap" || z.File[0].Mode() != 0o755 || !z.File[0].Modified.Equal(packedAt.In(time.UTC)) {
		t.Fatalf("the zip has %+v", z.File)
	}
	file, err := z.File[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	program, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	e, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	if libraries, err := e.ImportedLibraries(); err != nil || len(libraries) != 0 || e.Machine != machine {
		t.Errorf("for %s with libraries %v, %v", e.Machine, libraries, err)
	}
	if bytes.Contains(program, []byte("net/rpc.")) {
		t.Error("it has net/rpc: the tag lambda.norpc is missing")
	}
}
