// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package tombstone_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/tombstone"
)

func note(container string) tombstone.Note {
	return tombstone.Note{
		Key: attachment.Key{ContainerID: container, IfName: "net1"}, Network: "n6",
		Moment: tombstone.Moment{BootID: "b", BootTime: 7},
	}
}

func TestNoteIsFoundUntilItIsRemoved(t *testing.T) {
	dir := tombstone.Dir(filepath.Join(t.TempDir(), "agent", "deleted"))
	n := note("c1")
	if _, found, err := dir.Find(n.Key); found || err != nil {
		t.Errorf("Find without a folder: %v, %v", found, err)
	}
	if err := dir.Remove(n.Key); err != nil {
		t.Errorf("Remove without a folder: %v", err)
	}
	for range 2 { // the second note replaces the first
		n.BootTime++
		if err := dir.Write(n); err != nil {
			t.Fatal(err)
		}
	}
	if got, found, err := dir.Find(n.Key); got != n || !found || err != nil {
		t.Errorf("Find = %+v, %v, %v", got, found, err)
	}
	if got, damaged, err := dir.List(); len(got) != 1 || got[0] != n || damaged != 0 || err != nil {
		t.Errorf("List = %+v, %d, %v", got, damaged, err)
	}
	if err := dir.Remove(n.Key); err != nil {
		t.Fatal(err)
	}
	if got, _, err := dir.List(); len(got) != 0 || err != nil {
		t.Errorf("List after Remove = %+v, %v", got, err)
	}
}

func TestTornNoteIsCountedAndHarmsNoOther(t *testing.T) {
	tmp := t.TempDir()
	dir := tombstone.Dir(tmp)
	if err := dir.Write(note("c1")); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(tmp, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Write(note("c2")); err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) - 1 { // without the last byte, the newline, it is whole
		if err := os.WriteFile(files[0], whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, found, err := dir.Find(note("c1").Key); found || err != nil {
			t.Errorf("cut at %d: Find = %v, %v", cut, found, err)
		}
		if got, damaged, err := dir.List(); len(got) != 1 || got[0] != note("c2") || damaged != 1 || err != nil {
			t.Errorf("cut at %d: List = %+v, %d, %v", cut, got, damaged, err)
		}
	}
}

func TestUnfinishedFilesAreNoNotes(t *testing.T) {
	tmp := t.TempDir()
	if err := os.WriteFile(filepath.Join(tmp, "writing-1"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, damaged, err := tombstone.Dir(tmp).List(); len(got) != 0 || damaged != 0 || err != nil {
		t.Errorf("List = %+v, %d, %v", got, damaged, err)
	}
}

func TestFolderThatCannotBeMadeIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tombstone.Dir(filepath.Join(file, "deleted")).Write(note("c1")); err == nil {
		t.Error("Write succeeded")
	}
}

func TestNowMovesOn(t *testing.T) {
	a, err := tombstone.Now()
	if err != nil {
		t.Fatal(err)
	}
	b, err := tombstone.Now()
	if err != nil || a.BootID == "" || a.BootID != b.BootID || b.BootTime < a.BootTime || a.BootTime <= 0 {
		t.Errorf("%+v then %+v, %v", a, b, err)
	}
}

// The folder behaves as a map from attachment to note.
func TestDirIsAMap(t *testing.T) {
	base := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := tombstone.Dir(filepath.Join(base, fmt.Sprint(runs)))
		model := map[attachment.Key]tombstone.Note{}
		key := rapid.Custom(func(t *rapid.T) attachment.Key {
			return attachment.Key{
				ContainerID: rapid.SampledFrom([]string{"a", "a/b", "..", "c"}).Draw(t, "container"),
				IfName:      rapid.SampledFrom([]string{"b/c", "c", "net1"}).Draw(t, "interface"),
			}
		})
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				n := note("")
				n.Key = key.Draw(t, "key")
				n.BootTime = time.Duration(rapid.Int64().Draw(t, "boot time"))
				if err := dir.Write(n); err != nil {
					t.Fatal(err)
				}
				model[n.Key] = n
			},
			"remove": func(t *rapid.T) {
				k := key.Draw(t, "key")
				if err := dir.Remove(k); err != nil {
					t.Fatal(err)
				}
				delete(model, k)
			},
			"": func(t *rapid.T) {
				notes, damaged, err := dir.List()
				if err != nil || damaged != 0 {
					t.Fatal(damaged, err)
				}
				got := map[attachment.Key]tombstone.Note{}
				for _, n := range notes {
					got[n.Key] = n
				}
				if diff := cmp.Diff(model, got); diff != "" {
					t.Fatalf("notes (-model +folder):\n%s", diff)
				}
			},
		})
	})
}
