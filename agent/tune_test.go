// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestTuneLeavesWhatIsSet(t *testing.T) {
	const own, untouched = 3, 123
	wasProcs, wasPercent := runtime.GOMAXPROCS(own), debug.SetGCPercent(untouched)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(wasProcs)
		debug.SetGCPercent(wasPercent)
	})
	for _, tt := range []struct {
		name           string
		env            map[string]string
		procs, percent int
	}{
		{"both set", map[string]string{"GOMAXPROCS": "3", "GOGC": "123"}, own, untouched},
		{"GOMAXPROCS set", map[string]string{"GOMAXPROCS": "3"}, own, gcPercent},
		{"nothing set", nil, processors, gcPercent},
	} {
		tune(func(name string) string { return tt.env[name] })
		percent := debug.SetGCPercent(untouched) // tells what it was
		if procs := runtime.GOMAXPROCS(0); procs != tt.procs || percent != tt.percent {
			t.Errorf("%s: GOMAXPROCS %d, GOGC %d; want %d, %d", tt.name, procs, percent, tt.procs, tt.percent)
		}
	}
}
