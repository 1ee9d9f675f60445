// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package story

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// teller writes the story and counts its assertions.
type teller struct {
	out            io.Writer
	terminal       bool
	passed, failed int
}

func newTeller(out io.Writer, terminal bool) *teller { return &teller{out: out, terminal: terminal} }

// Escape codes, for terminals only (ECMA-48).
const (
	bold, dim, red, green, plain = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
	restartLine                  = "\r\x1b[K"
)

// measuredColumn is where what was measured stands.
const measuredColumn = 78

func (t *teller) style(code, s string) string {
	if !t.terminal {
		return s
	}
	return code + s + plain
}

// say writes a paragraph. The story goes on when nobody can read it: its assertions decide the exit status.
func (t *teller) say(text string) { _, _ = fmt.Fprintln(t.out, text) }

// step starts a numbered step.
func (t *teller) step(number int, title string) {
	t.say("\n" + t.style(bold, fmt.Sprintf("%d. %s", number, title)))
}

// check tells an assertion: what holds, and what was measured. While look runs, a terminal shows that it does.
func (t *teller) check(what string, look func() (measured string, err error)) bool {
	if t.terminal {
		_, _ = fmt.Fprint(t.out, "   … "+t.style(dim, what))
	}
	measured, err := look()
	mark := t.style(green, "✓")
	if err != nil {
		mark, measured = t.style(red, "✗"), strings.ReplaceAll(err.Error(), "\n", "; ")
		t.failed++
	} else {
		t.passed++
	}
	line := "   " + mark + " " + what
	if measured != "" {
		line += strings.Repeat(" ", max(2, measuredColumn-utf8.RuneCountInString(what))) + t.style(dim, measured)
	}
	if t.terminal {
		line = restartLine + line
	}
	t.say(line)
	return err == nil
}

// skip fails what cannot be told any more because something before it failed.
func (t *teller) skip(what string) {
	t.check(what, func() (string, error) { return "", errors.New("not told: see above") })
}
