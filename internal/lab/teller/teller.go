// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

// Package teller writes the stories that the lab tells: steps, lines that are assertions with what was measured, and
// tables. The packages of the stories use it. It promises that every line with a mark was looked at, and counts them: a
// story is judged by [Teller.Failed]. What there is to tell does not belong here.
package teller

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

// Teller writes a story and counts its assertions. One goroutine uses it.
type Teller struct {
	out            io.Writer
	terminal       bool
	passed, failed int

	mu sync.Mutex // of out, while a look reports progress
}

// New returns a teller that writes to out. On a terminal lines change while something is in progress, and the marks have
// colours.
func New(out io.Writer, terminal bool) *Teller { return &Teller{out: out, terminal: terminal} }

// Escape codes, for terminals only (ECMA-48).
const (
	bold, dim, red, green, plain = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
	restartLine                  = "\r\x1b[K"
)

// measuredColumn is where what was measured stands.
const measuredColumn = 78

func (t *Teller) style(code, s string) string {
	if !t.terminal {
		return s
	}
	return code + s + plain
}

// Passed and Failed count the assertions so far.
func (t *Teller) Passed() int { return t.passed }

// Failed counts those that did not hold, or could not be told.
func (t *Teller) Failed() int { return t.failed }

// Say writes a paragraph. The story goes on when nobody can read it: its assertions decide the exit status.
func (t *Teller) Say(text string) { _, _ = fmt.Fprintln(t.out, text) }

// Step starts a numbered step.
func (t *Teller) Step(number int, title string) {
	t.Say("\n" + t.style(bold, fmt.Sprintf("%d. %s", number, title)))
}

// Check tells an assertion: what holds, and what was measured. While look runs, a terminal shows that it does.
func (t *Teller) Check(what string, look func() (measured string, err error)) bool {
	return t.Watch(what, func(func(string)) (string, error) { return look() })
}

// Watch is [Teller.Check] of what takes a while: look says how far it is, and a terminal shows that, at most once each
// tenth of a second. Progress may be called by any goroutine until look returns.
func (t *Teller) Watch(what string, look func(progress func(text string)) (measured string, err error)) bool {
	var shown time.Time
	over := false
	progress := func(text string) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if over || !t.terminal || time.Since(shown) < progressInterval {
			return
		}
		shown = time.Now()
		t.write(restartLine + "   … " + t.style(dim, beside(what, text)))
	}
	if t.terminal {
		t.write("   … " + t.style(dim, what))
	}
	measured, err := look(progress)
	t.mu.Lock()
	defer t.mu.Unlock()
	over = true
	mark := t.style(green, "✓")
	if err != nil {
		mark, measured = t.style(red, "✗"), strings.ReplaceAll(err.Error(), "\n", "; ")
		t.failed++
	} else {
		t.passed++
	}
	line := "   " + mark + " " + what
	if measured != "" {
		line += pad(what) + t.style(dim, measured)
	}
	if t.terminal {
		line = restartLine + line
	}
	t.Say(line)
	return err == nil
}

// beside puts progress behind what it is about, which gives way: a line that is longer than the terminal could not be
// written over.
func beside(what, text string) string {
	const narrow = 79 - len("   … ")
	room := narrow - utf8.RuneCountInString(text) - 2
	if letters := []rune(what); len(letters) > room {
		what = string(letters[:max(0, room-1)]) + "…"
	}
	return what + "  " + text
}

// progressInterval keeps a line readable while it changes.
const progressInterval = 100 * time.Millisecond

func (t *Teller) write(text string) { _, _ = io.WriteString(t.out, text) } // as Say

// pad is the room between what is told and what was measured.
func pad(what string) string {
	return strings.Repeat(" ", max(2, measuredColumn-utf8.RuneCountInString(what)))
}

// Skip fails what cannot be told any more because something before it failed.
func (t *Teller) Skip(what string) {
	t.Check(what, func() (string, error) { return "", errors.New("not told: see above") })
}

// Table writes rows in aligned columns, the first of them the head.
func (t *Teller) Table(rows [][]string) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, cells := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // a Builder takes everything
	}
	_ = w.Flush() // as above
	t.Say("")
	for line := range strings.Lines(text.String()) {
		t.Say("   " + strings.TrimRight(line, " \n"))
	}
}

// Since is how long ago that was, as people read it.
func Since(t time.Time) string { return Round(time.Since(t)) }

// Round prints a duration as people read it.
func Round(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
