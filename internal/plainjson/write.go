// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package plainjson

import (
	"encoding"
	"encoding/json"
	"strconv"
)

// Writer writes JSON piece by piece; the zero value is ready. Commas are its business, and that brackets match its
// caller's.
type Writer struct{ text []byte }

// Bytes is what was written.
func (w *Writer) Bytes() []byte { return w.text }

// Open begins an object or an array: '{' or '['.
func (w *Writer) Open(bracket byte) {
	w.separate()
	w.text = append(w.text, bracket)
}

// Close ends it.
func (w *Writer) Close(bracket byte) { w.text = append(w.text, bracket) }

// Key begins a member of an object; its value is written next.
func (w *Writer) Key(key string) {
	w.String(key)
	w.text = append(w.text, ':')
}

// String writes a string.
func (w *Writer) String(s string) {
	w.separate()
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			text, err := json.Marshal(s)
			if err != nil {
				text = []byte(`""`) // strings cannot fail
			}
			w.text = append(w.text, text...)
			return
		}
	}
	w.text = append(w.text, '"')
	w.text = append(w.text, s...)
	w.text = append(w.text, '"')
}

// Text writes a value that has a text form as a string. Its text must need no escapes.
func (w *Writer) Text(v encoding.TextAppender) {
	w.separate()
	w.text = append(w.text, '"')
	if text, err := v.AppendText(w.text); err == nil {
		w.text = text
	}
	w.text = append(w.text, '"')
}

// Int writes a number.
func (w *Writer) Int(n int64) {
	w.separate()
	w.text = strconv.AppendInt(w.text, n, 10)
}

// Uint writes a number.
func (w *Writer) Uint(n uint64) {
	w.separate()
	w.text = strconv.AppendUint(w.text, n, 10)
}

// Bool writes true or false.
func (w *Writer) Bool(v bool) {
	w.separate()
	w.text = strconv.AppendBool(w.text, v)
}

// separate writes a comma unless the value is the first of its object or array, or belongs to a key.
func (w *Writer) separate() {
	if n := len(w.text); n > 0 && w.text[n-1] != '{' && w.text[n-1] != '[' && w.text[n-1] != ':' {
		w.text = append(w.text, ',')
	}
}
