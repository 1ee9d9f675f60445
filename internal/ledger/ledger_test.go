// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var here = Identity{InstanceID: "i-0a", BootID: "boot-1"}

func mustOpen(t testing.TB, dir string, id Identity) (*Ledger, Opened) {
	t.Helper()
	l, found, err := Open(dir, id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return l, found
}

func mustPut(t testing.TB, l *Ledger, entries ...Entry) {
	t.Helper()
	if err := l.Put(entries...); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func mustClose(t testing.TB, l *Ledger) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

func set(key, value string) Entry { return Entry{Key: key, Value: json.RawMessage(value)} }

func del(key string) Entry { return Entry{Key: key} }

// text makes entries comparable and readable.
func text(m map[string]json.RawMessage) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = string(v)
	}
	return out
}

func wantEntries(t testing.TB, got map[string]json.RawMessage, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, text(got)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// edit changes the closed ledger file in dir.
func edit(t testing.TB, dir string, change func([]byte) []byte) {
	t.Helper()
	name := filepath.Join(dir, ledgerName)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsPutIsReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	l, found := mustOpen(t, dir, here)
	if diff := cmp.Diff(Opened{Entries: map[string]json.RawMessage{}}, found); diff != "" {
		t.Errorf("new ledger (-want +got):\n%s", diff)
	}
	mustPut(t, l, set("a", `1`), set("b", "{\n \"x\": \"<&>\u2028\"\n}"), set("c", `null`))
	mustPut(t, l, del("a"), set("d/net1", `[]`), set("b2", `"é"`))
	mustPut(t, l)
	mustClose(t, l)

	_, found = mustOpen(t, dir, here)
	wantEntries(t, found.Entries, map[string]string{
		"b": "{\"x\":\"<&>\u2028\"}", "b2": `"é"`, "c": `null`, "d/net1": `[]`,
	})
	if found.Rebooted || found.SetAside != "" || found.Damaged != 0 {
		t.Errorf("Open found something else than entries: %+v", found)
	}
}

func TestPutRefusesWhatCouldNotBeReadBack(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), here)
	before := l.Stats()
	for name, e := range map[string]Entry{
		"value is not JSON": set("k", `{"a":`),
		"empty value":       set("k", ``),
		"two values":        set("k", `1 2`),
		"key is not UTF-8":  set("k\xff", `1`),
	} {
		t.Run(name, func(t *testing.T) {
			if err := l.Put(set("good", `1`), e); err == nil {
				t.Error("Put succeeded")
			}
			if diff := cmp.Diff(before, l.Stats()); diff != "" {
				t.Errorf("the file changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSecondOpenIsRefusedUntilTheFirstCloses(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, here)
	if _, _, err := Open(dir, here); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open: %v, want ErrLocked", err)
	}
	mustClose(t, l)
	mustClose(t, l)
	if err := l.Put(set("a", `1`)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Put after Close: %v, want os.ErrClosed", err)
	}
	mustOpen(t, dir, here)
}

func TestIdentityMustBeKnown(t *testing.T) {
	for _, id := range []Identity{{}, {InstanceID: "i-0a"}, {BootID: "boot-1"}} {
		if l, _, err := Open(t.TempDir(), id); err == nil {
			l.Close()
			t.Errorf("Open with %+v succeeded", id)
		}
	}
}

func TestRebootIsReportedUntilThePutThatActsOnIt(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, here)
	mustPut(t, l, set("a", `"held"`))
	mustClose(t, l)

	after := Identity{InstanceID: here.InstanceID, BootID: "boot-2"}
	var found Opened
	for range 2 { // a crash before the first Put forgets nothing
		l, found = mustOpen(t, dir, after)
		if !found.Rebooted {
			t.Fatal("the reboot was not reported")
		}
		wantEntries(t, found.Entries, map[string]string{"a": `"held"`})
		mustClose(t, l)
	}
	l, _ = mustOpen(t, dir, after)
	mustPut(t, l, set("a", `"cooling"`))
	mustClose(t, l)
	l, found = mustOpen(t, dir, after)
	if found.Rebooted {
		t.Error("the reboot was reported again after a Put")
	}
	wantEntries(t, found.Entries, map[string]string{"a": `"cooling"`})
	mustClose(t, l)

	_, found = mustOpen(t, dir, here)
	if !found.Rebooted {
		t.Error("another boot was not reported")
	}
}

func TestLedgerOfAnotherInstanceIsSetAside(t *testing.T) {
	dir := t.TempDir()
	for n, want := range []string{"", "ledger.i-0a", "ledger.i-0b", "ledger.i-0a.2"} {
		id := Identity{InstanceID: []string{"i-0a", "i-0b"}[n%2], BootID: "boot"}
		l, found := mustOpen(t, dir, id)
		wantEntries(t, found.Entries, map[string]string{})
		if want != "" {
			want = filepath.Join(dir, want)
		}
		if found.SetAside != want || found.Rebooted {
			t.Errorf("open %d as %s: set aside as %q, rebooted %v; want %q", n, id.InstanceID, found.SetAside, found.Rebooted, want)
		}
		mustPut(t, l, set("generation", fmt.Sprint(n)))
		mustClose(t, l)
	}
	data, err := os.ReadFile(filepath.Join(dir, "ledger.i-0a"))
	if err != nil {
		t.Fatal(err)
	}
	if s, _, damaged := read(data); damaged != 0 || string(s.values["generation"]) != "0" {
		t.Errorf("the first instance's ledger: %v, %d damaged", text(s.values), damaged)
	}
}

func TestFileWithoutHeaderIsSetAside(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "zeros": strings.Repeat("\x00", 99), "text": "hello\nworld\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, ledgerName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, found := mustOpen(t, dir, here)
			if want := filepath.Join(dir, "ledger.unidentified"); found.SetAside != want {
				t.Fatalf("set aside as %q, want %q", found.SetAside, want)
			}
			if got, err := os.ReadFile(found.SetAside); err != nil || string(got) != content {
				t.Errorf("the file set aside reads %q, %v", got, err)
			}
		})
	}
}

func TestDamagedRecordCostsThatRecordAlone(t *testing.T) {
	flip := func(line int, at int) func([]byte) []byte {
		return func(data []byte) []byte {
			lines := bytes.SplitAfter(data, []byte{'\n'})
			lines[line][at] ^= 0x20
			return bytes.Join(lines, nil)
		}
	}
	all := map[string]string{"a": `1`, "b": `2`, "c": `3`}
	without := func(key string) map[string]string {
		m := map[string]string{}
		for k, v := range all {
			if k != key {
				m[k] = v
			}
		}
		return m
	}
	for name, tc := range map[string]struct {
		change  func([]byte) []byte
		want    map[string]string
		damaged int
	}{
		"first header":    {flip(0, 20), all, 1},
		"second header":   {flip(1, 0), all, 1},
		"checksum":        {flip(3, 3), without("b"), 1},
		"payload":         {flip(3, 20), without("b"), 1},
		"last":            {flip(4, 20), without("c"), 1},
		"two":             {func(d []byte) []byte { return flip(0, 1)(flip(2, 20)(d)) }, without("a"), 2},
		"newline lost":    {flip(2, 34), map[string]string{"c": `3`}, 1},
		"line of rubbish": {func(d []byte) []byte { return append(d, "rubbish\n"...) }, all, 1},
		"empty line":      {func(d []byte) []byte { return append(d, '\n') }, all, 1},
		"checksum only":   {func(d []byte) []byte { return append(d, "00000000 \n"...) }, all, 1},
		"zeros in between": {func(d []byte) []byte {
			return bytes.Replace(d, lineOf(d, 3), append(make([]byte, 512), lineOf(d, 3)...), 1)
		}, all, 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l, _ := mustOpen(t, dir, here)
			mustPut(t, l, set("a", `1`))
			mustPut(t, l, set("b", `2`))
			mustPut(t, l, set("c", `3`))
			mustClose(t, l)
			var broken []byte
			edit(t, dir, func(d []byte) []byte { broken = tc.change(d); return broken })

			l, found := mustOpen(t, dir, here)
			wantEntries(t, found.Entries, tc.want)
			if found.Damaged != tc.damaged || found.SetAside != "" {
				t.Errorf("damaged %d, set aside %q; want %d, none", found.Damaged, found.SetAside, tc.damaged)
			}
			if kept, err := os.ReadFile(found.DamagedCopy); err != nil || !bytes.Equal(kept, broken) {
				t.Errorf("copy of the damaged file: %v, equal %v", err, bytes.Equal(kept, broken))
			}
			mustPut(t, l, set("d", `4`))
			mustClose(t, l)
			_, found = mustOpen(t, dir, here)
			if found.Damaged != 0 || found.DamagedCopy != "" || string(found.Entries["d"]) != `4` {
				t.Errorf("the file was not repaired: %+v", found)
			}
		})
	}
}

func lineOf(data []byte, n int) []byte { return bytes.SplitAfter(data, []byte{'\n'})[n] }

func TestDamageIsNoReasonToMissAReboot(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, here)
	mustPut(t, l, set("a", `1`))
	mustClose(t, l)
	edit(t, dir, func(d []byte) []byte { return append(d, "rubbish\n"...) })
	after := Identity{InstanceID: here.InstanceID, BootID: "boot-2"}
	for n := range 2 {
		l, found := mustOpen(t, dir, after)
		if !found.Rebooted || found.Damaged != 1-n {
			t.Errorf("open %d: %+v", n, found)
		}
		mustClose(t, l)
	}
}

func TestWhatANewerAgentWroteIsKept(t *testing.T) {
	newer := func(t *testing.T, minReader int) string {
		dir := t.TempDir()
		head, err := frame(line{Ledger: &header{Format: Format + 1, MinReader: minReader, InstanceID: here.InstanceID, BootID: here.BootID}})
		if err != nil {
			t.Fatal(err)
		}
		unknown := `{"lease":{"of":"tomorrow"}}`
		content := fmt.Sprintf("%s%s %s\n", head, sum([]byte(unknown)), unknown)
		if err := os.WriteFile(filepath.Join(dir, ledgerName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Run("when it says that we can read it", func(t *testing.T) {
		dir := newer(t, Format)
		l, found, err := open(dir, here, 1)
		if err != nil || found.Damaged != 0 || found.SetAside != "" {
			t.Fatalf("open: %+v, %v", found, err)
		}
		for i := range 100 {
			mustPut(t, l, set("a", fmt.Sprint(i)))
		}
		if l.Stats().Compactions == 0 {
			t.Error("the file was never rewritten")
		}
		mustClose(t, l)
		data, err := os.ReadFile(filepath.Join(dir, ledgerName))
		if err != nil {
			t.Fatal(err)
		}
		s, _, _ := read(data)
		if s.header.Format != Format+1 || !bytes.Contains(data, []byte(`{"lease":{"of":"tomorrow"}}`)) {
			t.Errorf("the rewritten file lost what it did not understand:\n%s", data)
		}
	})
	t.Run("and refused when it says that we cannot", func(t *testing.T) {
		dir := newer(t, Format+1)
		before, _ := os.ReadFile(filepath.Join(dir, ledgerName))
		if _, _, err := Open(dir, here); !errors.Is(err, ErrNewerFormat) {
			t.Fatalf("Open: %v, want ErrNewerFormat", err)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, ledgerName)); !bytes.Equal(before, after) {
			t.Error("the refused file was changed")
		}
		if _, found := mustOpen(t, dir, Identity{InstanceID: "i-0b", BootID: "b"}); found.SetAside == "" {
			t.Error("another instance's newer ledger was not set aside")
		}
	})
}

func TestFileDoesNotGrowForever(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, here)
	value := `"` + strings.Repeat("x", 400) + `"`
	largest := int64(0)
	for i := range 12_000 {
		mustPut(t, l, set(fmt.Sprintf("key-%d", i%50), value))
		largest = max(largest, l.Stats().Size)
	}
	if s := l.Stats(); s.Compactions < 3 || s.CompactError != nil || largest > compactMin+1000 {
		t.Errorf("after 5 MB of records: %+v, largest %d", s, largest)
	}
	mustClose(t, l)
	if _, found := mustOpen(t, dir, here); len(found.Entries) != 50 {
		t.Errorf("%d entries, want 50", len(found.Entries))
	}
}

func TestCompactionFailureIsNotThePutsFailure(t *testing.T) {
	dir := t.TempDir()
	l, _, err := open(dir, here, 2000)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Mkdir(filepath.Join(dir, tempName), 0o700); err != nil { // in the way of the new file
		t.Fatal(err)
	}
	for i := range 200 {
		mustPut(t, l, set("a", fmt.Sprint(i)))
	}
	if s := l.Stats(); s.CompactError == nil || s.Compactions != 0 {
		t.Errorf("with the way blocked: %+v", s)
	}
	if err := os.Remove(filepath.Join(dir, tempName)); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		mustPut(t, l, set("a", fmt.Sprint(i)))
	}
	if s := l.Stats(); s.CompactError != nil || s.Compactions == 0 {
		t.Errorf("with the way free: %+v", s)
	}
}

func BenchmarkPut(b *testing.B) {
	l, _ := mustOpen(b, b.TempDir(), here)
	value := json.RawMessage(`{"containerID":"` + strings.Repeat("c", 64) + `","ifName":"net1","network":"n6","eni":"eni-0123456789abcdef0","addresses":["10.10.1.70"],"netns":{"path":"/run/netns/cni-00000000-0000-0000-0000-000000000000","cookie":4711}}`)
	keys := make([]string, 700)
	for i := range keys {
		keys[i] = fmt.Sprintf("%064d/net1", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := l.Put(Entry{Key: keys[i%len(keys)], Value: value}); err != nil {
			b.Fatal(err)
		}
	}
}
