// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package netns_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/lab/netns"
)

func TestCreateEnterListDelete(t *testing.T) {
	name := fmt.Sprintf("nstest%d-a", os.Getpid())
	path, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if failed := netns.Delete(name); failed != nil {
			t.Error(failed)
		}
	})
	if path != netns.Path(name) {
		t.Errorf("path %s, want %s", path, netns.Path(name))
	}
	if _, err = netns.Create(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v, want ErrExist", err)
	}

	var outside, inside string
	if outside, err = os.Readlink("/proc/thread-self/ns/net"); err != nil {
		t.Fatal(err)
	}
	if err = netns.Do(path, func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if inside == outside {
		t.Error("Do ran in the caller's namespace")
	}

	names, err := netns.List(fmt.Sprintf("nstest%d-", os.Getpid()))
	if err != nil || !slices.Equal(names, []string{name}) {
		t.Errorf("List = %v, %v, want [%s]", names, err, name)
	}
}

func TestDeleteOfNothingSucceeds(t *testing.T) {
	if err := netns.Delete("nstest-absent"); err != nil {
		t.Error(err)
	}
}

func TestDeleteOfAnUnmountedFileRemovesIt(t *testing.T) {
	name := fmt.Sprintf("nstest%d-torn", os.Getpid())
	if err := os.MkdirAll(netns.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(netns.Path(name), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(netns.Path(name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestCreateRefusesAPath(t *testing.T) {
	for _, name := range []string{"", "a/b", ".."} {
		if path, err := netns.Create(name); err == nil {
			t.Errorf("Create(%q) = %s, want an error", name, path)
		}
	}
}
