// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"hash/crc32"
	"maps"
	"slices"
)

// header is the object that says whose ledger the file is.
type header struct {
	Format     int    `json:"format"`
	MinReader  int    `json:"minReader"` // the Format that a reader must know at least
	InstanceID string `json:"instanceID"`
	BootID     string `json:"bootID"`
}

// change is an [Entry] as it is written: compact JSON, no value for a deletion.
type change struct {
	Key   string          `json:"k"`
	Value json.RawMessage `json:"v,omitempty"`
}

// line is the JSON of one line. A line with neither member is of an unknown kind.
type line struct {
	Ledger *header  `json:"ledger,omitempty"`
	Put    []change `json:"put,omitempty"`
}

// state is what the lines of a file amount to.
type state struct {
	header  header
	values  map[string]json.RawMessage
	unknown [][]byte // lines of unknown kinds, in order, newline included
	live    int64    // bytes that values and unknown need in a rewritten file
}

func newState() state { return state{values: map[string]json.RawMessage{}} }

func (s *state) apply(changes []change) {
	for _, c := range changes {
		if old, ok := s.values[c.Key]; ok {
			s.live -= liveBytes(c.Key, old)
			delete(s.values, c.Key)
		}
		if c.Value != nil {
			s.values[c.Key] = c.Value
			s.live += liveBytes(c.Key, c.Value)
		}
	}
}

// liveBytes is about what a record of its own needs for the key: the frame around key and value is 33 bytes.
func liveBytes(key string, value json.RawMessage) int64 {
	return int64(len(key)) + int64(len(value)) + 33
}

// read takes in a whole file. good is the length up to the end of the last whole line: what follows was being written when
// the process died, and was never acknowledged. damaged counts whole lines that cannot be trusted.
func read(data []byte) (s state, good int64, damaged int) {
	s = newState()
	for {
		raw, _, whole := bytes.Cut(data[good:], []byte{'\n'})
		if !whole {
			return s, good, damaged
		}
		good += int64(len(raw)) + 1
		// After a power loss a file system may show zeros where data had not reached the disk; a good line may follow them.
		kept := bytes.TrimLeft(raw, "\x00")
		if len(kept) < len(raw) {
			damaged++
		}
		if !s.readLine(kept) {
			damaged++
		}
	}
}

func (s *state) readLine(raw []byte) (ok bool) {
	payload, ok := checked(raw)
	if !ok {
		return false
	}
	var l line
	if err := json.Unmarshal(payload, &l); err != nil {
		return false
	}
	if l.Ledger != nil {
		s.header = *l.Ledger
	}
	s.apply(l.Put)
	if l.Ledger == nil && l.Put == nil {
		kept := append(slices.Clone(raw), '\n')
		s.unknown = append(s.unknown, kept)
		s.live += int64(len(kept))
	}
	return true
}

// write is the whole file for the state: header twice, unknown kinds, one record per key in order.
func (s *state) write() ([]byte, error) {
	head, err := frame(line{Ledger: &s.header})
	if err != nil {
		return nil, err
	}
	out := slices.Concat(head, head)
	for _, raw := range s.unknown {
		out = append(out, raw...)
	}
	for _, k := range slices.Sorted(maps.Keys(s.values)) {
		record, err := frame(line{Put: []change{{Key: k, Value: s.values[k]}}})
		if err != nil {
			return nil, err
		}
		out = append(out, record...)
	}
	return out, nil
}

const sumLen = 2 * crc32.Size

// frame makes the line "checksum JSON\n".
func frame(l line) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, sumLen))
	b.WriteByte(' ')
	enc := json.NewEncoder(&b) // ends in a newline
	enc.SetEscapeHTML(false)   // would change values
	if err := enc.Encode(l); err != nil {
		return nil, err
	}
	out := b.Bytes()
	copy(out, sum(out[sumLen+1:len(out)-1]))
	return out, nil
}

// checked is the JSON of a line whose checksum is right.
func checked(raw []byte) (payload []byte, ok bool) {
	if len(raw) <= sumLen || raw[sumLen] != ' ' {
		return nil, false
	}
	payload = raw[sumLen+1:]
	return payload, bytes.Equal(raw[:sumLen], sum(payload))
}

func sum(payload []byte) []byte {
	crc := crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	return hex.AppendEncode(nil, []byte{byte(crc >> 24), byte(crc >> 16), byte(crc >> 8), byte(crc)})
}

// compactJSON is v without insignificant white space, newlines in particular; nil stays nil.
func compactJSON(v json.RawMessage) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
