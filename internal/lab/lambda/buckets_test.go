// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"archive/zip"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packed writes a package of files with their modes.
func packed(t *testing.T, path string, files map[string]fs.FileMode) {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(out)
	for name, mode := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("content of " + name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAPackageIsUnpacked(t *testing.T) {
	bucket, work := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", work)
	packed(t, filepath.Join(bucket, "f.zip"), map[string]fs.FileMode{"bootstrap": 0o755, "data/x.txt": 0o644})
	b := NewBuckets(map[string]string{"b": bucket})
	program, err := b.Program("b", "f.zip")
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"bootstrap": 0o755, "data/x.txt": 0o644} {
		path := filepath.Join(filepath.Dir(program), name)
		content, readErr := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if readErr != nil || statErr != nil || string(content) != "content of "+name || info.Mode() != mode {
			t.Errorf("%s: %q, %v, %v, %v", name, content, info, readErr, statErr)
		}
	}
	other, err := b.Program("b", "f.zip")
	if err != nil || other == program {
		t.Errorf("the second function shares the folder of the first: %s, %v", other, err)
	}
	closed(t, b, work)
}

// closed: nothing is left in the folder for what is temporary.
func closed(t *testing.T, b *Buckets, work string) {
	t.Helper()
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(work)
	if err != nil || len(left) != 0 {
		t.Errorf("%d folders are left, %v", len(left), err)
	}
}

func TestPackagesThatAreNone(t *testing.T) {
	bucket, work := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", work)
	packed(t, filepath.Join(bucket, "none.zip"), map[string]fs.FileMode{"main": 0o755})
	packed(t, filepath.Join(bucket, "mode.zip"), map[string]fs.FileMode{"bootstrap": 0o644})
	packed(t, filepath.Join(bucket, "slip.zip"), map[string]fs.FileMode{"bootstrap": 0o755, "../slip": 0o644})
	if err := os.WriteFile(filepath.Join(bucket, "text.zip"), []byte("no zip"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := NewBuckets(map[string]string{"b": bucket})
	for at, want := range map[string]string{
		"b/none.zip": "has no executable bootstrap", "b/mode.zip": "has no executable bootstrap", "b/slip.zip": "slip",
		"b/text.zip": "could not unzip", "b/absent.zip": "NoSuchKey", "b/../b/none.zip": "NoSuchKey", "c/none.zip": "NoSuchBucket", "b//etc/passwd": "NoSuchKey",
	} {
		name, key, _ := strings.Cut(at, "/")
		if _, err := b.Program(name, key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q", at, err, want)
		}
	}
	closed(t, b, work)
}
