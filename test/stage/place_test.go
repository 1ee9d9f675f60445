// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

// TestMain keeps the process's first thread where it is.
func TestMain(m *testing.M) {
	runtime.LockOSThread() // the main goroutine still runs on the first thread
	os.Exit(m.Run())
}

func TestAPlaceShowsItsOwnPodsAlone(t *testing.T) {
	worker, err := netns.Create(fmt.Sprintf("stageplace%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if deleteErr := netns.Delete(filepath.Base(worker)); deleteErr != nil {
			t.Error(deleteErr)
		}
	})
	pods := filepath.Join(t.TempDir(), "pods")
	p, err := Enter(worker, pods)
	if err != nil {
		t.Fatal(err)
	}
	path, err := p.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	var outside, inside unix.Stat_t
	if err = unix.Stat(path, &outside); err != nil {
		t.Error(err)
	}
	if err = p.Do(func() error { return unix.Stat(p.Inside("a"), &inside) }); err != nil {
		t.Error(err)
	}
	if outside.Ino != inside.Ino || outside.Dev != inside.Dev {
		t.Errorf("the pod's namespace is %d:%d outside and %d:%d inside", outside.Dev, outside.Ino, inside.Dev, inside.Ino)
	}
	if err = p.Do(func() error { return unix.Stat(worker, &inside) }); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a namespace that is not a pod's of the worker: %v, want it absent", err)
	}
	if err = errors.Join(p.Remove("a"), p.Remove("a")); err != nil {
		t.Error(err)
	}
	if err = p.Do(func() error { return unix.Stat(p.Inside("a"), &inside) }); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a removed namespace inside: %v, want it absent", err)
	}
	if err = p.Leave(); err != nil {
		t.Error(err)
	}
}
