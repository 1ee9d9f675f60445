// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestIsOwnTellsTheOwnNamespaceFromAnother(t *testing.T) {
	needRoot(t)
	other := filepath.Join(t.TempDir(), "ns")
	makeNetns(t, other)
	defer removeNetns(other)
	for path, want := range map[string]bool{"/proc/thread-self/ns/net": true, other: false} {
		n, err := Identify(path)
		if err != nil {
			t.Fatal(err)
		}
		if own, err := IsOwn(n); err != nil || own != want || n.Inode == 0 || n.Path != path {
			t.Errorf("%+v is the own one: %t, %v", n, own, err)
		}
	}
}

func TestIdentifySeesWhatAThreadInsideSeesAndComesHome(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "ns")
	makeNetns(t, path)
	want, err := look(path)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Identify(path); err != nil || got != want || got.Cookie == 0 {
		t.Errorf("Identify = %+v, %v, want %+v", got, err, want)
	}
	if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != home {
		t.Errorf("the thread is in %s, was in %s (%v)", now, home, err)
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
