// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package lambda

import (
	"fmt"
	"io"
	"sync"
)

// maxJournal is how much of a function's log is kept.
const maxJournal = 1 << 20

// journal is a function's log. It is safe for concurrent use.
type journal struct {
	also io.Writer

	mu   sync.Mutex
	text []byte
}

func newJournal(also io.Writer) *journal { return &journal{also: also} }

// Write implements [io.Writer]. It does not fail.
func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, p...)
	if over := len(j.text) - maxJournal; over > 0 {
		j.text = append([]byte(nil), j.text[over:]...)
	}
	_, _ = j.also.Write(p) // the copy is the caller's affair
	return len(p), nil
}

func (j *journal) line(format string, args ...any) {
	_, _ = fmt.Fprintf(j, format+"\n", args...)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text)
}
