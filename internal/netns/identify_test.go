// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"os"
	"path/filepath"
	"testing"
)

func TestIdentifyOfTheOwnNamespaceIsOwn(t *testing.T) {
	needRoot(t)
	own, err := Own()
	if err != nil || own.Inode == 0 {
		t.Fatalf("Own = %+v, %v", own, err)
	}
	got, err := Identify("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got.Path = ""; got != own {
		t.Errorf("Identify = %+v, Own = %+v", got, own)
	}
}

func TestIdentifySaysWhatIsMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"no file":        file + "-none",
		"no namespace":   file,
		"no directory":   filepath.Join(file, "x"),
		"ended process":  "/proc/4194305/ns/net", // above PID_MAX_LIMIT
		"another device": "/proc/self/comm",
	} {
		if _, err := Identify(path); err == nil || !Missing(err) {
			t.Errorf("%s: %v is not Missing", name, err)
		}
	}
	if Missing(os.ErrPermission) {
		t.Error("a missing right is not a missing namespace")
	}
}
