// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestIsOwnTellsTheOwnNamespaceFromAnother(t *testing.T) {
	needRoot(t)
	other := filepath.Join(t.TempDir(), "ns")
	makeNetns(t, other)
	defer removeNetns(other)
	for path, want := range map[string]bool{
		"/proc/thread-self/ns/net": true, other: false, other + "-none": false, "": false, "/proc/self/comm": false,
	} {
		if own, err := IsOwn(path); err != nil || own != want {
			t.Errorf("%q leads to the own one: %t, %v", path, own, err)
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

func TestIdentifyRefusesWhatIsNoNamespace(t *testing.T) {
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
		if n, err := Identify(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
	}
}
