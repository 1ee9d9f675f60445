// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/multus-vpc/multus-vpc/internal/attachment"
	"github.com/multus-vpc/multus-vpc/internal/sweep"
)

// renderSweep is the report for people: what was found, and in the last lines what that means. yes is whether orphans were to be
// freed.
func renderSweep(r sweep.Report, yes, colour bool) []byte {
	p := &page{colour: colour}
	p.title("Addresses: %d on %d ENIs, against %d pods", len(r.Findings), r.ENIs, r.Pods)
	if len(r.Findings) > 0 {
		var rows [][]cell
		for found := r.Findings; len(found) > 0; {
			f, n := found[0], adjoining(found)
			addresses := attachment.Range{From: f.Address, To: found[n-1].Address}
			rows = append(rows, append(cells(addresses.String(), string(f.ENI), cmp.Or(f.Node, string(f.Instance))), verdict(f.Verdict), cell{f.Reason, plain}))
			found = found[n:]
		}
		p.table([]string{"ADDRESS", "ENI", "WORKER", "IS", "WHY"}, rows)
	}
	var counts []string
	for _, v := range []sweep.Verdict{sweep.Orphan, sweep.Freed, sweep.Gone, sweep.Failed, sweep.Kept} {
		if n := r.Count(v); n > 0 || v == sweep.Orphan && !yes {
			counts = append(counts, fmt.Sprintf("%s %d", v, n))
		}
	}
	p.title("In all: %s", cmp.Or(strings.Join(counts, ", "), none))
	if !yes && r.Count(sweep.Orphan) > 0 {
		p.WriteString("hint: nothing was changed; --yes looks a second time and frees what still is an orphan\n")
	}
	return p.Bytes()
}

// adjoining says how many of the findings, from the first on, are about addresses that follow on one another on one ENI, and say the
// same: an agent's stock would fill pages.
func adjoining(found []sweep.Finding) int {
	n := 1
	for ; n < len(found); n++ {
		last, next := found[n-1], found[n]
		same := next.ENI == last.ENI && next.Verdict == last.Verdict && next.Reason == last.Reason
		if !same || next.Address != last.Address.Next() {
			break
		}
	}
	return n
}

func verdict(v sweep.Verdict) cell {
	styles := map[sweep.Verdict]style{sweep.Kept: faint, sweep.Orphan: warn, sweep.Freed: good, sweep.Gone: faint, sweep.Failed: bad}
	return cell{string(v), styles[v]}
}
