// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package tombstone

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
)

// seeds are files, and whether each is a note.
func seeds() map[string]bool {
	return map[string]bool{
		`{"containerID":"c1","ifName":"net1","network":"n6","bootID":"b","bootTime":7}` + "\n": true,
		`{"containerID":"c1","ifName":"net1"}`:                                                 true,
		`{"containerID":"c1","ifName":"net1","later":{"of":1}}`:                                true, // a newer plugin's
		`{"containerID":"c1","ifName":"net1","bootTime":-9223372036854775808}`:                 true,
		`{"containerID":"c1"}`: false,
		`{"ifName":"net1"}`:    false,
		`{"containerID":"c1","ifName":"net1","bootTime":"7"}`:                  false,
		`{"containerID":"c1","if`:                                              false,
		`{"containerID":"c1","ifName":"` + strings.Repeat("x", longest) + `"}`: false,
		"\x00\x00\x00": false,
		`null`:         false,
		``:             false,
	}
}

func TestSeedsOfNotes(t *testing.T) {
	for text, want := range seeds() {
		if n, err := parse([]byte(text)); (err == nil) != want {
			t.Errorf("%.80s: %+v, %v; want a note: %t", text, n, err, want)
		}
	}
}

// FuzzParse: what is accepted names an attachment, and reads the same when it is written; all else is the zero Note.
func FuzzParse(f *testing.F) {
	for text := range seeds() {
		if len(text) < 1<<10 { // what is too long fuzzes too slowly
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parse(text)
		if err != nil {
			if n != (Note{}) {
				t.Errorf("%q gives %+v and %v", text, n, err)
			}
			return
		}
		if n.ContainerID == "" || n.IfName == "" {
			t.Errorf("%q is accepted as %+v", text, n)
		}
		written, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parse(written); len(written) <= longest && (again != n || err != nil) {
			t.Errorf("%+v, written and read, is %+v, %v", n, again, err)
		}
	})
}

// TestNoteUnderAnothersNameIsNone: Remove could never take it away, so that it would free its attachment for ever.
func TestNoteUnderAnothersNameIsNone(t *testing.T) {
	dir := Dir(t.TempDir())
	k := attachment.Key{ContainerID: "c1", IfName: "net1"}
	if err := dir.Write(Note{Key: k}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir.path(k), filepath.Join(string(dir), "copy"+suffix)); err != nil {
		t.Fatal(err)
	}
	if notes, damaged, err := dir.List(); len(notes) != 0 || damaged != 1 || err != nil {
		t.Errorf("List = %+v, %d, %v, want one damaged", notes, damaged, err)
	}
}
