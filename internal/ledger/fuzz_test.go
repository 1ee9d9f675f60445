// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ledger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// signed is a line with the checksum that belongs to it.
func signed(payload string) string { return fmt.Sprintf("%s %s\n", sum([]byte(payload)), payload) }

type readSeed struct {
	name                    string
	file                    string
	values, unknown, damage int
	good                    int // bytes; -1 for all
}

// readSeeds are files and what is in them.
func readSeeds(t testing.TB) []readSeed {
	t.Helper()
	s := newState()
	s.header = header{Format: 1, MinReader: 1, InstanceID: "i-0a", BootID: "b"}
	s.apply([]change{{Key: "a", Value: json.RawMessage(`{"x":1}`)}, {Key: "b", Value: json.RawMessage(`null`)}})
	file, err := s.write()
	if err != nil {
		t.Fatal(err)
	}
	whole := string(file)
	lastLine := len(bytes.TrimSuffix(file, lineOf(file, 3)))
	return []readSeed{
		{name: "nothing"},
		{name: "two records", file: whole, values: 2, good: -1},
		{name: "the last record cut", file: whole[:len(whole)-3], values: 1, good: lastLine},
		{name: "zeros and rubbish behind", file: whole + "\x00\x00rubbish\n", values: 2, damage: 2, good: -1},
		{name: "zeros before a good line", file: "\x00\x00" + signed(`{"put":[{"k":"a","v":1}]}`), values: 1, damage: 1, good: -1},
		{name: "a kind of the future", file: signed(`{"lease":1}`), unknown: 1, good: -1},
		{name: "put and deleted", file: signed(`{"put":[{"k":"a","v":1},{"k":"a"}]}`), good: -1},
		{name: "a header alone", file: signed(`{"ledger":{"format":7}}`), good: -1},
		{name: "a right checksum of no JSON", file: signed(`{"put":`), damage: 1, good: -1},
		{name: "a right checksum of another value", file: signed(`[]`), damage: 1, good: -1},
		{name: "a wrong checksum", file: "00000000 {\"put\":[{\"k\":\"a\",\"v\":1}]}\n", damage: 1, good: -1},
	}
}

func TestSeedsOfLedgers(t *testing.T) {
	for _, seed := range readSeeds(t) {
		s, good, damaged := read([]byte(seed.file))
		if seed.good < 0 {
			seed.good = len(seed.file)
		}
		if len(s.values) != seed.values || len(s.unknown) != seed.unknown || damaged != seed.damage || good != int64(seed.good) {
			t.Errorf("%s: %d values, %d unknown, %d damaged, %d bytes good; want %+v", seed.name, len(s.values), len(s.unknown), damaged, good, seed)
		}
	}
}

// FuzzRead: whatever the file holds, reading it does not panic, and what was understood survives being written again.
func FuzzRead(f *testing.F) {
	for _, seed := range readSeeds(f) {
		f.Add([]byte(seed.file))
	}
	f.Add([]byte(`{"put":[{"k":"a","v":1},{"k":"a"}]}`)) // payloads: the test adds the checksum
	f.Add([]byte(`{"put":[{"k":"a","v":"` + "\xff" + `"}],"ledger":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		framed := []byte(signed(string(data)))
		for _, file := range [][]byte{data, framed} {
			first, good, _ := read(file)
			if good > int64(len(file)) {
				t.Fatalf("good %d of %d bytes", good, len(file))
			}
			again, err := first.write()
			if err != nil {
				t.Fatalf("write: %v", err)
			}
			second, good, damaged := read(again)
			if damaged != 0 || good != int64(len(again)) {
				t.Fatalf("own file: %d damaged, %d of %d bytes good:\n%q", damaged, good, len(again), again)
			}
			if diff := cmp.Diff(text(first.values), text(second.values)); diff != "" || len(first.unknown) != len(second.unknown) || first.live != second.live {
				t.Fatalf("rewritten (-first +second), live %d and %d:\n%s", first.live, second.live, diff)
			}
		}
	})
}

// history makes the lines of a ledger's life out of a script: each byte puts or deletes one of four keys, every third
// one together with the key after it.
func history(t *testing.T, script []byte) (lines [][]byte, puts [][]change) {
	t.Helper()
	head, err := frame(line{Ledger: &header{Format: 1, MinReader: 1, InstanceID: "i-0a", BootID: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	lines, puts = [][]byte{head, head}, [][]change{nil, nil}
	for n, b := range script {
		put := []change{{Key: string('a' + rune(b%4))}}
		if b&4 == 0 {
			put[0].Value = json.RawMessage(fmt.Sprint(n))
		}
		if n%3 == 0 {
			put = append(put, change{Key: string('a' + rune((b+1)%4)), Value: json.RawMessage(fmt.Sprint(n))})
		}
		raw, err := frame(line{Put: put})
		if err != nil {
			t.Fatal(err)
		}
		lines, puts = append(lines, raw), append(puts, put)
	}
	return lines, puts
}

// damages are ways in which a file of lines comes to harm at a byte. Each returns the file and the lines that are hurt.
func damages() []func(lines [][]byte, at int, junk []byte) (file []byte, hurt []int) {
	hit := func(lines [][]byte, at int) (n, within int) {
		for n = range lines {
			if at < len(lines[n]) {
				return n, at
			}
			at -= len(lines[n])
		}
		return len(lines) - 1, len(lines[n]) - 1
	}
	from := func(lines [][]byte, n int) (all []int) {
		for ; n < len(lines); n++ {
			all = append(all, n)
		}
		return all
	}
	return []func(lines [][]byte, at int, junk []byte) ([]byte, []int){
		func(lines [][]byte, at int, _ []byte) ([]byte, []int) { // the process or the power ended
			n, within := hit(lines, at)
			return append(slices.Concat(lines[:n]...), lines[n][:within]...), from(lines, n)
		},
		func(lines [][]byte, at int, junk []byte) ([]byte, []int) { // a byte was changed
			n, within := hit(lines, at)
			file := slices.Concat(lines...)
			file[len(slices.Concat(lines[:n]...))+within] ^= 1 | append(junk, 0)[0]
			if within == len(lines[n])-1 { // the line feed: two lines are one
				return file, from(lines, n)[:min(2, len(lines)-n)]
			}
			return file, []int{n}
		},
		func(lines [][]byte, at int, junk []byte) ([]byte, []int) { // something else was written in between
			n, within := hit(lines, at)
			if within == 0 {
				return slices.Concat(slices.Concat(lines[:n]...), junk, []byte("\n"), slices.Concat(lines[n:]...)), nil
			}
			return slices.Concat(slices.Concat(lines[:n]...), lines[n][:within], []byte("\x01"), junk, lines[n][within:], slices.Concat(lines[n+1:]...)), []int{n}
		},
		func(lines [][]byte, at int, _ []byte) ([]byte, []int) { // a block of zeros where data had not reached the disk
			n, _ := hit(lines, at)
			file := slices.Concat(slices.Concat(lines[:n]...), make([]byte, len(lines[n])), slices.Concat(lines[n+1:]...))
			return file, []int{n}
		},
	}
}

// FuzzDamage: a ledger that came to harm at one place gives exactly what its other records say. What was recorded
// before is never lost, and no record is ever read otherwise than it was written.
func FuzzDamage(f *testing.F) {
	for kind := range damages() {
		f.Add([]byte{0, 1, 2, 3, 4, 0, 5}, uint16(0), byte(kind), []byte("junk"))
		f.Add([]byte{0, 1, 2, 3, 4, 0, 5}, uint16(250), byte(kind), []byte(nil))
		f.Add([]byte{0, 4, 0}, uint16(1000), byte(kind), []byte("\x00\n\n"))
	}
	f.Fuzz(func(t *testing.T, script []byte, at uint16, kind byte, junk []byte) {
		lines, puts := history(t, script[:min(len(script), 64)])
		file, hurt := damages()[int(kind)%len(damages())](lines, int(at), junk)
		want := map[string]string{}
		for n, put := range puts {
			if slices.Contains(hurt, n) {
				continue
			}
			for _, c := range put {
				delete(want, c.Key)
				if c.Value != nil {
					want[c.Key] = string(c.Value)
				}
			}
		}
		s, _, damaged := read(file)
		if got := text(s.values); !maps.Equal(got, want) {
			t.Fatalf("lines %v hurt:\n%q\nread %v, want %v", hurt, file, got, want)
		}
		if !slices.Contains(hurt, 0) && s.header.InstanceID == "" {
			t.Errorf("the header is lost with lines %v:\n%q", hurt, file)
		}
		if len(hurt) > 0 && int(kind)%len(damages()) != 0 && hurt[len(hurt)-1] < len(lines)-1 && damaged == 0 {
			t.Errorf("damage to lines %v is not reported:\n%q", hurt, file)
		}
	})
}
