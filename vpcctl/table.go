// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// none stands for what is not there.
const none = "–"

// style is how a cell looks on a terminal: an SGR parameter of ECMA-48.
type style string

const (
	plain   style = ""
	heading style = "1"  // bold
	faint   style = "2"  // of no interest most of the time
	good    style = "32" // green
	warn    style = "33" // yellow
	bad     style = "31" // red
)

type cell struct {
	text  string
	style style
}

func cells(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, t := range texts {
		row[i] = cell{text: cmp.Or(t, none)}
	}
	return row
}

// page is text with aligned tables.
type page struct {
	bytes.Buffer
	colour bool
}

// put writes a cell. Names come from pods' authors, so that what a terminal would act on is left out.
func (p *page) put(c cell) {
	c.text = printable(c.text)
	if p.colour && c.style != plain {
		fmt.Fprintf(p, "\x1b[%sm%s\x1b[0m", c.style, c.text)
		return
	}
	p.WriteString(c.text)
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// title starts a part of the page.
func (p *page) title(format string, args ...any) {
	if p.Len() > 0 {
		p.WriteByte('\n')
	}
	p.put(cell{fmt.Sprintf(format, args...), heading})
	p.WriteByte('\n')
}

// table prints rows under their headings, two blanks between columns and none at the end of a line.
func (p *page) table(headings []string, rows [][]cell) {
	top := cells(headings...)
	for i := range top {
		top[i].style = faint
	}
	rows = append([][]cell{top}, rows...)
	widths := make([]int, len(headings))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		for i, c := range row {
			p.WriteString("  ")
			p.put(c)
			if i < len(row)-1 {
				p.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)))
			}
		}
		p.WriteByte('\n')
	}
}
